"""The benchmarks run, on tiny sizes: what they measure is for `make bench`."""

import json
import subprocess
import sys
from pathlib import Path

from ..waiting import HANGS

ROOT = Path(__file__).parents[2]


def bench(results: Path, *arguments: str | Path) -> list[dict[str, object]]:
    """Run groups of the benchmark, and return their rows."""
    command = [sys.executable, "-m", "bench", *map(str, arguments), "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = results.glob("*.json")
    content = json.loads(file.read_text())
    assert content["machine"]["cores"] >= 1
    rows: list[dict[str, object]] = content["rows"]
    assert done.stdout.count("\n") == len(rows) + 2
    return rows


def test_aggregation_is_measured(tmp_path: Path) -> None:
    rows = bench(tmp_path, "aggregate", "--vectors", "3000")
    assert len(rows) == 6


def test_encoding_is_measured(brain_mri: Path, tmp_path: Path) -> None:
    sizes = ("--limit", "4", "--rounds", "1", "--large", "2", "--side", "64")
    model = ("--model", "ViT-S-32-alt", "--precisions", "fp32")
    rows = bench(tmp_path, "end-to-end", "large", "--images", brain_mri, *sizes, *model)
    assert len(rows) == 10 + 4
    assert all(row["measured"] > 0 and row["limit"] > 0 for row in rows)


def test_submission_is_measured(tmp_path: Path) -> None:
    rows = bench(tmp_path, "submit", "--files", "2000")
    assert len(rows) == 8
    assert all(row["measured"] > 0 and row["limit"] > 0 for row in rows)


def test_the_service_is_measured(tmp_path: Path) -> None:
    rows = bench(tmp_path, "service", "--scans", "5000", "--clients", "5", "--window", "0.5", "--rounds", "1")
    assert len(rows) == 5
    assert all(row["measured"] > 0 and row["limit"] > 0 for row in rows)
