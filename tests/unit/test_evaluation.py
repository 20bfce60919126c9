"""The metrics against their definitions, counted by hand, and the charts of them."""

import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from scanomaly.worker.reporting.evaluation import Evaluation, evaluate
from scanomaly.worker.reporting.plots import draw_histogram, draw_roc, histogram_figure

SCORES = [0.1, 0.2, 0.2, 0.4, 0.5, 0.6]
IN_SAMPLE = [0.0, 0.1, 0.2, 0.1, 0.5, 0.6]
IS_ANOMALY = [False, False, True, False, True, True]


def share_of_pairs(scores: list[float]) -> float:
    """AUROC as docs/report.md has it."""
    labelled = list(zip(scores, IS_ANOMALY, strict=True))
    pairs = [(a, n) for a, is_a in labelled if is_a for n, is_b in labelled if not is_b]
    return sum(1.0 if a > n else 0.5 if a == n else 0.0 for a, n in pairs) / len(pairs)


def test_both_aurocs_are_shares_of_pairs():
    evaluation = evaluate(SCORES, IN_SAMPLE, IS_ANOMALY)
    assert evaluation.auroc is not None
    assert evaluation.auroc.value == pytest.approx(share_of_pairs(SCORES))
    assert evaluation.auroc_in_sample == pytest.approx(share_of_pairs(IN_SAMPLE))
    assert evaluation.auroc.value != evaluation.auroc_in_sample


def test_average_precision_is_the_step_sum_over_thresholds():
    # thresholds 0.6, 0.5, 0.4, 0.2: recall rises by 1/3, 1/3, 0, 1/3 at precisions 1, 1, 2/3, 3/5
    found = evaluate(SCORES, IN_SAMPLE, IS_ANOMALY).average_precision
    assert found is not None
    assert found.value == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_the_roc_curve_encloses_the_auroc():
    evaluation = evaluate(SCORES, IN_SAMPLE, IS_ANOMALY)
    assert evaluation.roc is not None
    x, y = evaluation.roc.false_positive_rate, evaluation.roc.true_positive_rate
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert evaluation.auroc is not None
    assert np.trapezoid(y, x) == pytest.approx(evaluation.auroc.value)


def test_metrics_are_plain_floats():
    evaluation = evaluate(np.float64(SCORES), np.float64(IN_SAMPLE), np.array(IS_ANOMALY))
    estimates = (evaluation.auroc, evaluation.average_precision, evaluation.sensitivity, evaluation.specificity)
    numbers = [
        number for e in estimates if e and e.interval for number in (e.value, e.interval.low, e.interval.high)
    ]
    assert len(numbers) == 12
    assert {type(number) for number in [*numbers, evaluation.auroc_in_sample, evaluation.prevalence]} == {float}


@pytest.mark.parametrize("labels", [[], [True], [True, True], [False, False]])
def test_without_both_classes_there_is_nothing_to_measure(labels: list[bool]):
    scores = [0.5] * len(labels)
    assert vars(evaluate(scores, scores, labels)) == vars(Evaluation())


def test_scores_all_equal_are_a_guess():
    found = evaluate([0.5] * 4, [0.5] * 4, [True, False, True, False])
    assert found.auroc is not None
    assert found.auroc.value == found.prevalence == 0.5


def test_lengths_must_match():
    with pytest.raises(ValueError, match="2 labels came with 3 and 3 scores"):
        evaluate([1, 2, 3], [1, 2, 3], [True, False])


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        evaluate([0.1, float("nan")], [0.1, 0.2], [True, False])


class TestCharts:
    def test_the_histogram_has_30_translucent_bins_a_group_each_over_its_own_range(self):
        rng = np.random.default_rng(0)
        groups = {"normal": rng.normal(0.1, 0.02, 98), "anomaly": rng.normal(0.2, 0.05, 155)}
        (axes,) = histogram_figure(groups).axes
        for bars, scores in zip(axes.containers, groups.values(), strict=True):
            heights, edges = np.histogram(scores, bins=30)
            assert [bar.get_height() for bar in bars] == heights.tolist()
            assert [bar.get_x() for bar in bars] == pytest.approx(edges[:-1].tolist())
            assert {bar.get_alpha() for bar in bars} == {0.5}
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["normal (98)", "anomaly (155)"]

    @pytest.mark.parametrize(
        "scores", [[], [0.2], [0.2] * 5, [0.5, 0.5 + 1e-16, 0.5 + 2e-16], [float("nan")], [0.1, float("nan"), 0.3]]
    )
    def test_few_and_equal_scores_can_be_drawn(self, scores: list[float]):
        chart = draw_histogram({"normal": scores, "anomaly": [], "unlabelled": scores})
        assert chart.png.startswith(b"\x89PNG")
        assert ElementTree.fromstring(chart.svg.replace("xlink:href", "href")).attrib["class"] == "chart"

    def test_the_same_scores_give_the_same_bytes(self):
        evaluation = evaluate([0.1, 0.3, 0.2], [0.1, 0.3, 0.2], [False, True, True])
        assert draw_histogram({"normal": [1, 2]}) == draw_histogram({"normal": [1, 2]})
        assert draw_roc(evaluation.roc, 0.5) == draw_roc(evaluation.roc, 0.5)

    def test_pyplot_is_never_loaded(self):
        code = "import sys, scanomaly.worker.reporting.report; print('matplotlib.pyplot' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"
