"""Patches: how they are kept, and the scorers that compare them, against loops that follow the definition."""

import numpy as np
import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import UsageError
from scanomaly.models.scorers import check_scorers, needs_patches
from scanomaly.worker.patches import pack, unpack
from scanomaly.worker.scoring.patch_knn import PatchKnnScorer
from scanomaly.worker.scoring.scorer import NoNormalsError
from scanomaly.worker.scoring.text import TextScorer


def patches(count: int, rows: int = 3, columns: int = 4, channels: int = 6, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, rows, columns, channels)).astype(np.float32)
    return values / np.linalg.norm(values, axis=3, keepdims=True)


def by_hand(scan: np.ndarray, normals: np.ndarray, mirror: bool) -> tuple[float, np.ndarray]:
    """The score and the heat map of one scan, patch by patch."""

    def described(one: np.ndarray, row: int, column: int) -> np.ndarray:
        patch = one[row, column].astype(float)
        return np.concatenate([patch, patch - one[row, -1 - column]]) if mirror else patch

    rows, columns, _ = scan.shape
    heat = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            mine = described(scan, row, column)
            nearest = [
                min(
                    np.linalg.norm(mine - described(normal, other_row, other_column))
                    for other_row in range(rows)
                    for other_column in range(columns)
                )
                for normal in normals
            ]
            heat[row, column] = np.mean(sorted(nearest)[:3])
    return float(np.mean(sorted(heat.ravel())[-3:])), heat


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("count", [2, 9])
def test_scores_and_heat_maps_follow_the_definition(mirror: bool, count: int) -> None:
    normals, units, scans = patches(count), np.arange(count) // 2, patches(5, seed=1)
    fitted = PatchKnnScorer(mirror).fit([(normals[:1], units[:1]), (normals[1:], units[1:])])
    expected = [by_hand(scan, normals, mirror) for scan in scans]
    assert fitted.score(scans) == pytest.approx([score for score, _ in expected], abs=1e-5)
    maps = fitted.heat_maps(scans, np.full(5, -1))
    assert maps == pytest.approx(np.array([heat for _, heat in expected]), abs=1e-5)
    left_out = fitted.score_left_out(normals, units)
    for normal, unit, score in zip(normals, units, left_out, strict=True):
        others = normals[units != unit]
        if len(others):
            assert score == pytest.approx(by_hand(normal, others, mirror)[0], abs=1e-5)
        else:
            assert np.isnan(score)


def test_a_normal_finds_itself_in_sample() -> None:
    normals = patches(1)
    assert PatchKnnScorer().fit([(normals, np.zeros(1))]).score(normals) == pytest.approx(0, abs=1e-3)


def test_nothing_to_score_and_nothing_to_fit() -> None:
    fitted = PatchKnnScorer().fit([(patches(3), np.arange(3))])
    assert fitted.score(patches(0)).shape == (0,)
    with pytest.raises(NoNormalsError):
        PatchKnnScorer().fit([])


def test_of_many_normals_a_sample_is_kept() -> None:
    normals = patches(700, rows=1, columns=1)
    fitted = PatchKnnScorer().fit([(normals, np.arange(700))])
    in_sample = fitted.score(normals)
    nearest = np.sort(np.linalg.norm(normals[:, 0, 0] - normals[:1, 0, 0], axis=1))[:3].mean()
    assert (in_sample[0] == pytest.approx(nearest, abs=1e-3)) or in_sample[0] > nearest


@pytest.mark.parametrize("shape", [(9, 9, 472), (1, 2, 3)])
def test_packed_patches_keep_their_direction(shape: tuple[int, int, int]) -> None:
    values = 3 * patches(1, *shape)[0]
    packed = pack(values)
    assert len(packed) == 6 + np.prod(shape)
    back = unpack(packed)
    assert (back.dtype, back.shape) == (np.float32, shape)
    assert np.linalg.norm(back, axis=2) == pytest.approx(1, abs=1e-6)
    assert (back * values).sum(axis=2) / 3 == pytest.approx(1, abs=2e-3)


def test_a_patch_of_zeros_stays_one() -> None:
    assert (unpack(pack(np.zeros((2, 2, 5), np.float32))) == 0).all()


def test_the_text_scorer_compares_with_both_descriptions() -> None:
    rng = np.random.default_rng(0)
    normal, abnormal, scans = (rng.standard_normal((count, 8)) for count in (3, 4, 20))

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    def mean(rows: np.ndarray) -> np.ndarray:
        return np.mean([row / np.linalg.norm(row) for row in rows], axis=0)

    expected = [cosine(scan, mean(abnormal)) - cosine(scan, mean(normal)) for scan in scans]
    fitted = TextScorer(normal, abnormal).fit([])
    assert fitted.score(scans) == pytest.approx(expected)
    assert fitted.score_left_out(scans, np.zeros(20)) == pytest.approx(expected)


def test_scorers_that_an_encoder_cannot_serve() -> None:
    with pytest.raises(UsageError, match="text needs a text tower, which tf_efficientnet_lite0 has not"):
        check_scorers(["text"], parse_encoder("efficientnet_lite0"))
    check_scorers(["text", "patch_knn"], parse_encoder())
    assert needs_patches(["knn", "patch_knn_mirror"])
    assert not needs_patches(["knn", "text"])
