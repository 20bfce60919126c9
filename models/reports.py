"""What a report consists of, and how to tell its folder from any other.

Discovery skips a report, and only a report may be replaced by another.
"""

from pathlib import Path

from .errors import ReportError

#: Every file that a report may consist of. What else lies in its folder was put there by a person, and stays.
REPORT_FILES = (
    "report.html",
    "report.json",
    "scores.csv",
    "scores.parquet",
    "failures.csv",
    "ignored.csv",
    "duplicates.csv",
    "groups.csv",
    "volumes.csv",
    "histogram.png",
    "roc.png",
    "precision_recall.png",
)

REPORT_MARKERS = ("report.json", "scores.csv")
"""A folder that holds both of these files is a report. No other rule anywhere."""


def is_report(folder: Path) -> bool:
    """Whether the folder is a report: see `REPORT_MARKERS`."""
    return all((folder / name).is_file() for name in REPORT_MARKERS)


def check_replaceable(folder: Path) -> None:
    """Check that writing a report to `folder` would destroy nothing else.

    Raises:
        ReportError: it is a file, or holds something else than a report.
        OSError: it cannot be looked into.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ReportError(f"{folder} is a file: name a folder for the report with --out")
    if any(folder.iterdir()) and not is_report(folder):
        raise ReportError(
            f"{folder} holds other files that are not a Scanomaly report: name a new or empty folder with --out"
        )
