"""Gives scans their labels: by patterns, by a CSV file, or by the names of their folders."""

import csv
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ..models.errors import UsageError
from ..models.records import FoundScan
from ..models.states import Label
from .discover import Found

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


@dataclass(frozen=True)
class Labelled:
    """The scans with their labels, and one sentence about how they got them."""

    scans: tuple[FoundScan, ...]
    note: str

    def count(self, label: Label | None) -> int:
        return sum(scan.label == label for scan in self.scans)


def label_scans(
    found: Found, normal: Sequence[str] = (), anomaly: Sequence[str] = (), labels_file: Path | None = None
) -> Labelled:
    """Label the scans.

    Args:
        found: the scans.
        normal: globs on the path or the name, or sub-folders.
        anomaly: the same for anomalies.
        labels_file: a CSV file with the columns `path` and `label`.

    Raises:
        UsageError: a rule matches nothing, two rules disagree, the file is not as it should be, or no scan is
            normal.
    """
    if labels_file is not None and (normal or anomaly):
        raise UsageError("--labels and --normal/--anomaly exclude each other: give one or the other")
    if labels_file is not None:
        labelled = _by_file(found, labels_file)
    elif normal or anomaly:
        labelled = _by_patterns(found, normal, anomaly)
    else:
        labelled = _by_folders(found)
    if labelled.count(Label.NORMAL) == 0:
        raise UsageError(f"none of the {len(found.paths)} images is known to be normal: {_HOW_TO_NAME_THEM}")
    return labelled


def _by_patterns(found: Found, normal: Sequence[str], anomaly: Sequence[str]) -> Labelled:
    labels: dict[str, Label] = {}
    for label, patterns in ((Label.NORMAL, normal), (Label.ANOMALY, anomaly)):
        for pattern in patterns:
            matches = _matcher(found.root, pattern)
            hits = [path for path in found.paths if matches(path)]
            if not hits:
                raise UsageError(f"--{label} {pattern} matches none of the {len(found.paths)} images")
            for path in hits:
                if labels.setdefault(path, label) != label:
                    raise UsageError(
                        f"{path} is normal by --normal and an anomaly by --anomaly: narrow one of them"
                    )
    options = [f"--normal {pattern}" for pattern in normal] + [f"--anomaly {pattern}" for pattern in anomaly]
    return _labelled(found, labels.get, "labels from " + " ".join(options))


def _matcher(root: Path, pattern: str) -> Callable[[str], bool]:
    """A pattern is a folder below the root, a folder as the shell completes it, or a glob."""
    folder = _below_root(root, pattern)
    if folder is not None:
        return lambda path: folder == "." or path.startswith(folder + "/")
    if "/" in pattern:
        return lambda path: fnmatchcase(path, pattern)
    return lambda path: fnmatchcase(PurePosixPath(path).name, pattern)


def _below_root(root: Path, pattern: str) -> str | None:
    for candidate in (root / pattern, Path(os.path.abspath(pattern))):
        if candidate.is_dir() and candidate.is_relative_to(root):
            return Path(os.path.normpath(candidate)).relative_to(root).as_posix()
    return None


def _by_folders(found: Found) -> Labelled:
    """The nearest folder with a known name decides."""
    taken: Counter[str] = Counter()

    def label(path: str) -> Label | None:
        for part in reversed(PurePosixPath(path).parts[:-1]):
            if part.lower() in _LABEL_OF_WORD:
                taken[part] += 1
                return _LABEL_OF_WORD[part.lower()]
        return None

    scans = tuple(FoundScan(path, label(path)) for path in found.paths)
    folders = [f"{name}/ as {_LABEL_OF_WORD[name.lower()]}" for name in sorted(taken)]
    return Labelled(scans, "labels from the folders' names: " + (", ".join(folders) or "none known"))


def _by_file(found: Found, file: Path) -> Labelled:
    known = set(found.paths)
    labels: dict[str, Label | None] = {}
    for line, path, text in _read_labels(file):
        relative = _below(found.root, path)
        if relative not in known:
            raise UsageError(f"{file}, line {line}: {path} is none of the {len(known)} images under {found.root}")
        label = _read_label(text, f"{file}, line {line}")
        if labels.setdefault(relative, label) != label:
            raise UsageError(f"{file}, line {line}: {path} has another label further up")
    return _labelled(found, labels.get, f"labels from {file.name}")


def _read_labels(file: Path) -> list[tuple[int, str, str]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise UsageError(f"{file}: its first line must name the columns path,label")
            return [(reader.line_num, row["path"] or "", row["label"] or "") for row in reader]
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} is not a CSV file in UTF-8 ({error})") from None


def _read_label(text: str, where: str) -> Label | None:
    word = text.strip().lower()
    if not word:
        return None
    if word not in _LABEL_OF_WORD:
        raise UsageError(f"{where}: unknown label {text!r}; use normal, anomaly or nothing")
    return _LABEL_OF_WORD[word]


def _below(root: Path, path: str) -> str:
    absolute = Path(os.path.normpath(root / path))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path


def _labelled(found: Found, label: Callable[[str], Label | None], note: str) -> Labelled:
    return Labelled(tuple(FoundScan(path, label(path)) for path in found.paths), note)
