"""p-values, by counting and by what they promise; and the threshold."""

import numpy as np
import pytest

from scanomaly.worker.reporting.decisions import Decisions

NORMALS = [0.1, 0.2, 0.2, 0.3]


def test_p_values_count_the_normals_that_score_as_high():
    decisions = Decisions(NORMALS, 0.4)
    found = decisions.p_values([0.05, 0.2, 0.25, 0.3, 0.4], [False] * 5)
    assert found == pytest.approx([5 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5])
    assert decisions.smallest_p == pytest.approx(1 / 5)


def test_a_normal_is_not_compared_with_itself():
    found = Decisions(NORMALS, 0.4).p_values(NORMALS, [True] * 4)
    assert found == pytest.approx([4 / 4, 3 / 4, 3 / 4, 1 / 4])


@pytest.mark.parametrize("are_normals", [True, False])
def test_p_values_of_scans_like_the_normals_are_uniform(are_normals: bool):
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        normals = random.gamma(2.0, size=99)
        decisions = Decisions(normals, 0.05)
        scans = normals if are_normals else random.gamma(2.0, size=99)
        found.append(decisions.p_values(scans, [are_normals] * 99))
    for share in (0.05, 0.2, 0.5, 0.9):
        assert np.mean(np.concatenate(found) <= share + 1e-9) == pytest.approx(share, abs=0.01)


def test_as_many_new_normals_are_called_anomalies_as_the_rate_allows():
    random = np.random.default_rng(1)
    flagged, holding = [], []
    real = -np.log(0.05)  # the quantile of an exponential distribution
    for _ in range(1000):
        decisions = Decisions(random.exponential(size=199), 0.05)
        flagged.append(decisions.are_anomalies(random.exponential(size=100)).mean())
        interval = decisions.threshold_interval
        assert interval is not None
        low, high = interval
        holding.append((low is None or low <= real) and (high is None or real <= high))
    assert np.mean(flagged) == pytest.approx(0.05, abs=0.005)
    assert 0.94 <= np.mean(holding) <= 0.99  # ranks are whole numbers, so it holds a little more than 0.95


@pytest.mark.parametrize("count", [19, 20, 38, 39, 98, 99, 100])
def test_called_an_anomaly_is_what_has_a_p_value_at_most_the_rate(count: int):
    normals = np.arange(count) / count
    decisions = Decisions(normals, 0.05)
    scans = np.linspace(-0.1, 1.1, 500)
    p_values = decisions.p_values(scans, np.zeros(500, bool))
    assert (decisions.are_anomalies(scans) == (p_values <= 0.05 + 1e-12)).all()
    assert (decisions.p_values(normals, np.ones(count, bool))[decisions.are_anomalies(normals)] <= 0.05).all()


@pytest.mark.parametrize("count", [0, 1, 18])
def test_too_few_normals_make_no_threshold(count: int):
    decisions = Decisions(np.arange(count), 0.05)
    assert decisions.threshold is None
    assert decisions.threshold_interval is None
    assert not decisions.are_anomalies([1e9]).any()
    assert decisions.smallest_p > 0.05


def test_q_values_are_those_of_benjamini_and_hochberg() -> None:
    """q(k) = min p(j) m / j over j ≥ k, by hand."""
    rng = np.random.default_rng(4)
    normals, others = rng.random(50), rng.random(30) + 0.5
    decisions = Decisions(normals, 0.1, others)
    p_values = decisions.p_values(others, np.zeros(30, dtype=bool))
    order = np.argsort(p_values)
    adjusted = [min(1.0, *(p_values[order[j]] * 30 / (j + 1) for j in range(k, 30))) for k in range(30)]
    assert decisions.q_values(p_values[order]) == pytest.approx(adjusted)
    assert decisions.discoveries == sum(value <= 0.1 for value in adjusted) > 0


def test_false_discoveries_are_as_rare_as_they_are_said_to_be() -> None:
    """Of 40 scans 20 are like the normals; among those called at 20 %, at most that share, on average."""
    shares = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        others = np.concatenate([rng.standard_normal(20), rng.standard_normal(20) + 3])
        decisions = Decisions(rng.standard_normal(200), 0.2, others)
        called = decisions.q_values(decisions.p_values(others, np.zeros(40, dtype=bool))) <= 0.2
        assert called.sum() == decisions.discoveries
        shares.append(called[:20].sum() / max(1, called.sum()))
    assert 0.05 < np.mean(shares) <= 0.2 * 20 / 40 + 0.02


def test_nobody_to_test_has_no_discoveries() -> None:
    assert Decisions([0.1, 0.2], 0.5).discoveries == 0
    assert Decisions([], 0.5, [0.3]).discoveries == 0
