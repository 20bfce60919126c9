"""Somebody who puts symbolic links in the place of files and folders, and takes them away, while they are used."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

PLANTED = b"planted outside"
"""In what all the links lead to."""


class Swap:
    """A file or a folder, and a symbolic link to something else that takes its place and leaves it."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path, self._target = path, target
        self._aside = path.with_name(path.name + ".aside")
        self._link = path.with_name(path.name + ".link")
        self._is_there = False

    def __call__(self) -> None:
        """Put the link there where there is none, or else what was there before it."""
        if self._is_there:
            self._path.unlink()
            self._aside.rename(self._path)
        else:
            self._link.symlink_to(self._target)
            self._path.rename(self._aside)
            self._link.rename(self._path)
        self._is_there = not self._is_there

    def undo(self) -> None:
        if self._is_there:
            self()


@contextmanager
def swapping(*swaps: Swap, least: int = 1000) -> Iterator[Callable[[], bool]]:
    """Swap in a thread, one after the other and back, as long as the block runs, and so often at least. What comes
    with it tells whether it did. Links stay as long as a system call takes, or as some do."""
    done, count, random = threading.Event(), 0, Random(0)

    def swap() -> None:
        nonlocal count
        for one in itertools.cycle(swaps):
            if done.is_set() and count >= least:
                return
            for _ in range(2):
                one()
                time.sleep(random.random() ** 2 / 1000)
            count += 2

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield lambda: count >= least
    finally:
        done.set()
        thread.join()


def draw_folders(folder: Path) -> tuple[Path, Path]:
    """`root/` with files in `root/job/middle/`, and `outside/` beside it, with other content at the same paths."""
    root, outside = folder / "root", folder / "outside"
    for where, content in ((root, b"inside"), (outside, PLANTED)):
        middle = where / "job" / "middle"
        middle.mkdir(parents=True)
        for number in range(2):
            (middle / f"{number}.png").write_bytes(content)
        (middle / "series").write_bytes(content)  # is opened to see what it is
        (where / "job" / "again.png").symlink_to("middle/1.png")
        (where / "job" / "more").symlink_to("middle")
    (outside / "job" / "middle" / f"{PLANTED.decode()}.png").write_bytes(PLANTED)
    return root, outside


def swaps_of(root: Path, outside: Path, *names: str) -> tuple[Swap, ...]:
    """Of files in `job/middle`, that folder, a link to it, and the job's folder."""
    paths = (*(f"job/middle/{name}" for name in names), "job/middle", "job/more", "job")
    return tuple(Swap(root / path, outside / path) for path in paths)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))
