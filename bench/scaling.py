"""Workers beside each other, on an encoder that sleeps: what they share is the store, the queue and two cores."""

import os
import time
from collections.abc import Iterator

from tests.chaos.campaign import ENCODER
from tests.chaos.world import PLUGIN

from .table import Row, row_of_rounds
from .world import draw_small, scanomaly

WORKERS = (1, 2, 4)
_BATCH = 32
_LOOK_SECONDS = 0.2
_READY = " ready."
"""What Celery logs when it begins to take calls."""


def rows(scans: int, scan_seconds: float, rounds: int) -> Iterator[Row]:
    """A job of `scans` on 1, 2 and 4 workers, against one. The batches come out even."""
    seconds = {workers: [_embed(workers, scans, scan_seconds) for _ in range(rounds)] for workers in WORKERS}
    limit = scans * scan_seconds
    what = f"{scans} scans of {scan_seconds:g} s"
    yield row_of_rounds(f"{what}, 1 worker", "the sleep alone (limit)", "s", seconds[1], [limit] * rounds)
    for workers in WORKERS[1:]:
        faster = [one / many for one, many in zip(seconds[1], seconds[workers], strict=True)]
        goal = "≥ 0.95" if workers == 4 else ""
        yield row_of_rounds(
            f"{what}, {workers} workers against one",
            "linear scaling (limit)",
            "×",
            faster,
            [workers] * rounds,
            goal,
        )


def _embed(workers: int, scans: int, scan_seconds: float) -> float:
    search = os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": search, "CHAOS_SCAN_SECONDS": str(scan_seconds), "OMP_NUM_THREADS": "1"}
    with scanomaly(**variables, SCANOMALY_DEVICE="cpu") as here:
        warm = draw_small(here.home / "warm", 8 * _BATCH * workers, seed=1)
        folder = draw_small(here.home / "scans", scans, seed=2)
        with here.workers(workers):
            while (here.home / "worker.log").read_text().count(_READY) < workers:
                time.sleep(_LOOK_SECONDS)
            here.job(warm, "--encoder", ENCODER, "--batch-size", str(_BATCH))
            return here.job(folder, "--encoder", ENCODER, "--batch-size", str(_BATCH)).seconds
