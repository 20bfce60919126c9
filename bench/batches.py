"""How many images an encoder is best given at once, and how busy a GPU is in a job."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean

from .embedding import Bench
from .loops import FORWARD_BATCHES, Loops
from .table import Row, row_of_rounds

_SAMPLE = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]


def batch_sizes(bench: Bench, rounds: int) -> Iterator[Row]:
    """The bare forward pass with batches of several sizes, against batches of 32."""
    rates: dict[int, list[float]] = {size: [] for size in FORWARD_BATCHES}
    with Loops(bench.model, bench.weights, bench.precision, bench.device) as loops:
        scans = bench.copies("sizes")
        loops.time("forward 32", scans)  # warms it
        for _ in range(rounds):
            for size, found in rates.items():
                found.append(len(bench.images) / loops.time(f"forward {size}", scans))
    for size, found in rates.items():
        what = f"the bare forward pass, {bench.precision}, batches of {size}"
        yield row_of_rounds(what, "batches of 32", "images/s", found, rates[32])


def utilisation(bench: Bench) -> Iterator[Row]:
    """The share of time in which a GPU computes while a warm worker embeds a job."""
    with bench.worker() as here:
        scans = bench.copies("busy")
        with _samples() as samples:
            here.job(scans, *bench.options)
    what = f"utilisation of the device in a job, {bench.precision}"
    yield Row(what, "all the time (limit)", "%", mean(samples), 100.0)


@contextmanager
def _samples() -> Iterator[list[float]]:
    """What nvidia-smi says of the first GPU's utilisation in percent, while the block runs, idle ends included."""
    samples: list[float] = []
    process = subprocess.Popen([*_SAMPLE, "--id=0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout
    reader = threading.Thread(target=lambda: samples.extend(float(line) for line in output))
    reader.start()
    try:
        yield samples
    finally:
        process.terminate()
        reader.join()
