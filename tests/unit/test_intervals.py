"""DeLong's variance and the bootstrap, against their definitions worked out scan by scan."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from scanomaly.worker.reporting import intervals
from scanomaly.worker.reporting.intervals import GRID, Steps

Scores = NDArray[np.float64]


def draw(seed: int, scans: int = 60, gain: float = 1.0) -> tuple[Scores, NDArray[np.bool_]]:
    """Scores with ties, and which of them are anomalies'."""
    random = np.random.default_rng(seed)
    truth = np.arange(scans) % 3 > 0
    return np.round(random.normal(size=scans) + gain * truth, 1), truth


def structural(scores: Scores, truth: NDArray[np.bool_]) -> tuple[Scores, Scores]:
    """DeLong's components, from all pairs as the paper has them."""
    pairs = np.array([[(a > n) + 0.5 * (a == n) for n in scores[~truth]] for a in scores[truth]])
    return pairs.mean(axis=1), pairs.mean(axis=0)


def test_delongs_covariance_is_that_of_all_pairs():
    (one, truth), (other, _) = draw(1), draw(2, gain=0.5)
    wins, losses = zip(structural(one, truth), structural(other, truth), strict=True)
    expected = np.cov(np.array(wins)) / truth.sum() + np.cov(np.array(losses)) / (~truth).sum()
    found = intervals.delong(truth, one, other)
    assert found.covariance == pytest.approx(expected)
    assert found.aurocs == pytest.approx([roc_auc_score(truth, one), roc_auc_score(truth, other)])


def test_delongs_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(3)
    real, held = 0.7602499, 0  # of two normal distributions one deviation apart: Φ(1/√2)
    truth = np.arange(120) % 2 == 0
    for _ in range(1000):
        interval = intervals.delong(truth, random.normal(size=120) + truth).interval(0)
        assert interval is not None
        held += interval.low <= real <= interval.high
    assert 0.93 <= held / 1000 <= 0.97


def test_equal_scorers_do_not_differ():
    scores, truth = draw(4)
    assert intervals.delong(truth, scores, 2 * scores).p_of_difference(0, 1) == 1.0


def test_p_values_of_scorers_that_are_equally_good_are_uniform():
    random = np.random.default_rng(5)
    truth = np.arange(100) % 2 == 0
    found = []
    for _ in range(500):
        common = random.normal(size=100) + truth
        one, other = (common + random.normal(size=100) for _ in range(2))
        found.append(intervals.delong(truth, one, other).p_of_difference(0, 1))
    for share in (0.05, 0.5):
        assert np.mean(np.array(found) <= share) == pytest.approx(share, abs=0.06)


def test_a_better_scorer_is_told_from_a_worse():
    truth = np.arange(200) % 2 == 0
    random = np.random.default_rng(6)
    p = intervals.delong(truth, random.normal(size=200) + 2 * truth, random.normal(size=200)).p_of_difference(0, 1)
    assert p is not None
    assert p < 0.001


def test_a_class_of_one_scan_has_no_interval():
    found = intervals.delong([True, False, False], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert found.interval(0) is None
    assert found.p_of_difference(0, 1) is None


@pytest.mark.parametrize("seed", range(5))
def test_statistics_of_steps_are_those_of_the_scores(seed: int):
    scores, truth = draw(seed)
    steps = Steps.of(scores, truth)
    assert intervals.auroc(steps) == pytest.approx(roc_auc_score(truth, scores))
    assert intervals.average_precision(steps) == pytest.approx(average_precision_score(truth, scores))
    false_positive, true_positive, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert intervals.sensitivity_at(0.9)(steps) == pytest.approx(true_positive[false_positive <= 0.1].max())
    assert intervals.specificity_at(0.9)(steps) == pytest.approx(1 - false_positive[true_positive >= 0.9].min())


def test_curves_on_the_grid_are_read_off_the_curves():
    scores, truth = draw(7)
    steps = Steps.of(scores, truth)
    thresholds = np.unique(scores)[::-1]
    right = np.array([np.mean(scores[~truth] >= t) for t in thresholds])
    up = np.array([np.mean(scores[truth] >= t) for t in thresholds])
    precision = np.array([np.mean(truth[scores >= t]) for t in thresholds])
    roc = [max([0.0, *up[right <= share + 1e-9]]) for share in GRID]
    assert intervals.roc_on_grid(steps)[0] == pytest.approx(roc)
    expected = [precision[np.argmax(up >= max(share, 1e-9) - 1e-9)] for share in GRID]
    assert intervals.precision_on_grid(steps)[0] == pytest.approx(expected)


def test_the_bootstrap_is_the_one_that_draws_scans():
    scores, truth = draw(8, 150)
    random = np.random.default_rng(9)
    anomalies, normals = scores[truth], scores[~truth]
    labels = np.arange(150) < len(anomalies)
    drawn = []
    for _ in range(2000):
        again = np.concatenate([random.choice(anomalies, len(anomalies)), random.choice(normals, len(normals))])
        drawn.append((roc_auc_score(labels, again), average_precision_score(labels, again)))
    expected = np.quantile(drawn, [0.025, 0.975], axis=0)
    found = intervals.bootstrap(scores, truth, auroc=intervals.auroc, precision=intervals.average_precision)
    assert found["auroc"] == pytest.approx(expected[:, 0], abs=0.01)
    assert found["precision"] == pytest.approx(expected[:, 1], abs=0.01)
    again = intervals.bootstrap(scores, truth, auroc=intervals.auroc)
    assert found["auroc"] == again["auroc"]


def test_many_scores_in_few_steps_keep_their_metrics():
    random = np.random.default_rng(10)
    truth = random.random(20_000) < 0.3
    scores = random.normal(size=20_000) + truth
    fine, coarse = Steps.of(scores, truth), Steps.of(scores, truth, 2000)
    assert len(coarse.normals) == 2000
    assert coarse.normals.sum() == fine.normals.sum()
    assert intervals.auroc(coarse) == pytest.approx(intervals.auroc(fine), abs=1e-4)
    assert intervals.average_precision(coarse) == pytest.approx(intervals.average_precision(fine), abs=1e-3)
