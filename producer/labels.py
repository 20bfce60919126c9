"""Gives scans their labels: by patterns, by a CSV file, or by the names of their folders."""

import os
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..models.errors import UsageError
from ..models.sources.beneath import open_regular
from ..models.states import Label
from .label_table import LabelTable, ScanPaths, canonical


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# As `label_of` makes them: small letters and digits alone. They are listed in docs/formats.md.
_ADJECTIVES = {
    Label.NORMAL: _words("normal normals healthy good"),
    Label.ANOMALY: _words("abnormal anomalous unhealthy bad defective diseased"),
}
_FINDINGS = _words("tumor tumors tumour tumours anomaly anomalies defect defects lesion lesions abnormality")
_CAN_BE_OF_ALL = _words("finding findings disease pathology cancer")
"""No label alone: a folder of the name may hold scans of all kinds."""
_WORDS = {
    Label.NORMAL: _ADJECTIVES[Label.NORMAL]
    | _words("no ok negative control controls uninfected nondemented")
    | {before + word for before in ("no", "non", "without") for word in _FINDINGS | _CAN_BE_OF_ALL}
    | {word + "free" for word in _FINDINGS | _CAN_BE_OF_ALL},
    Label.ANOMALY: _ADJECTIVES[Label.ANOMALY]
    | _FINDINGS
    | _words("yes positive ungood notnormal nonnormal notgood nogood"),
}
_LABEL_OF_WORD = {word: label for label, words in _WORDS.items() for word in words}
_OF_WHAT = re.compile(r"[0-9]*(.+?)(?:(?:case|image|scan|slice|patient|subject|sample|control|brain)s?)?[0-9]*")

_HOW_TO_NAME_THEM = (
    "name them with --normal GLOB-OR-FOLDER or --labels FILE.csv, or put them into a folder named no, normal, good "
    "or healthy"
)


def label_of(text: str) -> Label | None:
    """The label that a word stands for, whatever its capitals, spaces and signs: `No_Tumor`, `Normal cases`."""
    word = re.sub(r"[\W_]+", "", text.casefold())
    if word in _LABEL_OF_WORD:
        return _LABEL_OF_WORD[word]
    match = _OF_WHAT.fullmatch(word)
    return match and next((label for label, words in _ADJECTIVES.items() if match[1] in words), None)


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
    root: str,
    normal: Sequence[str] = (),
    anomaly: Sequence[str] = (),
    labels_file: Path | None = None,
    open_file: Callable[[Path], BinaryIO] = open_regular,
) -> Labels:
    """The rule that the options make.

    Args:
        root: the folder, or the URL, that the scans' paths are relative to.
        normal: globs on the path or the name, or folders: `good` and `train/good` at any depth, `./good` the one
            below the root. Archives and volumes are folders too.
        anomaly: the same for anomalies.
        labels_file: a CSV file with the columns `path` and `label`.
        open_file: opens it.

    Raises:
        UsageError: they exclude each other, or the file is not as it should be.
    """
    if labels_file is not None and (normal or anomaly):
        raise UsageError("--labels and --normal/--anomaly exclude each other: give one or the other")
    if labels_file is not None:
        return _ByFile(root, labels_file, open_file)
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
                        f"{path} is normal by --normal and an anomaly by --anomaly: narrow one of them, such as to "
                        "./NAME, the folder right below the source"
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
    """A pattern is a folder as the shell completes it, a folder's name, or a glob."""
    folder = _folder(root, pattern)
    if folder is not None:
        return lambda path: folder == "." or path.startswith(folder + "/")
    # A folder that this machine does not see is in an archive, or in an object store.
    glob = pattern.removeprefix("./") + "*" * pattern.endswith("/")
    inside = pattern.removeprefix("./").strip("/") + "/"
    if pattern.startswith("./"):
        return lambda path: path.startswith(inside) or fnmatchcase(path, glob)
    if "/" in pattern:
        return lambda path: f"/{inside}" in f"/{path}" or fnmatchcase(path, glob)
    return lambda path: f"/{inside}" in f"/{path}" or fnmatchcase(PurePosixPath(path).name, pattern)


def _folder(root: Path, pattern: str) -> str | None:
    """The one folder that a pattern means; None for a glob, and for a name, which any folder below may have."""
    below, here = (Path(os.path.abspath(path)) for path in (root / pattern, pattern))
    is_name = not pattern.startswith(("/", "./", "../")) and pattern != "."
    if is_name and (below.is_dir() or below == here):
        return None
    for folder in (below, here):
        if folder.is_dir() and folder.is_relative_to(root):
            return folder.relative_to(root).as_posix()
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
            if (label := label_of(part)) is not None:
                self._used.add(part)
                return label
        return None

    def _check_parts(self, count: int) -> None:
        pass  # a known name need not be there

    @property
    def note(self) -> str:
        folders = [f"{name}/ as {label_of(name)}" for name in sorted(self._used)]
        return "labels from the folders' names: " + (", ".join(folders) or "none known")


class _ByFile(Labels):
    def __init__(self, root: str, file: Path, open_file: Callable[[Path], BinaryIO]) -> None:
        self._root = root
        self._file = file
        self._labels: dict[str, Label | None] = {}
        self._lines = array("L")
        """Of the same order."""
        paths = ScanPaths(root)
        for row in LabelTable(file, open_file).rows():
            label = _read_label(row.label, f"{file}, line {row.line}")
            key = paths.key(row.path)
            if self._labels.setdefault(key, label) != label:
                raise UsageError(f"{file}, line {row.line}: {row.path} has another label further up")
            if len(self._lines) < len(self._labels):
                self._lines.append(row.line)
        self._unknown = set(self._labels)

    def label(self, path: str) -> Label | None:
        key = canonical(path)
        self._unknown.discard(key)
        return self._labels.get(key)

    def _check_parts(self, count: int) -> None:
        for path, line in zip(self._labels, self._lines, strict=True):
            if path in self._unknown:
                raise UsageError(
                    f"{self._file}, line {line}: {path} is none of the {count} images under {self._root}"
                )

    @property
    def note(self) -> str:
        return f"labels from {self._file.name}"


def _read_label(text: str, where: str) -> Label | None:
    if not text:
        return None
    label = label_of(text)
    if label is None:
        raise UsageError(f"{where}: unknown label {text!r}; use normal, anomaly or nothing")
    return label
