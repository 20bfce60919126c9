"""Images → embeddings, end to end: from a job's first message to its last commit.

Every round gives the same images to loops that do the same or less and to Scanomaly, one after the other. Bytes
behind their end make their content new to Scanomaly, and leave the pixels as they are. All models are loaded.
"""

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .loops import Loops
from .table import Row, row_of_rounds
from .world import Scanomaly, scanomaly

_ENDINGS = (".jpg", ".jpeg", ".png")
_FORWARD = "forward 32"
_LOOPS = {
    _FORWARD: "the bare forward pass (limit)",
    "expert": "an expert's loop: DataLoader, batches of 64",
    "notebook": "the reference notebook's loop, fp32",
}
_GOALS = {
    ("fp32", _FORWARD): "≥ 0.95",
    ("fp32", "expert"): "≥ 1.0",
    ("fp32", "notebook"): "≥ 1.9",
    ("bf16", "expert"): "≥ 1.1",
    ("bf16", "notebook"): "≥ 5.5",
}
_LONG_AGO = 1_000_000_000
"""A time in seconds since 1970: a file that was changed just now would be read again."""

_Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Bench:
    """What is measured on: the images, their precision, a folder for files that come and go."""

    images: Sequence[Path]
    precision: str
    folder: Path
    model: str
    weights: Path
    device: str

    @property
    def options(self) -> tuple[str, ...]:
        return ("--encoder", self.model, "--weights", str(self.weights), "--precision", self.precision)

    def copies(self, name: str, distinct: bool = True) -> Path:
        """The images, half of them below `no`. What has the same content keeps it in common, unless `distinct`."""
        folder = self.folder / f"{self.precision}-{name}"
        for number, image in enumerate(self.images):
            copy = folder / ("yes" if number % 2 else "no") / f"{number:06}{image.suffix.lower()}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            mark = f"{number} of {folder}" if distinct else str(folder)
            copy.write_bytes(image.read_bytes() + mark.encode())
            os.utime(copy, (_LONG_AGO, _LONG_AGO))
        return folder

    @contextmanager
    def worker(self) -> Iterator[Scanomaly]:
        """A worker that has the encoder loaded."""
        with scanomaly(SCANOMALY_DEVICE=self.device) as here, here.workers():
            here.job(self.copies("warm"), *self.options)
            yield here


def find_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)


@contextmanager
def benches(images: Sequence[Path], model: str, precisions: Sequence[str], device: str) -> Iterator[list[Bench]]:
    """A bench for each precision, with the same untrained checkpoint."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        weights = make_weights(model, Path(folder))
        yield [Bench(images, precision, Path(folder), model, weights, device) for precision in precisions]


def make_weights(model: str, folder: Path) -> Path:
    """A checkpoint of a model, untrained, the same each time."""
    import open_clip
    import torch

    torch.manual_seed(0)
    path = folder / "weights.pt"
    torch.save(open_clip.create_model(model).state_dict(), path)
    return path


def end_to_end(bench: Bench, rounds: int) -> Iterator[Row]:
    """Against the loops; and the same images a second time."""
    seconds: _Seconds = defaultdict(list)
    with ExitStack() as stack:
        loops = stack.enter_context(Loops(bench.model, bench.weights, bench.precision, bench.device))
        notebook = loops
        if bench.precision != "fp32":
            notebook = stack.enter_context(Loops(bench.model, bench.weights, "fp32", bench.device))
        here = stack.enter_context(bench.worker())
        for number in range(-1, rounds):  # the round before the first warms the loops
            scans = bench.copies(f"{number}")
            times = {loop: (notebook if loop == "notebook" else loops).time(loop, scans) for loop in _LOOPS}
            if number < 0:
                continue
            for loop, time in times.items():
                seconds[loop].append(time)
            seconds["distinct"].append(here.job(scans, *bench.options).seconds)
            seconds["read"].append(loops.time("read", scans))
            seconds["again"].append(_again(here, bench, scans))
            seconds["rehash"].append(_again(here, bench, scans, "--rehash"))
            seconds["as they are"].append(here.job(bench.copies(f"{number}-as", False), *bench.options).seconds)
    yield from _against_loops(bench, seconds)
    yield from _second_runs(bench, seconds)


def _again(here: Scanomaly, bench: Bench, scans: Path, *options: str) -> float:
    done = here.job(scans, *bench.options, *options)
    if done.encoded:
        raise RuntimeError(f"{done.encoded} images were encoded again")
    return done.seconds


def _against_loops(bench: Bench, seconds: _Seconds) -> Iterator[Row]:
    rates = {name: [len(bench.images) / second for second in found] for name, found in seconds.items()}
    for kind in ("as they are", "distinct"):
        for loop, against in _LOOPS.items():
            goal = _GOALS.get((bench.precision, loop), "") if bench.device == "cpu" else ""
            what = f"end to end, {bench.precision}, images {kind}"
            yield row_of_rounds(what, against, "images/s", rates[kind], rates[loop], goal)


def _second_runs(bench: Bench, seconds: _Seconds) -> Iterator[Row]:
    for name, what in (("again", "second run"), ("rehash", "second run with --rehash")):
        goal = "≤ 0.05" if name == "again" else ""
        yield row_of_rounds(
            f"{what}, {bench.precision}", "the first run", "s", seconds[name], seconds["distinct"], goal
        )
        yield row_of_rounds(
            f"{what}, {bench.precision}", "reading the bytes (limit)", "s", seconds[name], seconds["read"]
        )


def large_images(bench: Bench, rounds: int, kinds: Mapping[str, Sequence[Path]]) -> Iterator[Row]:
    """Against decoding alone, and against the forward pass alone: on a CPU they share the cores. `kinds` of
    images have names."""
    with Loops(bench.model, bench.weights, bench.precision, bench.device) as loops, bench.worker() as here:
        for name, images in kinds.items():
            yield from _large_images(replace(bench, images=images), rounds, name, loops, here)


def _large_images(bench: Bench, rounds: int, what: str, loops: Loops, here: Scanomaly) -> Iterator[Row]:
    seconds: _Seconds = defaultdict(list)
    for number in range(rounds):
        scans = bench.copies(f"large-{what}-{number}")
        seconds["decode"].append(loops.time("decode", scans))
        seconds["forward"].append(loops.time(_FORWARD, scans))
        seconds["ours"].append(here.job(scans, *bench.options).seconds)
    rates = {name: [len(bench.images) / second for second in found] for name, found in seconds.items()}
    one_after_the_other = [1 / (1 / a + 1 / b) for a, b in zip(rates["decode"], rates["forward"], strict=True)]
    name = f"{what}, {bench.precision}"
    yield row_of_rounds(name, "decoding alone on all cores (limit)", "images/s", rates["ours"], rates["decode"])
    yield row_of_rounds(
        name, "decoding, and then the forward pass, on all cores", "images/s", rates["ours"], one_after_the_other
    )


def draw_large(images: Sequence[Path], folder: Path, count: int, side: int, ending: str) -> list[Path]:
    """Images of side × side pixels: real ones enlarged, with a little noise, as a camera's have it."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    folder.mkdir()
    drawn = []
    for number in range(count):
        small = Image.open(images[number % len(images)]).convert("RGB")
        pixels = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + random.integers(-4, 5, pixels.shape, np.int16), 0, 255).astype(np.uint8)
        drawn.append(folder / f"{number}{ending}")
        Image.fromarray(noisy).save(drawn[-1], quality=90)
    return drawn
