"""Scorers on real scans: what the report says of them, against code that shares nothing with them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sqlalchemy import create_engine, text

from scanomaly.models.settings import Settings

from .conftest import OFFLINE, Scanomaly, check_schema

GOALS = {"centroid": 0.79, "knn": 0.86, "mahalanobis": 0.86}


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def stored_vectors(home: Path) -> dict[str, np.ndarray]:
    engine = create_engine(Settings(home=home).resolved_store_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT sha256, vector FROM embeddings")).all()
    engine.dispose()
    return {sha256: np.frombuffer(vector, "<f4").astype(np.float64) for sha256, vector in rows}


def left_out(vectors: np.ndarray, contents: np.ndarray, normal: np.ndarray, name: str) -> np.ndarray:
    """The score of each scan from the normals of other contents, one scan after the other."""
    scores = []
    for vector, content in zip(vectors, contents, strict=True):
        others = vectors[normal & (contents != content)]
        if name == "centroid":
            mean = others.mean(axis=0)
            scores.append(1 - vector @ mean / np.linalg.norm(mean))
        elif name == "knn":
            scores.append(np.sort(1 - others @ vector)[:5].mean())
        else:
            scores.append(LedoitWolf().fit(others).mahalanobis(vector[np.newaxis])[0] ** 0.5)
    return np.array(scores)


def test_brain_mri(scanomaly: Scanomaly, brain_mri: Path, tmp_path: Path) -> None:
    """The report has the quality that was measured when the scorers were chosen, with its intervals."""
    out = tmp_path / "report"
    scanomaly("run", brain_mri, *OFFLINE, "--scorer", "centroid,knn", "--out", out)
    job = scanomaly.json("jobs")["jobs"][0]["job"]
    scanomaly("score", job, "--scorer", "mahalanobis")
    report = json.loads((out / "report.json").read_text())
    check_schema(report, "report")
    rows = read_csv(out / "scores.csv")
    vectors = stored_vectors(scanomaly.home)
    matrix = np.array([vectors[row["sha256"]] for row in rows])
    contents = np.array([row["sha256"] for row in rows])
    normal = np.array([row["label"] == "normal" for row in rows])
    for name, goal in GOALS.items():
        column = "score" if name == "centroid" else f"score_{name}"
        told = report["scorers"][name]
        if name != "mahalanobis":  # a fit for each scan takes minutes
            scores = left_out(matrix, contents, normal, name)
            assert [float(row[column]) for row in rows] == pytest.approx(scores, abs=1e-6)
        assert told["auroc"] == pytest.approx(roc_auc_score(~normal, [float(row[column]) for row in rows]))
        assert told["auroc"] >= goal
        low, high = told["intervals"]["auroc"]
        assert low < told["auroc"] < high
    assert report["scorers"]["mahalanobis"]["auroc_in_sample"] > 0.99
    difference = report["scorers"]["knn"]["difference"]
    assert difference["auroc"] == pytest.approx(report["scorers"]["knn"]["auroc"] - report["auroc"])
    assert difference["interval"][0] < difference["auroc"] < difference["interval"][1]


def test_a_done_job_gets_more_scorers(done_job: tuple[Scanomaly, str]) -> None:
    user, job = done_job
    before = user.json("status", job)["result"]
    text = user("score", job, "--scorer", "knn,mahalanobis").stdout
    assert "Other scorers   AUROC leave-one-out: knn " in text
    result = user.json("status", job)["result"]
    assert list(result["scorers"]) == ["centroid", "knn", "mahalanobis"]
    assert result["auroc"] == before["auroc"]
    assert result["scorers"]["knn"]["auroc"] == user.json("score", job, "--headline", "knn")["result"]["auroc"]
    again = user.json("score", job, "--headline", "centroid")["result"]
    assert again["auroc"] == before["auroc"]
    assert again["decision"] == before["decision"]
    folder = Path(user.json("report", job)["report"])
    assert {"score_knn", "score_mahalanobis"} <= read_csv(folder / "scores.csv")[0].keys()
    page = (folder / "report.html").read_text()
    assert "Scorers compared" in page


def test_wrong_scorers_are_one_line(done_job: tuple[Scanomaly, str]) -> None:
    user, job = done_job
    assert (
        "unknown scorer 'mean': choose from centroid, knn" in user("score", job, "--scorer", "mean", code=2).stderr
    )
    assert "name scorers with --scorer" in user("score", job, code=2).stderr
    assert "there is no job 'zzz'" in user("score", "zzz", "--scorer", "knn", code=1).stderr
