"""Tells which scans belong together: those of a patient or of a volume, say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import re2

from ..models.errors import UsageError
from ..models.sources.beneath import open_regular
from .label_table import LabelTable, ScanPaths, canonical


class Groups:
    """A rule that names the group of a scan by its path below a root."""

    def __init__(
        self,
        root: str,
        rule: str,
        labels_file: Path | None = None,
        open_file: Callable[[Path], BinaryIO] = open_regular,
    ) -> None:
        """Take a rule.

        Args:
            root: the folder that the scans' paths are relative to.
            rule: a column of the labels file, or a regular expression (of RE2) that is looked for in the path: its
                first parenthesis is the group, or all of it where it has none.
            labels_file: a CSV file with the columns `path` and `label`, and maybe others.
            open_file: opens it.

        Raises:
            UsageError: the rule is neither.
        """
        self._rule = rule
        self._seen = 0
        self._of_path = None if labels_file is None else _column(root, rule, labels_file, open_file)
        self.note = f"groups by --group {rule}" if self._of_path is None else f"groups from the column {rule}"
        if self._of_path is None:
            self._pattern = _compile(rule)

    def group(self, path: str) -> str | None:
        """The group of a scan; None for one that is alone."""
        found = self._find(path)
        self._seen += found is not None
        return found

    def check(self, count: int) -> None:
        """Find out whether the rule was right, once it was asked about all scans.

        Raises:
            UsageError: it gave none of them a group.
        """
        if not self._seen:
            raise UsageError(
                f"--group {self._rule} gives none of the {count} images a group: name a column of --labels, or a "
                "regular expression on the path, such as '(patient[0-9]+)'"
            )

    def _find(self, path: str) -> str | None:
        if self._of_path is not None:
            return self._of_path.get(canonical(path))
        match = self._pattern.search(_bytes(path))
        if match is None:
            return None
        found: bytes = match[1 if self._pattern.groups else 0] or b""
        return found.decode("utf-8", "surrogateescape") or None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a name need not be UTF-8


def _compile(rule: str) -> re2._Regexp:
    # RE2 takes time that grows with the path alone, whatever the pattern: it comes from whoever may submit.
    options = re2.Options()
    options.log_errors = False  # to standard error, beside the sentence
    try:
        return re2.compile(_bytes(rule), options)
    except re2.error as error:
        reason = bytes(error.args[0]).decode(errors="replace")
    try:
        re.compile(rule)
    except (re.error, OverflowError, RecursionError):
        raise UsageError(f"--group {rule} is no regular expression ({reason}), and no column") from None
    raise UsageError(
        f"--group {rule} is no regular expression of RE2 ({reason}), which has no look-around, no back-references "
        "and no repetition beyond 1000: write it without, or name a column of --labels"
    )


def _column(root: str, name: str, file: Path, open_file: Callable[[Path], BinaryIO]) -> dict[str, str] | None:
    """The group of each path that the file names; None where it has no such column."""
    table = LabelTable(file, open_file)
    place = table.column(name)
    if place is None:
        return None
    paths = ScanPaths(root)
    return {
        paths.key(row.path): group
        for row in table.rows()
        if place < len(row.fields) and (group := row.fields[place].strip())
    }
