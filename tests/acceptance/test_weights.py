"""The whole way with a CLIP checkpoint against the reference method's own loop."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from scanomaly.worker.scoring.text import PROMPTS

from .conftest import Scanomaly

MODEL = "ViT-S-32"
"""As the default in all but its width: 250 MB instead of 600, for each copy of its weights."""


def reference_loop(model: Any, preprocess: Any, paths: list[Path]) -> np.ndarray:
    """One image at a time, fp32: (n, 384) float32 unit vectors."""
    vectors = []
    with torch.no_grad():
        for path in paths:
            features = model.encode_image(preprocess(Image.open(path).convert("RGB")).unsqueeze(0))
            vectors.append((features / features.norm(dim=-1, keepdim=True)).squeeze(0).numpy())
    return np.stack(vectors)


def sentences(model: Any) -> list[np.ndarray]:
    """The mean of the unit vectors of what is said of normal and of abnormal scans."""
    means = []
    for kind in ("normal", "abnormal"):
        with torch.no_grad():
            features = model.encode_text(open_clip.tokenize(list(PROMPTS[kind])))
        means.append((features / features.norm(dim=-1, keepdim=True)).mean(dim=0).numpy())
    return means


def distances(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return 1 - vectors @ reference / np.linalg.norm(reference)


def test_every_score_equals_the_reference_loop(served: Scanomaly, brain_mri: Path, tmp_path: Path) -> None:
    for label in ("no", "yes"):
        (tmp_path / "scans" / label).mkdir(parents=True)
        kinds: dict[tuple[str, str | None], int] = {}
        for path in sorted((brain_mri / label).iterdir()):
            with Image.open(path) as image:  # two of each format and mode: RGB, grey, RGBA, palette
                kind = (image.mode, image.format)
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] <= (8 if kind == ("RGB", "JPEG") else 2):
                shutil.copy(path, tmp_path / "scans" / label / path.name)
    checkpoint = tmp_path / "weights.pt"
    torch.manual_seed(7)
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL)
    torch.save(model.eval().state_dict(), checkpoint)

    scorers = ("--scorer", "centroid,text,patch_knn")
    served.job(tmp_path / "scans", "--encoder", MODEL, "--weights", checkpoint, *scorers, "--out", tmp_path / "out")
    with open(tmp_path / "out" / "scores.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    vectors = reference_loop(model, preprocess, [tmp_path / "scans" / row["path"] for row in rows])
    normal_text, abnormal_text = sentences(model)
    checkpoint.unlink()

    normal = np.array([row["label"] == "normal" for row in rows])
    in_sample = distances(vectors, vectors[normal].mean(axis=0))
    left_out = in_sample.copy()
    for index in np.flatnonzero(normal):
        others = normal & np.array([row["sha256"] != rows[index]["sha256"] for row in rows])
        left_out[index] = distances(vectors[[index]], vectors[others].mean(axis=0))[0]
    assert len(rows) >= 16
    assert np.ptp(in_sample) > 1e-3, "the images are too alike for the test to mean anything"
    assert np.abs(np.array([float(row["score_in_sample"]) for row in rows]) - in_sample).max() < 1e-5
    assert np.abs(np.array([float(row["score"]) for row in rows]) - left_out).max() < 1e-5
    by_text = distances(vectors, normal_text) - distances(vectors, abnormal_text)
    assert np.abs(np.array([float(row["score_text"]) for row in rows]) - by_text).max() < 1e-5
    assert min(float(row["score_patch_knn"]) for row in rows) > 0
    assert "heat" in (tmp_path / "out" / "report.html").read_text()
