"""The centroid scorer against a loop that follows the definition, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances

from scanomaly.worker.scoring.centroid import CentroidScorer

DIMENSIONS = 16


def unit_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0.3, 1.0, (count, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def with_duplicates() -> tuple[np.ndarray, list[str]]:
    """40 normals of which contents a, b and c appear 3, 2 and 5 times."""
    vectors = unit_rows(40)
    contents = [f"content-{index}" for index in range(40)]
    for content, rows in {"a": [0, 7, 31], "b": [3, 4], "c": [10, 11, 12, 13, 39]}.items():
        for row in rows:
            vectors[row], contents[row] = vectors[rows[0]], content
    return vectors, contents


def cosine_distance(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def chunks(vectors: np.ndarray, contents: list[str], size: int):
    for start in range(0, len(contents), size):
        yield vectors[start : start + size], contents[start : start + size]


def test_score_is_the_cosine_distance_to_the_mean_of_the_normals():
    normals, contents = with_duplicates()
    scans = unit_rows(25, seed=1)

    scores = CentroidScorer().fit([(normals, contents)]).score(scans)

    mean = normals.astype(np.float64).mean(axis=0)
    assert scores.dtype == np.float64
    assert scores == pytest.approx([cosine_distance(scan, mean) for scan in scans], abs=1e-7)
    assert scores == pytest.approx(cosine_distances(scans.astype(np.float64), [mean])[:, 0], abs=1e-7)


def test_left_out_equals_a_loop_that_builds_each_reference_again():
    normals, contents = with_duplicates()
    expected = []
    for vector, content in zip(normals, contents, strict=True):
        others = [other for other, name in zip(normals, contents, strict=True) if name != content]
        expected.append(cosine_distance(vector, np.mean(np.float64(others), axis=0)))

    scorer = CentroidScorer().fit([(normals, contents)])

    left_out = scorer.score_left_out(normals, contents)
    assert left_out == pytest.approx(expected, abs=1e-7)
    assert (left_out > scorer.score(normals)).all()


def test_a_content_that_is_no_normal_leaves_nothing_out():
    scorer = CentroidScorer().fit([with_duplicates()])
    scans = unit_rows(5, seed=2)
    assert scorer.score_left_out(scans, ["new"] * 5) == pytest.approx(scorer.score(scans), abs=1e-15)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_neither_chunk_size_nor_order_changes_a_score(size: int):
    normals, contents = with_duplicates()
    order = np.random.default_rng(size).permutation(len(contents))
    scans = unit_rows(10, seed=3)
    whole = CentroidScorer().fit([(normals, contents)])

    shuffled = CentroidScorer().fit(chunks(normals[order], [contents[i] for i in order], size))

    assert shuffled.score(scans) == pytest.approx(whole.score(scans), abs=1e-12)
    assert shuffled.score_left_out(normals, contents) == pytest.approx(
        whole.score_left_out(normals, contents), abs=1e-12
    )


def test_the_sum_stays_exact_over_many_normals():
    """A float32 sum would be off by more than 1e-6 here."""
    normals = np.tile(unit_rows(1000), (200, 1))
    contents = [str(index) for index in range(len(normals))]
    scans = unit_rows(50, seed=4)

    scores = CentroidScorer().fit(chunks(normals, contents, 64)).score(scans)

    exact = unit_rows(1000).astype(np.float64).mean(axis=0)
    assert scores == pytest.approx([cosine_distance(scan, exact) for scan in scans], abs=1e-9)


def test_vectors_are_normalised_again():
    normals, contents = with_duplicates()
    lengths = np.random.default_rng(5).uniform(0.5, 2, (len(normals), 1)).astype(np.float32)
    scans = unit_rows(5, seed=6)
    plain = CentroidScorer().fit([(normals, contents)])
    scaled = CentroidScorer().fit([(normals * lengths, contents)])
    assert scaled.score(scans * 3) == pytest.approx(plain.score(scans), abs=1e-6)


def test_all_normals_of_one_content_cannot_be_left_out():
    normals = np.repeat(unit_rows(1), 4, axis=0)
    scorer = CentroidScorer().fit([(normals, ["same"] * 4)])
    assert np.isnan(scorer.score_left_out(normals, ["same"] * 4)).all()
    assert scorer.score(normals) == pytest.approx(0, abs=1e-12)


def test_normals_that_cancel_out_are_at_distance_one():
    vector = unit_rows(1)
    scorer = CentroidScorer().fit([(np.concatenate([vector, -vector]), ["a", "b"])])
    assert scorer.score(unit_rows(3, seed=7)).tolist() == [1, 1, 1]
    assert scorer.score_left_out(vector, ["a"]) == pytest.approx(2)


def test_a_vector_of_zeros_is_at_distance_one():
    scorer = CentroidScorer().fit([with_duplicates()])
    assert scorer.score(np.zeros((1, DIMENSIONS), np.float32)).tolist() == [1]


def test_the_opposite_direction_is_at_distance_two_and_rounding_never_leaves_the_range():
    for vector in unit_rows(100, seed=8)[:, np.newaxis]:
        scorer = CentroidScorer().fit([(np.repeat(vector, 7, axis=0), list("abcdefg"))])
        scores = scorer.score(np.concatenate([vector, -vector]))
        assert scores == pytest.approx([0, 2], abs=1e-12)
        assert scores.min() >= 0
        assert scores.max() <= 2


def test_fit_forgets_what_it_read_before():
    scorer = CentroidScorer().fit([with_duplicates()])
    others = (unit_rows(6, seed=9), list("uvwxyz"))
    scans = unit_rows(4, seed=10)
    assert scorer.fit([others]).score(scans).tolist() == CentroidScorer().fit([others]).score(scans).tolist()


@pytest.mark.parametrize("nothing", [[], [(np.empty((0, DIMENSIONS), np.float32), [])]])
def test_no_normals_is_an_error(nothing: list):
    with pytest.raises(ValueError, match="no normal scans"):
        CentroidScorer().fit(nothing)


def test_no_scans_give_no_scores():
    scorer = CentroidScorer().fit([with_duplicates()])
    empty = np.empty((0, DIMENSIONS), np.float32)
    assert scorer.score(empty).shape == (0,)
    assert scorer.score_left_out(empty, []).shape == (0,)


def test_vectors_and_contents_must_be_of_one_length():
    with pytest.raises(ValueError, match="3 vectors came with 2"):
        CentroidScorer().fit([(unit_rows(3), ["a", "b"])])
    scorer = CentroidScorer().fit([with_duplicates()])
    with pytest.raises(ValueError, match="3 vectors came with 1"):
        scorer.score_left_out(unit_rows(3), ["a"])


def test_one_bad_embedding_does_not_pass_silently():
    normals, contents = with_duplicates()
    normals[5, 2] = np.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        CentroidScorer().fit([(normals, contents)])


def test_scoring_before_fitting_is_an_error():
    with pytest.raises(RuntimeError, match="before fit"):
        CentroidScorer().score(unit_rows(1))
