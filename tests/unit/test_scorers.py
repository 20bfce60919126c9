"""The scorers that keep their normals, against loops that follow the definitions, and scikit-learn."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from scanomaly.models.errors import UsageError
from scanomaly.models.scorers import SCORERS, parse_scorers
from scanomaly.worker.reporting.wording import AXES, MEANINGS
from scanomaly.worker.scoring.knn import KnnScorer
from scanomaly.worker.scoring.mahalanobis import MahalanobisScorer
from scanomaly.worker.scoring.scorer import sample

KEEPERS = [KnnScorer, MahalanobisScorer]


def rows(count: int, dimension: int = 12, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(0.3, 1.0, (count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_units(count: int) -> np.ndarray:
    """Units of one to four normals, in no order."""
    return np.random.default_rng(1).permutation(np.repeat(np.arange(count), 4))[:count]


def knn(normals: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=min(5, len(normals)), metric="cosine", algorithm="brute")
    return search.fit(normals.astype(float)).kneighbors(vectors.astype(float))[0].mean(axis=1)


def mahalanobis(normals: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    def unit(matrix: np.ndarray) -> np.ndarray:
        return matrix.astype(float) / np.linalg.norm(matrix.astype(float), axis=1, keepdims=True)

    return np.sqrt(LedoitWolf().fit(unit(normals)).mahalanobis(unit(vectors)))


DEFINITIONS = {KnnScorer: knn, MahalanobisScorer: mahalanobis}


@pytest.mark.parametrize("scorer", KEEPERS)
@pytest.mark.parametrize(("count", "dimension"), [(60, 12), (20, 48), (3, 12)])
def test_scores_follow_the_definition(scorer: type, count: int, dimension: int) -> None:
    normals, scans = rows(count, dimension), rows(300, dimension, seed=2) * 3
    fitted = scorer().fit([(normals[:2], np.arange(2)), (normals[2:], np.arange(2, count))])
    scores = fitted.score(scans)
    assert scores.dtype == np.float64
    assert scores == pytest.approx(DEFINITIONS[scorer](normals, scans), rel=1e-6)


@pytest.mark.parametrize("scorer", KEEPERS)
@pytest.mark.parametrize(("count", "dimension"), [(60, 12), (40, 96)])
def test_left_out_equals_a_loop_that_fits_without_the_unit(scorer: type, count: int, dimension: int) -> None:
    normals, units = rows(count, dimension), in_units(count)
    expected = [
        DEFINITIONS[scorer](normals[units != unit], vector[np.newaxis])[0]
        for vector, unit in zip(normals, units, strict=True)
    ]
    fitted = scorer().fit([(normals, units)])
    assert fitted.score_left_out(normals, units) == pytest.approx(expected, rel=1e-6)
    assert fitted.score_left_out(normals, units).mean() > fitted.score(normals).mean()


def test_of_many_normals_a_tenth_is_held_out_with_each() -> None:
    normals, units = rows(403), np.concatenate([np.arange(400), [7, 7, 399]])
    expected = np.empty(len(units))
    for fold in range(10):
        here = units % 10 == fold
        expected[here] = mahalanobis(normals[~here], normals[here])
    scores = MahalanobisScorer().fit([(normals, units)]).score_left_out(normals, units)
    assert scores == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scorer", KEEPERS)
def test_a_unit_that_the_sample_does_not_hold_leaves_nothing_out(scorer: type) -> None:
    fitted = scorer().fit([(rows(30), np.arange(30))])
    scans = rows(5, seed=3)
    assert fitted.score_left_out(scans, np.full(5, 77)).tolist() == fitted.score(scans).tolist()


@pytest.mark.parametrize("scorer", KEEPERS)
def test_normals_of_one_unit_cannot_be_left_out(scorer: type) -> None:
    fitted = scorer().fit([(rows(9), np.zeros(9, int))])
    assert np.isnan(fitted.score_left_out(rows(9), np.zeros(9, int))).all()


@pytest.mark.parametrize("scorer", KEEPERS)
def test_equal_normals_have_finite_scores(scorer: type) -> None:
    same = np.repeat(rows(1), 8, axis=0)
    fitted = scorer().fit([(same, np.arange(8))])
    assert fitted.score(same) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(fitted.score(rows(20, seed=4))).all()
    assert (fitted.score(rows(20, seed=4)) > 0).all()
    assert np.isfinite(fitted.score_left_out(same, np.arange(8))).all()
    alone = scorer().fit([(same[:1], np.arange(1))])
    assert np.isfinite(alone.score(rows(20, seed=4))).all()


@pytest.mark.parametrize("scorer", KEEPERS)
def test_what_cannot_be_fitted_is_said(scorer: type) -> None:
    for nothing in ([], [(np.empty((0, 12), np.float32), np.empty(0, int))]):
        with pytest.raises(ValueError, match="no normal scans"):
            scorer().fit(nothing)
    with pytest.raises(ValueError, match="3 vectors came with 2"):
        scorer().fit([(rows(3), np.arange(2))])
    with pytest.raises(FloatingPointError, match="NaN"):
        scorer().fit([(rows(3) * np.float32(np.nan), np.arange(3))])
    fitted = scorer().fit([(rows(3), np.arange(3))])
    assert fitted.score(np.empty((0, 12), np.float32)).shape == (0,)


def test_a_sample_is_even_keeps_the_order_and_is_always_the_same() -> None:
    vectors, units = np.arange(10_000.0)[:, np.newaxis], np.arange(10_000)
    chunks = [(vectors[start : start + 700], units[start : start + 700]) for start in range(0, 10_000, 700)]
    kept = sample(chunks, limit=2000)
    assert kept.units.tolist() == kept.vectors[:, 0].tolist() == sorted(kept.units)
    assert len(set(kept.units)) == 2000
    tenths = np.histogram(kept.units, bins=10, range=(0, 10_000))[0]
    assert tenths.min() > 150
    assert tenths.max() < 250
    assert sample([(vectors, units)], limit=2000).units.tolist() == kept.units.tolist()
    assert sample(chunks, limit=10_000).units.tolist() == units.tolist()


def test_every_scorer_has_its_words() -> None:
    assert AXES.keys() == MEANINGS.keys() == set(SCORERS)


def test_names_of_scorers() -> None:
    assert parse_scorers("knn, centroid,knn") == ("knn", "centroid")
    for wrong, message in {"": "no scorer", ",": "no scorer", "knn,mean": "unknown scorer 'mean': choose"}.items():
        with pytest.raises(UsageError, match=message):
            parse_scorers(wrong)
