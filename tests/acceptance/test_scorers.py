"""Scorers on real scans: what the report says of them, against code that shares nothing with them."""

import csv
import hashlib
import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from imagehash import phash
from PIL import Image
from pyarrow import parquet
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sqlalchemy import create_engine, text

from scanomaly.models.settings import Settings

from .conftest import OFFLINE, BrainMri, Scanomaly, check_schema

GOALS = {"centroid": 0.79, "knn": 0.86, "mahalanobis": 0.86}
"""AUROC where only identical files are left out with a normal."""

EVERY = 4
"""Of the scans in the order of their ranks: to score one by patches with code as plain as here takes a while."""


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def stored_vectors(home: Path) -> dict[str, np.ndarray]:
    engine = create_engine(Settings(home=home).resolved_store_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT sha256, vector FROM embeddings")).all()
    engine.dispose()
    return {sha256: np.frombuffer(vector, "<f4").astype(np.float64) for sha256, vector in rows}


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit that earlier tests of this process set is not for this code."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@cache
def looks(file: Path) -> np.ndarray:
    """The perceptual hash of a picture: (8, 8) bool."""
    return phash(Image.open(file).convert("RGB")).hash


def alike(folder: Path, rows: list[dict[str, str]]) -> np.ndarray:
    """Which scans look alike, or are connected by scans that do: (n, n) bool, from every pair of pictures."""
    hashes = np.array([looks(folder / row["path"]).ravel() for row in rows])
    near = (hashes[:, np.newaxis] != hashes).sum(axis=2) <= 4
    while True:
        wider = near @ near
        if (wider == near).all():
            return near
        near = wider


def left_out(vectors: np.ndarray, together: np.ndarray, normal: np.ndarray, name: str) -> np.ndarray:
    """The score of each scan from the normals that do not belong together with it, one scan after the other."""
    scores = []
    for vector, mine in zip(vectors, together, strict=True):
        others = vectors[normal & ~mine]
        if name == "centroid":
            mean = others.mean(axis=0)
            scores.append(1 - vector @ mean / np.linalg.norm(mean))
        elif name == "knn":
            scores.append(np.sort(1 - others @ vector)[:5].mean())
        else:
            scores.append(LedoitWolf().fit(others).mahalanobis(vector[np.newaxis])[0] ** 0.5)
    return np.array(scores)


def stored_patches(home: Path) -> dict[str, np.ndarray]:
    """(81, 472) for each content, of length 1 each."""
    engine = create_engine(Settings(home=home).resolved_store_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT sha256, patches FROM patches")).all()
    engine.dispose()
    found = {}
    for sha256, packed in rows:
        values = np.frombuffer(packed, np.int8)[6:].reshape(81, 472).astype(np.float32)
        found[sha256] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found


def patch_scores(patches: np.ndarray, normal: np.ndarray, together: np.ndarray, mirror: bool) -> np.ndarray:
    """Every fourth scan's: the mean of its 3 worst patches' mean distances to the 3 nearest normals, with torch."""
    grid = torch.tensor(patches).reshape(-1, 9, 9, 472)
    described = torch.cat([grid, grid - grid.flip(2)], 3) if mirror else grid
    flat = described.reshape(len(grid), 81, -1)
    scores = []
    for place in range(0, len(flat), EVERY):
        mine = flat[place]
        others = flat[torch.tensor(normal & ~together[place])]
        distances = torch.cdist(mine, others.reshape(-1, mine.shape[1])).reshape(81, len(others), 81).amin(dim=2)
        worst = distances.topk(3, dim=1, largest=False).values.mean(dim=1).topk(3).values.mean()
        scores.append(float(worst))
    return np.array(scores)


def test_patches_of_brain_mri(brain_job: BrainMri, brain_mri: Path) -> None:
    """The best scores that are told in docs/scoring.md, by code that shares nothing with the scorer."""
    out = brain_job.report
    report = json.loads((out / "report.json").read_text())
    check_schema(report, "report")
    rows = read_csv(out / "scores.csv")
    stored = stored_patches(brain_job.home)
    patches = np.array([stored[row["sha256"]] for row in rows])
    normal = np.array([row["label"] == "normal" for row in rows])
    together = alike(brain_mri, rows)
    shortcut = max(row["auroc"] for row in report["shortcuts"])
    for name, goal in (("patch_knn", 0.92), ("patch_knn_mirror", 0.95)):
        expected = patch_scores(patches, normal, together, name.endswith("mirror"))
        scores = [float(row[f"score_{name}"]) for row in rows]
        assert scores[::EVERY] == pytest.approx(expected, abs=1e-3)
        assert report["scorers"][name]["auroc"] == pytest.approx(roc_auc_score(~normal, scores))
        assert report["scorers"][name]["auroc"] >= goal
        assert report["scorers"][name]["auroc"] > shortcut + 0.1  # clearly better than any


def test_brain_mri(brain_job: BrainMri, brain_mri: Path) -> None:
    """The report has the quality that was measured when the scorers were chosen, with its intervals."""
    out = brain_job.report
    report = json.loads((out / "report.json").read_text())
    check_schema(report, "report")
    rows = read_csv(out / "scores.csv")
    vectors = stored_vectors(brain_job.home)
    matrix = np.array([vectors[row["sha256"]] for row in rows])
    contents = np.array([row["sha256"] for row in rows])
    normal = np.array([row["label"] == "normal" for row in rows])
    copies, together = contents[:, np.newaxis] == contents, alike(brain_mri, rows)
    for name, goal in GOALS.items():
        column = "score" if name == "centroid" else f"score_{name}"
        told = report["scorers"][name]
        scores = np.array([float(row[column]) for row in rows])
        if name != "mahalanobis":  # a fit for each scan takes minutes
            assert scores == pytest.approx(left_out(matrix, together, normal, name), abs=1e-6)
            of_copies = left_out(matrix, copies, normal, name)
            assert told["auroc_copies_out"] == pytest.approx(roc_auc_score(~normal, of_copies), abs=1e-3)
        assert told["auroc"] == pytest.approx(roc_auc_score(~normal, scores))
        assert told["auroc_copies_out"] >= goal
        for metric in ("auroc", "auroc_copies_out"):
            low, high = told["intervals"][metric]
            assert low < told[metric] < high
    assert report["scorers"]["mahalanobis"]["auroc_in_sample"] > 0.99
    difference = report["scorers"]["knn"]["difference"]
    assert difference["auroc"] == pytest.approx(report["scorers"]["knn"]["auroc"] - report["auroc"])
    assert difference["interval"][0] < difference["auroc"] < difference["interval"][1]


def test_shortcuts_and_duplicates_of_brain_mri(brain_job: BrainMri, brain_mri: Path) -> None:
    """What the data set is known for: its classes differ in grey and shape, and many files are copies."""
    out = brain_job.report
    report = json.loads((out / "report.json").read_text())
    rows = read_csv(out / "scores.csv")
    pictures = [Image.open(brain_mri / row["path"]).convert("L") for row in rows]
    truth = [row["label"] == "anomaly" for row in rows]
    told = {row["trait"]: row for row in report["shortcuts"]}
    expected = {
        "grey_mean": roc_auc_score(truth, [np.asarray(picture).mean() for picture in pictures]),
        "aspect": 1 - roc_auc_score(truth, [picture.width / picture.height for picture in pictures]),
        "file_bytes": roc_auc_score(truth, [(brain_mri / row["path"]).stat().st_size for row in rows]),
    }
    for trait, auroc in expected.items():
        # The mean grey of a large picture is measured on a smaller one.
        assert told[trait]["auroc"] == pytest.approx(auroc, abs=2e-3)
    assert "Image brightness alone separates the classes almost as well (0.76" in report["warnings"][0]
    digests: dict[str, set[str]] = {}
    for row in rows:
        digests.setdefault(hashlib.sha256((brain_mri / row["path"]).read_bytes()).hexdigest(), set()).add(
            row["path"]
        )
    listed = read_csv(out / "duplicates.csv")
    found: dict[str, set[str]] = {}
    for row in listed:
        found.setdefault(row["number"], set()).add(row["path"])
    for copies in digests.values():
        assert len(copies) == 1 or any(copies <= group for group in found.values())
    near = alike(brain_mri, rows)
    number = {row["path"]: place for place, row in enumerate(rows)}
    for group in found.values():
        places = [number[path] for path in group]
        assert near[np.ix_(places, places)].all()
    assert sum(map(len, found.values())) == int((near.sum(axis=1) > 1).sum())


def test_groups_stay_together(scanomaly: Scanomaly, brain_job: BrainMri, brain_mri: Path, tmp_path: Path) -> None:
    """Two scans of each made-up patient: the report scores patients, and leaves all of one out together."""
    for file in brain_job.home.glob("store.sqlite*"):  # so that nothing is left to embed
        shutil.copy(file, scanomaly.home)
    lines = ["path,label,patient"]
    for folder, label in (("no", "normal"), ("yes", "anomaly")):
        for number, file in enumerate(sorted((brain_mri / folder).iterdir())[:24]):
            lines.append(f'"{folder}/{file.name}",{label},{folder} {number // 2}')
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    out = tmp_path / "report"
    options = ["--labels", tmp_path / "labels.csv", "--group", "patient", "--scorer", "knn", "--out", out]
    scanomaly("run", brain_mri, *OFFLINE, *options)
    report = json.loads((out / "report.json").read_text())
    check_schema(report, "report")
    assert report["groups_note"] == "groups from the column patient"
    assert report["groups"]["count"] == 24
    groups = {row["group"]: row for row in read_csv(out / "groups.csv")}
    rows = [row for row in read_csv(out / "scores.csv") if row["group"]]
    assert len(rows) == 48
    highest = {name: max(float(row["score"]) for row in rows if row["group"] == name) for name in groups}
    assert {name: float(row["score_max"]) for name, row in groups.items()} == pytest.approx(highest)
    truth = [name.startswith("yes") for name in groups]
    assert report["groups"]["max"]["auroc"] == pytest.approx(roc_auc_score(truth, list(highest.values())))
    vectors = stored_vectors(scanomaly.home)
    matrix = np.array([vectors[row["sha256"]] for row in rows])
    normal = np.array([row["label"] == "normal" for row in rows])
    names = np.array([row["group"] for row in rows])
    together = (
        np.linalg.matrix_power((alike(brain_mri, rows) | (names[:, np.newaxis] == names)).astype(float), 48) > 0
    )
    expected = left_out(matrix, together, normal, "knn")
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, abs=1e-6)


def test_a_done_job_gets_more_scorers(done_job: tuple[Scanomaly, str]) -> None:
    user, job = done_job
    before = user.look("status", job)["result"]
    added = user.look("score", job, "--scorer", "mahalanobis")
    assert added["scorers"] == ["centroid", "mahalanobis"]
    ranked = user.json("score", job, "--scorer", "knn,mahalanobis", "--headline", "knn")
    assert ranked["scorers"] == ["knn", "centroid", "mahalanobis"]
    text = user("score", job, "--headline", "centroid").stdout
    assert "Other scorers   AUROC leave-one-out: knn " in text
    status = user.look("status", job)
    result = status["result"]
    assert list(result["scorers"]) == ["centroid", "knn", "mahalanobis"]
    assert result["auroc"] == before["auroc"]
    assert result["decision"] == before["decision"]
    assert result["scorers"]["knn"]["auroc"] == ranked["result"]["auroc"]
    folder = Path(status["report"])
    assert {"score_knn", "score_mahalanobis"} <= read_csv(folder / "scores.csv")[0].keys()
    page = (folder / "report.html").read_text()
    assert "Scorers compared" in page


def test_vectors_are_exported_with_their_paths(done_job: tuple[Scanomaly, str], tmp_path: Path) -> None:
    user, job = done_job
    told = user.json("export", job, "--vectors", "npy", "--out", tmp_path / "npy")
    matrix = np.load(tmp_path / "npy" / "img_emb" / "img_emb_0.npy")
    rows = parquet.read_table(tmp_path / "npy" / "metadata" / "metadata_0.parquet").to_pylist()
    assert told["vectors"] == len(matrix) == len(rows) > 0
    stored = stored_vectors(user.home)
    for vector, row in zip(matrix, rows, strict=True):
        assert (vector == stored[row["sha256"]]).all()
    folder = Path(user.json("report", job)["report"])
    labels = {row["path"]: row["label"] or None for row in read_csv(folder / "scores.csv")}
    assert {row["image_path"]: row["label"] for row in rows} == labels
    user("export", job, "--vectors", "parquet", "--out", tmp_path / "parquet")
    table = parquet.read_table(tmp_path / "parquet" / "vectors.parquet")
    assert np.array(table["vector"].to_pylist(), np.float32).tolist() == matrix.tolist()
    assert table.schema.metadata[b"encoder_key"].startswith(b"timm/tf_efficientnet_lite0")
    again = user("export", job, "--vectors", "npy", "--out", tmp_path / "npy", code=1)
    assert f"{tmp_path / 'npy'} is there already, and is not an empty folder" in again.stderr


def test_wrong_scorers_are_one_line(done_job: tuple[Scanomaly, str]) -> None:
    user, job = done_job
    assert (
        "unknown scorer 'mean': choose from centroid, knn" in user("score", job, "--scorer", "mean", code=2).stderr
    )
    assert "name scorers with --scorer" in user("score", job, code=2).stderr
    told = user("score", job, "--scorer", "patch_knn", code=1).stderr
    assert f"job {job} has no patches: submit the scans again with --scorer patch_knn" in told
    assert "the scorer text needs a text tower" in user("score", job, "--scorer", "text", code=2).stderr
    assert "there is no job 'zzz'" in user("score", "zzz", "--scorer", "knn", code=1).stderr
