"""How long a command takes that does next to nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .embedding import find_images
from .table import Row, row_of_rounds
from .world import scanomaly

_PYTHON = [sys.executable, "-c", "import click"]


def rows(images: Path, rounds: int) -> Iterator[Row]:
    """`--help`, `status` and `submit` of ten files, where no worker runs, beside a Python that imports Click."""
    with scanomaly() as here:
        folder = here.home / "scans"
        (folder / "no").mkdir(parents=True)
        for image in find_images(images)[:10]:
            (folder / "no" / image.name).symlink_to(image.resolve())
        submit = ("submit", folder, "--follow-links", "--encoder", "efficientnet_lite0")
        job = here.call(*submit).strip()
        commands = {"--help": ("--help",), "status": ("status", job), "submit of ten files": submit}
        seconds: dict[str, list[float]] = {name: [] for name in ("python", *commands)}
        for _ in range(rounds):
            begun = time.perf_counter()
            subprocess.run(_PYTHON, check=True)
            seconds["python"].append(time.perf_counter() - begun)
            for name, command in commands.items():
                begun = time.perf_counter()
                here.call(*command)
                seconds[name].append(time.perf_counter() - begun)
        for name in commands:
            yield row_of_rounds(
                f"scanomaly {name}", "python -c 'import click'", "s", seconds[name], seconds["python"]
            )
