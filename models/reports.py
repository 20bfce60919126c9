"""How to tell a report's folder from any other: discovery skips one, and only one may be replaced by another."""

from pathlib import Path

REPORT_MARKERS = ("report.json", "scores.csv")
"""A folder that holds both of these files is a report. No other rule anywhere."""


def is_report(folder: Path) -> bool:
    """Whether the folder is a report: see `REPORT_MARKERS`."""
    return all((folder / name).is_file() for name in REPORT_MARKERS)
