"""`python -m bench [GROUP...]`: measure, print one table, and write `bench/results/DEVICE.json`."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import aggregate, batches, embedding, formats, precision, scaling, service, startup, submit
from .table import RESULTS, Row, save, table

_IMAGES = Path(__file__).parents[2] / "shared" / "data" / "brain-mri"
_OFFLINE = "efficientnet_lite0"


def _end_to_end(options: argparse.Namespace) -> Iterator[Row]:
    images = embedding.find_images(options.images)[: options.limit] * options.times
    with embedding.benches(images, options.model, options.precisions, options.device) as benches:
        for bench in benches:
            yield from embedding.end_to_end(bench, options.rounds)


def _large(options: argparse.Namespace) -> Iterator[Row]:
    images = embedding.find_images(options.images)[: options.limit]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        kinds = {
            f"{options.side} × {options.side} {ending[1:].upper()}": embedding.draw_large(
                images, Path(folder) / ending[1:], count, options.side, ending
            )
            for ending, count in ((".jpg", options.large), (".png", options.large // 2))
        }
        drawn = next(iter(kinds.values()))
        with embedding.benches(drawn, options.model, options.precisions, options.device) as benches:
            for bench in benches:
                yield from embedding.large_images(bench, options.rounds, kinds)


def _batches(options: argparse.Namespace) -> Iterator[Row]:
    images = embedding.find_images(options.images)[: options.limit] * options.times
    with embedding.benches(images, options.model, options.precisions, options.device) as benches:
        for bench in benches:
            yield from batches.batch_sizes(bench, options.rounds)
            if options.device.startswith("cuda"):
                yield from batches.utilisation(bench)


def _precision(options: argparse.Namespace) -> Iterator[Row]:
    others = [name for name in options.precisions if name != "fp32"]
    yield from precision.changes(options.images, _OFFLINE, (), others, options.device)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        weights = ("--weights", str(embedding.make_weights(options.model, Path(folder))))
        yield from precision.changes(options.images, options.model, weights, others, options.device)


def _aggregate(options: argparse.Namespace) -> Iterator[Row]:
    for store in aggregate.STORES:
        for vectors in options.vectors:
            yield from aggregate.rows(store, vectors)


def _scaling(options: argparse.Namespace) -> Iterator[Row]:
    yield from scaling.rows(options.sleepers, options.sleep, 1)


def _service(options: argparse.Namespace) -> Iterator[Row]:
    yield from service.rows(options.scans, options.clients, options.window, options.rounds)


def _formats(options: argparse.Namespace) -> Iterator[Row]:
    yield from formats.rows(options.slices, options.rounds)


def _startup(options: argparse.Namespace) -> Iterator[Row]:
    yield from startup.rows(options.images, 2 * options.rounds)


def _submit(options: argparse.Namespace) -> Iterator[Row]:
    for database in ("sqlite", "postgres"):
        for files in options.files:
            yield from submit.rows(files, database)


GROUPS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "end-to-end": _end_to_end,
    "large": _large,
    "batches": _batches,
    "precision": _precision,
    "submit": _submit,
    "aggregate": _aggregate,
    "scaling": _scaling,
    "service": _service,
    "startup": _startup,
    "formats": _formats,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument(
        "--images", type=Path, default=_IMAGES, help="a folder of images, its sub-folders the labels"
    )
    parser.add_argument("--limit", type=int, help="take only so many of them")
    parser.add_argument("--times", type=int, default=1, help="take each so many times: a GPU needs more to be busy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=["fp32", "bf16"])
    parser.add_argument("--large", type=int, default=48, help="how many large JPEG, and half as many PNG")
    parser.add_argument("--side", type=int, default=2000, help="of a large image, in pixels")
    parser.add_argument("--files", type=_numbers, default=[100_000, 1_000_000], help="of a job to be submitted")
    parser.add_argument("--vectors", type=_numbers, default=[100_000, 1_000_000], help="of a job to be scored")
    parser.add_argument("--sleepers", type=int, default=3200, help="scans for the encoder that sleeps")
    parser.add_argument("--sleep", type=float, default=0.02, help="its seconds for each")
    parser.add_argument("--scans", type=int, default=100_000, help="of the job that clients ask for")
    parser.add_argument("--clients", type=int, default=200, help="who ask for it, once a second each")
    parser.add_argument("--window", type=float, default=20.0, help="seconds in which they do, or do not")
    parser.add_argument("--slices", type=int, default=100, help="DICOM files of each kind")
    parser.add_argument("--model", default="ViT-B-32", help="of open_clip; its weights are drawn")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the file with the results")
    options = parser.parse_args(arguments)
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    rows: list[Row] = []
    for name in options.groups or GROUPS:
        for row in GROUPS[name](options):
            rows.append(row)
            print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    print(
        save(options.results / f"{options.device.partition(':')[0]}.json", rows, _sizes(options)), file=sys.stderr
    )
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _sizes(options: argparse.Namespace) -> dict[str, object]:
    """The options, without the paths of this machine."""
    return {name: value for name, value in vars(options).items() if not isinstance(value, Path)}


if __name__ == "__main__":
    sys.exit(main())
