"""The centroid scorer against a loop that follows the definition, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances

from scanomaly.worker.scoring.centroid import CentroidScorer

DIMENSIONS = 16
SHARED = 3


def unit_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0.3, 1.0, (count, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def with_duplicates() -> tuple[np.ndarray, np.ndarray]:
    """40 normals and their units: in units 0, 1 and 2 are 3, 2 and 5 of them; in unit 2 they differ a little."""
    vectors, units = unit_rows(40), np.arange(40) + SHARED
    for unit, rows in enumerate([[0, 7, 31], [3, 4], [10, 11, 12, 13, 39]]):
        vectors[rows], units[rows] = vectors[rows[0]] + (unit == 2) * 0.01 * unit_rows(len(rows), seed=99), unit
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), units


def cosine_distance(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def chunks(vectors: np.ndarray, units: np.ndarray, size: int):
    for start in range(0, len(units), size):
        yield vectors[start : start + size], units[start : start + size]


def test_score_is_the_cosine_distance_to_the_mean_of_the_normals():
    normals, units = with_duplicates()
    scans = unit_rows(25, seed=1)

    scores = CentroidScorer(SHARED).fit([(normals, units)]).score(scans)

    mean = normals.astype(np.float64).mean(axis=0)
    assert scores.dtype == np.float64
    assert scores == pytest.approx([cosine_distance(scan, mean) for scan in scans], abs=1e-7)
    assert scores == pytest.approx(cosine_distances(scans.astype(np.float64), [mean])[:, 0], abs=1e-7)


def test_left_out_equals_a_loop_that_builds_each_reference_again():
    normals, units = with_duplicates()
    expected = []
    for vector, unit in zip(normals, units, strict=True):
        others = [other for other, other_unit in zip(normals, units, strict=True) if other_unit != unit]
        expected.append(cosine_distance(vector, np.mean(np.float64(others), axis=0)))

    scorer = CentroidScorer(SHARED).fit([(normals, units)])

    left_out = scorer.score_left_out(normals, units)
    assert left_out == pytest.approx(expected, abs=1e-7)
    assert (left_out > scorer.score(normals)).all()


@pytest.mark.parametrize("size", [1, 7, 40])
def test_neither_chunk_size_nor_order_changes_a_score(size: int):
    normals, units = with_duplicates()
    order = np.random.default_rng(size).permutation(len(units))
    scans = unit_rows(10, seed=3)
    whole = CentroidScorer(SHARED).fit([(normals, units)])

    shuffled = CentroidScorer(SHARED).fit(chunks(normals[order], units[order], size))

    assert shuffled.score(scans) == pytest.approx(whole.score(scans), abs=1e-12)
    assert shuffled.score_left_out(normals, units) == pytest.approx(whole.score_left_out(normals, units), abs=1e-12)


def test_the_sum_stays_exact_over_many_normals():
    """A float32 sum would be off by more than 1e-6 here."""
    normals = np.tile(unit_rows(1000), (200, 1))
    units = np.arange(len(normals)) + SHARED
    scans = unit_rows(50, seed=4)

    scores = CentroidScorer(SHARED).fit(chunks(normals, units, 64)).score(scans)

    exact = unit_rows(1000).astype(np.float64).mean(axis=0)
    assert scores == pytest.approx([cosine_distance(scan, exact) for scan in scans], abs=1e-9)


def test_vectors_are_normalised_again():
    normals, units = with_duplicates()
    lengths = np.random.default_rng(5).uniform(0.5, 2, (len(normals), 1)).astype(np.float32)
    scans = unit_rows(5, seed=6)
    plain = CentroidScorer(SHARED).fit([(normals, units)])
    scaled = CentroidScorer(SHARED).fit([(normals * lengths, units)])
    assert scaled.score(scans * 3) == pytest.approx(plain.score(scans), abs=1e-6)


def test_all_normals_of_one_unit_cannot_be_left_out():
    normals = np.repeat(unit_rows(1), 4, axis=0)
    scorer = CentroidScorer(SHARED).fit([(normals, np.zeros(4, int))])
    assert np.isnan(scorer.score_left_out(normals, np.zeros(4, int))).all()
    assert scorer.score(normals) == pytest.approx(0, abs=1e-12)


def test_normals_that_cancel_out_are_at_distance_one():
    vector = unit_rows(1)
    scorer = CentroidScorer(SHARED).fit([(np.concatenate([vector, -vector]), np.array([3, 4]))])
    assert scorer.score(unit_rows(3, seed=7)).tolist() == [1, 1, 1]
    assert scorer.score_left_out(vector, np.array([3])) == pytest.approx(2)


def test_a_vector_of_zeros_is_at_distance_one():
    scorer = CentroidScorer(SHARED).fit([with_duplicates()])
    assert scorer.score(np.zeros((1, DIMENSIONS), np.float32)).tolist() == [1]


def test_the_opposite_direction_is_at_distance_two_and_rounding_never_leaves_the_range():
    for vector in unit_rows(100, seed=8)[:, np.newaxis]:
        scorer = CentroidScorer(SHARED).fit([(np.repeat(vector, 7, axis=0), np.arange(7) + SHARED)])
        scores = scorer.score(np.concatenate([vector, -vector]))
        assert scores == pytest.approx([0, 2], abs=1e-12)
        assert scores.min() >= 0
        assert scores.max() <= 2


def test_fit_forgets_what_it_read_before():
    scorer = CentroidScorer(SHARED).fit([with_duplicates()])
    others = (unit_rows(6, seed=9), np.arange(6) + SHARED)
    scans = unit_rows(4, seed=10)
    assert scorer.fit([others]).score(scans).tolist() == CentroidScorer(SHARED).fit([others]).score(scans).tolist()


@pytest.mark.parametrize("nothing", [[], [(np.empty((0, DIMENSIONS), np.float32), np.empty(0, int))]])
def test_no_normals_is_an_error(nothing: list):
    with pytest.raises(ValueError, match="no normal scans"):
        CentroidScorer(SHARED).fit(nothing)


def test_no_scans_give_no_scores():
    scorer = CentroidScorer(SHARED).fit([with_duplicates()])
    empty = np.empty((0, DIMENSIONS), np.float32)
    assert scorer.score(empty).shape == (0,)
    assert scorer.score_left_out(empty, np.empty(0, int)).shape == (0,)


def test_vectors_and_units_must_be_of_one_length():
    with pytest.raises(ValueError, match="3 vectors came with 2"):
        CentroidScorer(SHARED).fit([(unit_rows(3), np.arange(2))])
    scorer = CentroidScorer(SHARED).fit([with_duplicates()])
    with pytest.raises(ValueError, match="3 vectors came with 1"):
        scorer.score_left_out(unit_rows(3), np.arange(1))


def test_one_bad_embedding_does_not_pass_silently():
    normals, units = with_duplicates()
    normals[5, 2] = np.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        CentroidScorer(SHARED).fit([(normals, units)])


def test_scoring_before_fitting_is_an_error():
    with pytest.raises(RuntimeError, match="before fit"):
        CentroidScorer(SHARED).score(unit_rows(1))
