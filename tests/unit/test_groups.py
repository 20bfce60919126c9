"""Which scans belong together, by a rule on the path or a column; and the scores of groups."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanomaly.models.errors import UsageError
from scanomaly.producer.groups import Groups
from scanomaly.worker.reporting.groups import group_scores

CSV = "path,label,patient\na/1.png,normal,P 1\na/2.png,normal, P 1 \nb.png,,\nc.png,anomaly,ü\n"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (r"(p\d+)", ["p1", "p1", "p22", None]),
        (r"p\d+/", ["p1/", "p1/", "p22/", None]),
        (r"(?:no|yes)/(?P<patient>\w+)", ["p1", "p1", "p22", None]),
        (r"/(p1)?", ["p1", "p1", None, None]),  # an empty group is none
    ],
)
def test_a_regular_expression_on_the_path(rule: str, expected: list[str | None], tmp_path: Path) -> None:
    groups = Groups(str(tmp_path), rule)
    paths = ["no/p1/a.png", "yes/p1/b.png", "no/p22/a.png", "other.png"]
    assert [groups.group(path) for path in paths] == expected
    groups.check(4)


@pytest.mark.parametrize("rule", ["(.|.|.|.|.|.|.|.)*!", "(a+)+$", "(a|aa)+$", r"(\w+\s?)*!", "(x*)*y"])
def test_no_expression_takes_for_ever(rule: str, tmp_path: Path) -> None:
    """Each of them takes longer than anybody waits where an engine tries one way after the other."""
    groups = Groups(str(tmp_path), rule)
    assert groups.group("a" * 5_000 + "b") is None


@pytest.mark.parametrize("rule", [r"(?=p)\w+", r"(?<!x)p1", r"(p)\1", "a{1001}"])
def test_what_only_a_searching_engine_can_do_is_refused(rule: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no look-around, no back-references"):
        Groups(str(tmp_path), rule)


def test_a_path_need_not_be_utf_8(tmp_path: Path) -> None:
    path = b"no/p1\xff/a.png".decode("utf-8", "surrogateescape")
    assert Groups(str(tmp_path), "no/(p[0-9].*)/").group(path) is None  # the engine's . is a letter
    assert Groups(str(tmp_path), "(p[0-9])").group(path) == "p1"
    assert Groups(str(tmp_path), "no/([^0-9]+)/").group("no/Müller/a.png") == "Müller"


def test_a_column_of_the_labels_file(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(CSV)
    groups = Groups(str(tmp_path), "patient", tmp_path / "labels.csv")
    paths = ["a/1.png", "a/2.png", "b.png", "c.png", "unknown.png"]
    assert [groups.group(path) for path in paths] == ["P 1", "P 1", None, "ü", None]
    assert groups.note == "groups from the column patient"


def test_rules_that_cannot_be_right(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(CSV)
    with pytest.raises(UsageError, match=r"--group \(x is no regular expression .*, and no column"):
        Groups(str(tmp_path), "(x", tmp_path / "labels.csv")
    groups = Groups(str(tmp_path), "nobody", tmp_path / "labels.csv")  # no column: looked for in the paths
    assert groups.group("a/1.png") is None
    with pytest.raises(UsageError, match="gives none of the 5 images a group"):
        groups.check(5)


def test_groups_are_scored_by_their_highest_scans() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(-1, 20, 300)
    groups[groups == 7] = 8
    scores, in_sample = rng.random(300), rng.random(300)
    anomalous = (groups % 3 == 0) & (rng.random(300) < 0.3)
    normal = ~anomalous & (groups != 4)  # group 4 has scans without a label
    found = group_scores(groups, [scores, in_sample], normal, anomalous)
    assert sorted(found.numbers.tolist()) == sorted(set(groups.tolist()) - {-1})
    assert (np.diff(found.scores["max"]) <= 0).all()
    pooled = {"max": max, "mean_top_3": lambda values: np.mean(sorted(values)[-3:])}
    truth = np.array([anomalous[groups == number].any() for number in found.numbers])
    assert (found.are_anomalies == truth).all()
    assert not found.are_normal[found.numbers == 4].any()
    for name, pool in pooled.items():
        expected = np.array([pool(scores[groups == number]) for number in found.numbers])
        assert found.scores[name] == pytest.approx(expected)
        labelled = found.are_normal | found.are_anomalies
        assert labelled.sum() == len(truth) - 1
        assert found.evaluations[name].auroc.value == pytest.approx(
            roc_auc_score(truth[labelled], expected[labelled])
        )


def test_a_group_may_be_smaller_than_three() -> None:
    scores = np.array([0.9, 0.5, 0.4])
    found = group_scores(np.array([1, 0, 1]), [scores, scores], np.array([True] * 3), np.array([False] * 3))
    assert found.sizes.tolist() == [2, 1]
    assert found.scores["mean_top_3"].tolist() == pytest.approx([0.65, 0.5])
    assert found.evaluations["max"].auroc is None
