"""Volumes and hidden paths from the store into the report, on both stores."""

import csv
import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text, update

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import JobFailedError
from scanomaly.models.hiding import Hiding
from scanomaly.models.records import FoundScan, NewJob, ScorePage, Slice
from scanomaly.models.settings import Settings
from scanomaly.models.states import Label, ScanState
from scanomaly.models.store import Store
from scanomaly.models.tables import BatchRow, JobRow, ScanRow
from scanomaly.worker.aggregate import Aggregator

from ..filled import fill

KEY = "a key"
SCANS, IN_VOLUMES, FAILED, SKIPPED = 600, 560, 30, 10


def fill_volumes(url: str, report: Path, key: str | None = None) -> None:
    """20 volumes whose slices come one after the other, half of them anomalies; then pictures, failures, and slices
    that were skipped."""
    fill(url, report, SCANS, dimension=8, failed=FAILED + SKIPPED)
    engine = create_engine(url)
    with engine.begin() as connection:
        ids = connection.scalars(select(ScanRow.id).order_by(ScanRow.id)).all()
        slices = IN_VOLUMES // 20
        for number in range(20):
            of_volume = ids[number * slices : (number + 1) * slices]
            values = {
                "volume_name": f"smith/{number}.nii",
                "group_name": f"smith/{number}.nii",
                "label": (Label.NORMAL, Label.ANOMALY)[number % 2],
            }
            connection.execute(update(ScanRow).where(ScanRow.id.in_(of_volume)).values(values))
            paths = [{"id": scan, "path": f"smith/{number}.nii/axial/{n:02}"} for n, scan in enumerate(of_volume)]
            connection.execute(text("UPDATE scans SET path = :path WHERE id = :id"), paths)
        skipped = {"state": ScanState.SKIPPED, "failure_kind": None, "failure_detail": "The slice is empty."}
        connection.execute(update(ScanRow).where(ScanRow.id.in_(ids[-SKIPPED:])).values(skipped))
        counts = {"failed": FAILED, "skipped": SKIPPED}
        connection.execute(update(BatchRow).where(BatchRow.failed > 0).values(counts))
        job = {"path_key": key, "root": "/archive/smith", "source": "smith", "notes": {"labels": "smith"}}
        connection.execute(update(JobRow).values(job))
    engine.dispose()


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def aggregate(url: str, home: Path) -> Store:
    store = Store(url)
    Aggregator(store, Settings(home=home)).aggregate("job", "w1")
    return store


def test_slices_come_in_order_of_submission(url: str, tmp_path: Path) -> None:
    fill_volumes(url, tmp_path / "report")
    fill(url, tmp_path / "other", 3, dimension=8, job_id="other")
    engine = create_engine(url)
    with engine.begin() as connection:
        other = connection.scalars(select(ScanRow.id).where(ScanRow.job_id == "other")).all()
        connection.execute(update(ScanRow).where(ScanRow.id.in_(other)).values(volume_name="smith/3.nii"))
        mine = select(ScanRow.id).where(ScanRow.volume_name == "smith/3.nii", ScanRow.job_id == "job")
        ids = connection.scalars(mine.order_by(ScanRow.id)).all()
    engine.dispose()
    store = Store(url)
    scores = [n * 7 % 11 / 11 for n in range(len(ids))]
    # Written out of order, by two scorers; the last slice has no score of one.
    order = sorted(range(len(ids) - 1), key=lambda n: scores[n])
    store.scores.save("knn", [ScorePage([ids[n] for n in order], [scores[n] for n in order], [9.0] * len(order))])
    store.scores.save("centroid", [ScorePage([*ids, *other], [1.0] * (len(ids) + 3), [1.0] * (len(ids) + 3))])
    found = store.scores.slices("job", "knn", ["smith/3.nii", "smith/4.nii", "no such"])
    assert found == {
        "smith/3.nii": [
            Slice(f"smith/3.nii/axial/{n:02}", Label.ANOMALY, score) for n, score in enumerate(scores[:-1])
        ]
    }
    assert len(store.scores.slices("job", "centroid", ["smith/3.nii"])["smith/3.nii"]) == len(ids)
    assert store.scores.slices("job", "centroid", []) == {}
    store.close()


