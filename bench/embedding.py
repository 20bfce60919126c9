"""End to end: from a job's first message to its last commit, against loops that do the same and against less.

Every round gives each of them the same images, one after the other. Bytes behind their end make the content of each
new to Scanomaly, and leave the pixels as they are. All are warm: their models are loaded.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .loops import MODEL, Loops
from .table import Row, row_of_rounds
from .world import scanomaly

_LOOPS = ("forward", "expert", "notebook")
_GOALS = {
    ("fp32", "notebook"): "≥ 1.9",
    ("fp32", "expert"): "≥ 1.0",
    ("fp32", "forward"): "≥ 0.95",
    ("bf16", "notebook"): "≥ 5.5",
    ("bf16", "expert"): "≥ 1.1",
}
_NAMES = {
    "notebook": "the reference notebook's loop, fp32",
    "expert": "an expert's loop: DataLoader, batches of 64",
    "forward": "the bare forward pass: the limit",
}


def measure(images: Path, precisions: Sequence[str], rounds: int, device: str) -> list[Row]:
    """Images per second, in as many rounds, of all images below a folder."""
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        weights = make_weights(folder)
        return [
            row
            for precision in precisions
            for row in _measure_precision(files, folder, weights, precision, rounds, device)
        ]


def make_weights(folder: Path) -> Path:
    """A checkpoint of the model, untrained, the same each time."""
    import open_clip
    import torch

    torch.manual_seed(0)
    path = folder / "weights.pt"
    torch.save(open_clip.create_model(MODEL).state_dict(), path)
    return path


def copies(files: Sequence[Path], folder: Path, mark: str) -> Path:
    """The images, half of them below `no`, with a mark behind their end: the same pixels, another content."""
    for number, file in enumerate(files):
        copy = folder / ("no" if number % 2 else "yes") / f"{number:06}{file.suffix.lower()}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes() + mark.encode())
    return folder


def _measure_precision(
    files: Sequence[Path], folder: Path, weights: Path, precision: str, rounds: int, device: str
) -> Iterator[Row]:
    seconds: dict[str, list[float]] = {name: [] for name in ("scanomaly", *_LOOPS)}
    with (
        Loops(weights, precision, device) as loops,
        Loops(weights, "fp32", device) as notebook,
        scanomaly(SCANOMALY_DEVICE=device) as here,
        here.workers(),
    ):
        options = ("--encoder", MODEL, "--weights", str(weights), "--precision", precision)
        here.job(copies(files[:64], folder / f"{precision}-warm", f"{precision}-warm"), *options)
        for number in range(rounds):
            scans = copies(files, folder / f"{precision}-{number}", f"{precision}-{number}")
            for name in _LOOPS:
                seconds[name].append((notebook if name == "notebook" else loops).time(name, scans))
            seconds["scanomaly"].append(here.job(scans, *options).seconds)
    rates = {name: [len(files) / second for second in found] for name, found in seconds.items()}
    for name in _LOOPS:
        goal = _GOALS.get((precision, name), "") if device == "cpu" else ""
        yield row_of_rounds(
            f"end to end, {precision}", _NAMES[name], "images/s", rates["scanomaly"], rates[name], goal
        )
