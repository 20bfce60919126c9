"""Finds the scans of a folder or of a list of paths, and counts what is not one."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..models.errors import SourceError, UsageError
from ..models.records import IgnoredFile
from ..models.reports import is_report

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Found:
    """The scans' paths below `root`, in a stable order, and the files that are none.

    A path is relative to `root`, with `/` between its parts.
    """

    root: Path
    paths: tuple[str, ...]
    ignored: tuple[IgnoredFile, ...]


def find_in_folder(folder: Path, follow_links: bool = False) -> Found:
    """Walk a folder.

    Entries come in the order of their names' code points, folder by folder. A link to a folder is followed; a
    folder that was walked already is not walked again, so loops end.

    Args:
        folder: the folder. It may be a symbolic link itself.
        follow_links: whether symbolic links may lead out of it; else those that do are ignored.

    Raises:
        UsageError: the folder is not there, is a file, or cannot be read.
        SourceError: it holds no image.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        what = "is a file: give its folder" if root.exists() else "is not there"
        raise UsageError(f"{folder} {what}")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise UsageError(f"{folder} cannot be read ({error.strerror})") from None
    return _sort_out(folder, root, _walk(root, root, set(), _Border(root, follow_links)))


def find_in_list(lines: Iterable[str], follow_links: bool = False) -> Found:
    """Take paths, one a line, in their order; relative ones start at the current folder.

    A path whose file is not there stays in the list: it will fail as `missing`, and nothing is lost.

    Args:
        lines: the paths.
        follow_links: whether symbolic links may lead out of the folder that the paths have in common; else those
            that do are ignored.

    Raises:
        SourceError: the list has no image.
    """
    paths = [Path(os.path.abspath(line.rstrip("\r\n"))) for line in lines if line.strip()]
    if not paths:
        raise SourceError("the list on standard input is empty: give one path a line")
    root = Path(os.path.commonpath([path.parent for path in paths]))
    unique = dict.fromkeys(path.relative_to(root).as_posix() for path in paths)
    border = _Border(root, follow_links)
    reasons = (_ignore_reason(Path(path).name) or border.reason(root / path) for path in unique)
    return _sort_out("the list on standard input", root, zip(unique, reasons, strict=True))


class _Border:
    """Tells which links lead out of a folder."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self._real_root = os.path.realpath(root)
        self._follow_links = follow_links
        self._inside: dict[Path, bool] = {}

    def reason(self, path: Path) -> str | None:
        """Why a path is ignored whose real path is outside, or None."""
        if self._follow_links or (self._is_inside(path) if path.is_symlink() else self._has_folder(path)):
            return None
        return "a link that leads out of the folder: --follow-links takes it"

    def _has_folder(self, path: Path) -> bool:
        """Whether the folder of a path is inside: asked once a folder, not once a file."""
        if path.parent not in self._inside:
            self._inside[path.parent] = self._is_inside(path.parent)
        return self._inside[path.parent]

    def _is_inside(self, path: Path) -> bool:
        try:
            return Path(os.path.realpath(path)).is_relative_to(self._real_root)
        except ValueError:  # a NUL in its name: no file has one, and it will fail as a scan
            return True


def _sort_out(name: Path | str, root: Path, entries: Iterable[tuple[str, str | None]]) -> Found:
    paths: list[str] = []
    ignored: list[IgnoredFile] = []
    for path, reason in entries:
        if reason is None:
            paths.append(path)
        else:
            ignored.append(IgnoredFile(_printable(path), reason))
    if not paths:
        endings = "JPEG, PNG, BMP, TIFF or WebP"
        also = f" among its {len(ignored)} files" if ignored else ""
        raise SourceError(f"{name} holds no image{also}: Scanomaly reads {endings} files, in sub-folders too")
    return Found(root, tuple(paths), tuple(ignored))


def _walk(
    root: Path, folder: Path, walked: set[tuple[int, int]], border: _Border
) -> Iterator[tuple[str, str | None]]:
    """Yield (relative path, why it is ignored or None) for what is in a folder and below it."""
    here = folder.relative_to(root)
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in walked:
            yield here.as_posix(), "a folder that was walked already (symbolic link)"
            return
        walked.add(identity)
        with os.scandir(folder) as scanner:
            entries = sorted(scanner, key=lambda entry: entry.name)
    except OSError as error:
        yield here.as_posix(), f"a folder that cannot be read ({error.strerror})"
        return
    if is_report(folder):
        yield here.as_posix(), "a report of an earlier job"
        return
    for entry in entries:
        path = (here / entry.name).as_posix()
        if entry.name.startswith("."):
            yield path, "hidden"
        # Only a link can lead out: a folder below one that stays inside is inside.
        elif entry.is_symlink() and (reason := border.reason(folder / entry.name)):
            yield path, reason
        elif _is_folder(entry):
            yield from _walk(root, folder / entry.name, walked, border)
        else:
            yield path, _ignore_reason(entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _ignore_reason(name: str) -> str | None:
    if _printable(name) != name:
        return "its name is not valid UTF-8"
    if name.startswith("."):
        return "hidden"
    if Path(name).suffix.lower() not in IMAGE_ENDINGS:
        return "not an image by its ending"
    return None


def _printable(path: str) -> str:
    """Bytes of a name that are not UTF-8 cannot go into a database or a report as they are."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