def test_the_report_of_volumes(url: str, tmp_path: Path) -> None:
    fill_volumes(url, tmp_path / "report")
    store = aggregate(url, tmp_path)
    rows = read_csv(tmp_path / "report" / "volumes.csv")
    assert len(rows) == 20
    scores = read_csv(tmp_path / "report" / "scores.csv")
    for row in rows:
        own = [float(scan["score"]) for scan in scores if scan["volume"] == row["volume"]]
        assert (int(row["scans"]), float(row["score_max"])) == (len(own), max(own))
        assert row["group"] == row["volume"]
    document = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert document["counts"]["skipped"] == SKIPPED
    assert document["volumes"] == document["groups"]
    assert document["volumes"]["max"]["auroc"] is not None
    job = store.find_job("job")
    assert job.result is not None
    assert job.result["volumes"] == document["volumes"]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count('<ol class="strip"') == 12
    assert page.count("24 of 28 slices") == 12
    assert "<dt>empty slices skipped</dt><dd>10</dd>" in page
    assert len(read_csv(tmp_path / "report" / "ignored.csv")) == SKIPPED
    store.close()


def test_neither_the_report_nor_the_store_tells_hidden_paths(url: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    fill_volumes(url, report, KEY)
    store = aggregate(url, tmp_path)
    for file in report.iterdir():
        assert b"smith" not in file.read_bytes(), file
        assert b"scan 5" not in file.read_bytes(), file
    result = json.dumps(store.find_job("job").result)
    assert "smith" not in result
    first = next(iter(store.scores.ranking("job")))
    scores = read_csv(report / "scores.csv")
    assert scores[0]["path"] == Hiding(KEY).path(first.path)
    assert scores[0]["path"] in result
    assert len({row["path"] for row in scores}) == len(scores)
    assert json.loads((report / "report.json").read_text(encoding="utf-8"))["volumes"]["count"] == 20
    store.close()


def test_paths_that_are_not_hidden_are_told(url: str, tmp_path: Path) -> None:
    """What the search above would find."""
    fill_volumes(url, tmp_path / "report")
    store = aggregate(url, tmp_path)
    found = {file.name for file in (tmp_path / "report").iterdir() if b"smith" in file.read_bytes()}
    assert found >= {"scores.csv", "volumes.csv", "groups.csv", "report.html", "report.json"}
    result = store.find_job("job").result
    assert result is not None
    told = [scan["path"] for scan in result["most_anomalous"]]
    assert told == [row["path"] for row in read_csv(tmp_path / "report" / "scores.csv")[:3]]
    assert all("smith" in path or "scan 5" in path for path in told)
    store.close()


@pytest.mark.parametrize("key", [KEY, None])
def test_why_a_job_failed_tells_no_hidden_path(url: str, tmp_path: Path, key: str | None) -> None:
    store = Store(url)
    new = NewJob("job", "smith", "/smith", str(tmp_path / "report"), parse_encoder(), 32, path_key=key)
    store.submissions.add(new, [FoundScan("smith/a.png", Label.NORMAL)])
    engine = create_engine(url)
    with engine.begin() as connection:
        failed = {"state": "failed", "failure_kind": "empty", "failure_detail": "The file is empty."}
        connection.execute(update(ScanRow).values(failed))
        connection.execute(update(BatchRow).values(state="done", failed=1))
        connection.execute(update(JobRow).values(state="scoring"))
    engine.dispose()
    with pytest.raises(JobFailedError, match="The file is empty") as caught:
        Aggregator(store, Settings(home=tmp_path)).aggregate("job", "w1")
    assert ("smith" in str(caught.value)) is (key is None)
    assert Hiding(key).path("smith/a.png") in str(caught.value)
    store.close()
