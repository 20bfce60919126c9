"""Traits that tell the classes apart, and scans that show the same picture."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanomaly.models.states import Label
from scanomaly.worker.reporting.duplicates import find_duplicates
from scanomaly.worker.reporting.evaluation import Estimate
from scanomaly.worker.reporting.intervals import Interval
from scanomaly.worker.reporting.shortcuts import overlapping, shortcuts

from .test_report import outline_of

N, A, NONE = Label.NORMAL, Label.ANOMALY, None


def test_each_trait_has_its_auroc_in_the_better_direction() -> None:
    rng = np.random.default_rng(3)
    labels = [N] * 40 + [A] * 30 + [NONE] * 10
    widths = [int(width) for width in rng.integers(100, 200, 40)] + [
        int(width) for width in rng.integers(60, 150, 40)
    ]
    formats = ["PNG"] * 35 + ["JPEG"] * 35 + ["TIFF"] * 10
    found = {row.trait: row for row in shortcuts(outline_of(labels, width=widths, format=formats))}
    truth = np.array([False] * 40 + [True] * 30)
    auroc = roc_auc_score(truth, widths[:70])
    assert auroc < 0.5
    assert found["width"].auroc.value == pytest.approx(1 - auroc)
    assert not found["width"].higher
    interval = found["width"].auroc.interval
    assert interval is not None
    assert interval.low < 1 - auroc < interval.high
    assert found["aspect"].auroc.value == pytest.approx(1 - auroc)  # all heights are equal
    assert found["height"].auroc.value == 0.5
    assert found["format:PNG"].auroc.value == pytest.approx(35 / 40 / 2 + 0.5)
    assert [trait for trait in found if trait.startswith("format")] == ["format:PNG"]
    values = [row.auroc.value for row in found.values()]
    assert values == sorted(values, reverse=True)


def test_scans_without_traits_or_label_do_not_count() -> None:
    labels = [N, N, A, A, A, NONE]
    widths = [1, 2, 3, 4, None, 0]
    hashes = [1, 2, 3, 4, None, 5]
    found = {row.trait: row for row in shortcuts(outline_of(labels, width=widths, perceptual_hash=hashes))}
    assert found["width"].auroc.value == 1.0


@pytest.mark.parametrize("labels", [[N, N, NONE], [A, A], []])
def test_one_class_has_no_shortcuts(labels: list[Label | None]) -> None:
    assert shortcuts(outline_of(labels)) == []


@pytest.mark.parametrize(("low", "told"), [(0.995, False), (0.9, True), (0.3, True)])
def test_a_scorer_that_is_not_clearly_better_is_told(low: float, told: bool) -> None:
    found = shortcuts(outline_of([N] * 30 + [A] * 30, width=[*range(30), *range(20, 50)]))
    best = found[0].auroc.interval
    assert best is not None
    found = [row for row in found if row.trait == "width"]
    assert (overlapping(found, Estimate(0.999, Interval(low, 1.0))) is not None) == told
    assert overlapping([], Estimate(0.5, None)) is None


def test_groups_of_duplicates() -> None:
    outline = outline_of([N, A, N, N, NONE, A])
    outline.contents[[0, 2]] = 77
    outline.hashes[[0, 2]] = outline.hashes[0]
    outline.hashes[5] = outline.hashes[3] ^ np.uint64(0)
    found = find_duplicates(outline)
    assert [(group.kind, group.scan_ids.tolist(), group.across) for group in found.groups] == [
        ("near_identical", [3, 5], True),
        ("identical", [0, 2], False),
    ]
    assert found.counts() == {
        "identical": {"groups": 1, "scans": 2, "groups_with_both_labels": 0},
        "near_identical": {"groups": 1, "scans": 2, "groups_with_both_labels": 1},
    }


def test_no_scan_has_no_duplicate() -> None:
    assert find_duplicates(outline_of([])).groups == []
    assert find_duplicates(outline_of([N, A])).groups == []


def test_a_unit_holds_what_belongs_together_and_copies_only_contents() -> None:
    outline = outline_of([N, N, N, N, A])
    outline.contents[[0, 1]] = 77
    outline.hashes[[0, 1, 2]] = outline.hashes[0]
    assert outline.units[0] == outline.units[1] == outline.units[2] != outline.units[3]
    assert outline.copies[0] == outline.copies[1] != outline.copies[2]
    assert outline.wider.tolist() == [True, True, True, False, False]
    assert (outline.shared(outline.units), outline.shared(outline.copies)) == (1, 1)
    assert outline.can_leave_out
