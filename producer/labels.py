"""Gives scans their labels: by patterns, by a CSV file, or by the names of their folders."""

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..models.errors import UsageError
from ..models.states import Label

_WORDS = {
    Label.NORMAL: ("no", "normal", "good", "healthy"),
    Label.ANOMALY: ("yes", "tumor", "tumour", "anomaly", "abnormal", "bad"),
}
_LABEL_OF_WORD = {word: label for label, words in _WORDS.items() for word in words}

_HOW_TO_NAME_THEM = (
    "name them with --normal GLOB-OR-SUBFOLDER or --labels FILE.csv, or put them into a sub-folder named "
    + ", ".join(_WORDS[Label.NORMAL][:-1])
    + f" or {_WORDS[Label.NORMAL][-1]}"
)


class Labels(ABC):
    """A rule that labels scans by their paths below a root."""

    @abstractmethod
    def label(self, path: str) -> Label | None:
        """The label of a scan.

        Raises:
            UsageError: the rule contradicts itself.
        """

    def check(self, normal: int, count: int) -> None:
        """Find out whether the rule was right, once it has labelled all scans.

        Args:
            normal: how many of them are normal.
            count: how many there are.

        Raises:
            UsageError: a part of the rule matched nothing, or no scan is normal.
        """
        self._check_parts(count)
        if normal == 0:
            raise UsageError(f"none of the {count} images is known to be normal: {_HOW_TO_NAME_THEM}")

    @abstractmethod
    def _check_parts(self, count: int) -> None:
        """Raises UsageError when a part of the rule matched nothing."""

    @property
    @abstractmethod
    def note(self) -> str:
        """One sentence about how the scans that were labelled so far got their labels."""


def make_labels(
    root: str, normal: Sequence[str] = (), anomaly: Sequence[str] = (), labels_file: Path | None = None
) -> Labels:
    """The rule that the options make.

    Args:
        root: the folder, or the URL, that the scans' paths are relative to.
        normal: globs on the path or the name, or sub-folders; archives and volumes are folders too.
        anomaly: the same for anomalies.
        labels_file: a CSV file with the columns `path` and `label`.

    Raises:
        UsageError: they exclude each other, or the file is not as it should be.
    """
    if labels_file is not None and (normal or anomaly):
        raise UsageError("--labels and --normal/--anomaly exclude each other: give one or the other")
    if labels_file is not None:
        return _ByFile(Path(root), labels_file)
    if normal or anomaly:
        return _ByPatterns(Path(root), normal, anomaly)
    return _ByFolders()


class _ByPatterns(Labels):
    def __init__(self, root: Path, normal: Sequence[str], anomaly: Sequence[str]) -> None:
        self._patterns = [
            (label, f"--{label} {pattern}", _matcher(root, pattern))
            for label, patterns in ((Label.NORMAL, normal), (Label.ANOMALY, anomaly))
            for pattern in patterns
        ]
        self._used: set[str] = set()

    def label(self, path: str) -> Label | None:
        found: Label | None = None
        for label, option, matches in self._patterns:
            if matches(path):
                self._used.add(option)
                if found not in (None, label):
                    raise UsageError(
                        f"{path} is normal by --normal and an anomaly by --anomaly: narrow one of them"
                    )
                found = label
        return found

    def _check_parts(self, count: int) -> None:
        for _, option, _ in self._patterns:
            if option not in self._used:
                raise UsageError(f"{option} matches none of the {count} images")

    @property
    def note(self) -> str:
        return "labels from " + " ".join(option for _, option, _ in self._patterns)


def _matcher(root: Path, pattern: str) -> Callable[[str], bool]:
    """A pattern is a folder below the root, a folder as the shell completes it, or a glob."""
    folder = _below_root(root, pattern)
    if folder is not None:
        return lambda path: folder == "." or path.startswith(folder + "/")
    inside = pattern.strip("/") + "/"  # a folder that this machine does not see: in an archive, in an object store
    if "/" in pattern:
        return lambda path: path.startswith(inside) or fnmatchcase(path, pattern)
    return lambda path: path.startswith(inside) or fnmatchcase(PurePosixPath(path).name, pattern)


def _below_root(root: Path, pattern: str) -> str | None:
    for candidate in (root / pattern, Path(os.path.abspath(pattern))):
        if candidate.is_dir() and candidate.is_relative_to(root):
            return Path(os.path.normpath(candidate)).relative_to(root).as_posix()
    return None


class _ByFolders(Labels):
    """The nearest folder with a known name decides."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._last: tuple[str, Label | None] = ("", None)

    def label(self, path: str) -> Label | None:
        folder = path[: path.rfind("/") + 1]
        if folder != self._last[0]:  # scans come folder by folder
            self._last = (folder, self._label_of(folder))
        return self._last[1]

    def _label_of(self, folder: str) -> Label | None:
        for part in reversed(folder.split("/")):
            if part.lower() in _LABEL_OF_WORD:
                self._used.add(part)
                return _LABEL_OF_WORD[part.lower()]
        return None

    def _check_parts(self, count: int) -> None:
        pass  # a known name need not be there

    @property
    def note(self) -> str:
        folders = [f"{name}/ as {_LABEL_OF_WORD[name.lower()]}" for name in sorted(self._used)]
        return "labels from the folders' names: " + (", ".join(folders) or "none known")


class _ByFile(Labels):
    def __init__(self, root: Path, file: Path) -> None:
        self._root = root
        self._file = file
        self._labels: dict[str, Label | None] = {}
        for line, path, text in _read_labels(file):
            label = _read_label(text, f"{file}, line {line}")
            if self._labels.setdefault(below(root, path), label) != label:
                raise UsageError(f"{file}, line {line}: {path} has another label further up")
        self._unknown = set(self._labels)

    def label(self, path: str) -> Label | None:
        self._unknown.discard(path)
        return self._labels.get(path)

    def _check_parts(self, count: int) -> None:
        if not self._unknown:
            return
        for line, path, _ in _read_labels(self._file):
            if below(self._root, path) in self._unknown:
                raise UsageError(
                    f"{self._file}, line {line}: {path} is none of the {count} images under {self._root}"
                )

    @property
    def note(self) -> str:
        return f"labels from {self._file.name}"


class Line(NamedTuple):
    """A line of a labels file: its number, and its fields by the names of the columns."""

    number: int
    columns: dict[str, str | None]


def read_columns(file: Path) -> Iterator[Line]:
    """The lines of a CSV file that has the columns `path` and `label`.

    Raises:
        UsageError: it cannot be read, or has other columns.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise UsageError(f"{file}: its first line must name the columns path,label")
            for row in reader:
                yield Line(reader.line_num, row)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} is not a CSV file in UTF-8 ({error})") from None


def _read_labels(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line, its path and its label."""
    for number, columns in read_columns(file):
        yield number, columns["path"] or "", columns["label"] or ""


def _read_label(text: str, where: str) -> Label | None:
    word = text.strip().lower()
    if not word:
        return None
    if word not in _LABEL_OF_WORD:
        raise UsageError(f"{where}: unknown label {text!r}; use normal, anomaly or nothing")
    return _LABEL_OF_WORD[word]


def below(root: Path, path: str) -> str:
    """A path of a labels file as scans have it: relative to the root, where it is below it."""
    absolute = Path(os.path.normpath(root / path))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path
