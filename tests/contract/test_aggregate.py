"""Scoring and its report where a job has many more scans than a page: on both stores, in bounded memory."""

import csv
import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from scanomaly.models.settings import Settings
from scanomaly.models.states import JobState, Label
from scanomaly.models.store import Store
from scanomaly.worker.aggregate import Aggregator
from scanomaly.worker.ahead import ahead

from ..filled import fill

AGGREGATE = """
import resource, sys
from pathlib import Path
from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.worker.aggregate import Aggregator
store = Store(sys.argv[1])
Aggregator(store, Settings(home=Path(sys.argv[2]))).aggregate("job", "w1")
assert store.find_job("job").state == "done"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


def aggregate(url: str, home: Path) -> Store:
    store = Store(url)
    Aggregator(store, Settings(home=home)).aggregate("job", "w1")
    return store


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_files_of_a_large_report_agree(url: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    fill(url, report, 5000, dimension=8, ignored=2100, failed=450)
    store = aggregate(url, tmp_path)
    scores = read_csv(report / "scores.csv")
    assert [int(row["rank"]) for row in scores] == list(range(1, 4551))
    values = [float(row["score"]) for row in scores]
    assert values == sorted(values, reverse=True)
    assert len({row["path"] for row in scores}) == 4550
    assert [(row["path"], float(row["score"])) for row in scores] == [
        (scan.path, scan.score) for scan in store.scores.ranking("job")
    ]
    failures, ignored = read_csv(report / "failures.csv"), read_csv(report / "ignored.csv")
    assert [row["path"] for row in failures] == [f"{n % 7}/scan {n}.png" for n in range(4550, 5000)]
    assert [row["path"] for row in ignored] == [f"{n}.txt" for n in range(2100)]
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert document["counts"] == {
        "scans": 5000,
        "normal": 2500,
        "anomaly": 2500,
        "unlabelled": 0,
        "embedded": 4550,
        "failed": 450,
        "skipped": 0,
        "ignored": 2100,
    }
    page = (report / "report.html").read_text(encoding="utf-8")
    assert len(page) < 700_000
    shown = re.findall(r'<bdi class="name">(.*)</bdi>', page)
    assert shown[:300] == [row["path"] for row in scores[:300]]
    assert len(set(shown)) == len(shown) <= 300 + 3 * 40
    assert [row["path"] for row in scores if row["label"] == "anomaly"][-40:] == [
        path for path in shown if path in {row["path"] for row in scores if row["label"] == "anomaly"}
    ][-40:]
    assert "Shown are the first 300 of 4,550 scans" in page
    assert f"{2275:,} anomaly scans against {2275:,} normal" in page
    assert f"AUROC {document['auroc']:.3f}" in page
    assert "450 scans could not be scored" in page
    assert "and 250 more in <code>failures.csv</code>" in page
    assert "and 1,900 more in <code>ignored.csv</code>" in page
    job = store.find_job("job")
    assert job.state == JobState.DONE
    assert job.result is not None
    assert job.result["auroc"] == document["auroc"]
    assert [scan["path"] for scan in job.result["most_anomalous"]] == [row["path"] for row in scores[:3]]
    before = (report / "scores.csv").read_bytes()
    Aggregator(store, Settings(home=tmp_path)).rebuild("job", tmp_path / "again")
    assert (tmp_path / "again" / "scores.csv").read_bytes() == before
    store.close()


def test_scores_are_those_of_the_definition(url: str, tmp_path: Path) -> None:
    fill(url, tmp_path / "report", 5000, dimension=8)
    store = aggregate(url, tmp_path)
    pages = list(store.scores.vectors("job"))
    store_scores = {scan.sha256: (scan.score, scan.score_in_sample) for scan in store.scores.ranking("job")}
    store.close()
    vectors = np.vstack([np.frombuffer(page.vectors, "<f4").reshape(-1, 8) for page in pages]).astype(np.float64)
    normal = np.array([label is Label.NORMAL for page in pages for label in page.labels])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    total = vectors[normal].sum(axis=0)
    others = total - normal[:, np.newaxis] * vectors
    in_sample = 1 - vectors @ total / np.linalg.norm(total)
    scores = 1 - np.einsum("nd,nd->n", vectors, others) / np.linalg.norm(others, axis=1)
    contents = [content for page in pages for content in page.contents]
    assert [store_scores[content][0] for content in contents] == pytest.approx(scores, abs=1e-12)
    assert [store_scores[content][1] for content in contents] == pytest.approx(in_sample, abs=1e-12)


def test_a_large_job_needs_little_more_memory_than_a_small_one(tmp_path: Path) -> None:
    """Its vectors are 123 MB. What may grow: 17 bytes a scan, a digest a normal, the drawing of the ROC curve."""
    peaks = []
    for scans in (4_000, 60_000):
        url = f"sqlite:///{tmp_path / str(scans)}.sqlite"
        fill(url, tmp_path / f"report {scans}", scans)
        done = subprocess.run(
            [sys.executable, "-c", AGGREGATE, url, str(tmp_path)], capture_output=True, text=True, check=True
        )
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 50, peaks


class TestAhead:
    def test_items_come_in_order(self) -> None:
        assert list(ahead(range(100))) == list(range(100))
        assert list(ahead([])) == []

    def test_one_is_made_ahead_and_no_more(self) -> None:
        made: list[int] = []
        items = ahead(made.append(n) or n for n in range(10))
        assert list(islice(items, 3)) == [0, 1, 2]
        items.close()  # type: ignore[attr-defined]
        assert made == [0, 1, 2, 3]

    def test_an_error_comes_in_its_place(self) -> None:
        items = ahead(1 // n for n in (1, 1, 0, 1))
        assert [next(items), next(items)] == [1, 1]
        with pytest.raises(ZeroDivisionError):
            next(items)
