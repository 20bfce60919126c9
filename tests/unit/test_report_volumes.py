"""Volumes in the report: their ranking, their strips of slices, and what is left out where groups say the same."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from playwright.sync_api import Page as BrowserPage
from pyarrow import parquet
from sklearn.metrics import roc_auc_score

from scanomaly.models.records import IgnoredFile, RankedScan, Slice
from scanomaly.models.states import Label
from scanomaly.worker.reporting import volumes
from scanomaly.worker.reporting.ranking import Ranking
from scanomaly.worker.reporting.report import ReportData, write_report

from .test_page import browser, opened, picture  # noqa: F401  (fixtures)
from .test_report import HOSTILE_NAMES, JPEG, SCHEMA, Page, looks, make_data, outline_of, slices_of

SLICES = 9


def with_volumes(
    names: list[str | None], slices: int = SLICES, group: Callable[[str | None], str | None] = lambda name: None
) -> ReportData:
    """A job of volumes with so many slices each, every second an anomaly; None for single pictures."""
    rng = np.random.default_rng(0)
    scans = []
    for number, name in enumerate(names):
        label = (Label.ANOMALY, Label.NORMAL)[number % 2]
        for index in range(slices):
            path = f"{name or f'plain {number}'}/axial/{index:03}"
            score = float(rng.random() + (label is Label.ANOMALY) * (index == 2) * 0.4)
            scans.append(RankedScan(path, label, score, score / 2, "ab" * 32, group(name), None, (), name))
    labels = [scan.label for scan in scans]
    ranked = sorted(scans, key=lambda scan: -scan.score)
    data = make_data([scan.path for scan in scans])
    return replace(
        data,
        scans=ranked,
        outline=outline_of(labels),
        normal_scores=[scan.score for scan in ranked if scan.label is Label.NORMAL],
        other_scores=[scan.score for scan in ranked if scan.label is not Label.NORMAL],
        slices=lambda wanted: slices_of(scans, wanted),
    )


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def strips_of(page: Page) -> list[str]:
    return [part.split("</ol>")[0] for part in page.source.split('<ol class="strip"')[1:]]


@pytest.fixture
def report(tmp_path: Path) -> Callable[[ReportData], tuple[Path, Page]]:
    def write(data: ReportData) -> tuple[Path, Page]:
        folder = tmp_path / "report"
        write_report(data, folder)
        document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
        return folder, Page((folder / "report.html").read_text(encoding="utf-8"))

    return write


def test_volumes_are_ranked_and_measured(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    names = [*(f"{number}.nii" for number in range(30)), None, None]
    data = with_volumes(names, group=lambda name: name and f"patient {int(name.split('.')[0]) // 4}")
    folder, page = report(data)
    by_name: dict[str, list[float]] = {}
    for scan in data.scans:
        by_name.setdefault(scan.volume or "", []).append(scan.score)
    rows = rows_of(folder / "volumes.csv")
    assert list(rows[0]) == ["volume", "group", "label", "scans", "score_max", "score_mean_top_3"]
    assert {row["volume"] for row in rows} == set(names) - {None}
    for row in rows:
        scores = by_name[row["volume"]]
        assert float(row["score_max"]) == max(scores)
        assert float(row["score_mean_top_3"]) == pytest.approx(np.mean(sorted(scores)[-3:]))
        assert row["group"] == f"patient {int(row['volume'].split('.')[0]) // 4}"
        assert row["scans"] == str(SLICES)
    assert [float(row["score_max"]) for row in rows] == sorted(
        (float(row["score_max"]) for row in rows), reverse=True
    )
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    truth = [row["label"] == "anomaly" for row in rows]
    assert document["volumes"]["count"] == len(rows) == 30
    for pooling in ("max", "mean_top_3"):
        expected = roc_auc_score(truth, [float(row[f"score_{pooling}"]) for row in rows])
        assert document["volumes"][pooling]["auroc"] == pytest.approx(expected)
    assert document["groups"]["count"] == 8
    assert {"volumes.csv", "groups.csv"} <= set(document["files"])
    assert "30 volumes: series, or files with several frames." in page.text
    assert "and 10 more in volumes.csv" in page.text
    assert "8 groups of scans: a group is" in page.text
    listed = [row["volume"] for row in rows[:20]]
    assert re.findall(r'<th scope="row" class="path"><bdi>(.*?)</bdi>', page.source) == listed


def test_each_scan_names_its_volume(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    folder, _ = report(with_volumes(["a.nii", "b.nii", None]))
    rows = rows_of(folder / "scores.csv")
    assert list(rows[0])[-1] == "volume"
    assert {row["path"].split("/")[0]: row["volume"] for row in rows} == {
        "a.nii": "a.nii",
        "b.nii": "b.nii",
        "plain 2": "",
    }
    table = parquet.read_table(folder / "scores.parquet")
    assert table["volume"].to_pylist() == [row["volume"] or None for row in rows]


def test_a_job_of_single_pictures_has_no_volumes(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    folder, page = report(make_data())
    assert not (folder / "volumes.csv").exists()
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["volumes"] is None
    assert "olume" not in page.text
    assert {row["volume"] for row in rows_of(folder / "scores.csv")} == {""}


def test_groups_that_are_the_volumes_are_not_shown_twice(
    report: Callable[[ReportData], tuple[Path, Page]],
) -> None:
    names = [f"{number}.nii" for number in range(6)]
    folder, page = report(with_volumes([*names, None], group=lambda name: name))
    assert "Groups" not in page.text
    assert "and all of its volume" in page.text
    assert "Group</th>" not in page.source
    assert [row["group"] for row in rows_of(folder / "groups.csv")] == [
        row["volume"] for row in rows_of(folder / "volumes.csv")
    ]
    # A single picture in a group of its own makes another ranking.
    _, page = report(with_volumes([*names, None], group=lambda name: name or "alone"))
    assert "7 groups of scans" in page.text
    assert "Group</th>" in page.source


def test_without_an_honest_score_nothing_is_measured(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    """Where all normals are one unit, their scores are in-sample."""
    data = replace(with_volumes(["a.nii", "b.nii", "c.nii", "d.nii"], group=lambda name: name), normal_scores=[])
    folder, page = report(data)
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert document["auroc"] is document["volumes"]["max"]["auroc"] is document["groups"]["max"]["auroc"] is None
    assert "not measured" in page.text


def test_labels_of_volumes(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    data = with_volumes(["a.nii", "b.nii", "c.nii"])
    changed = {"a.nii/axial/000": Label.NORMAL, "b.nii/axial/000": None, "c.nii/axial/004": Label.ANOMALY}
    scans = [scan._replace(label=changed.get(scan.path, scan.label)) for scan in data.scans]
    folder, page = report(replace(data, scans=scans, slices=lambda names: slices_of(scans, names)))
    labels = {row["volume"]: row["label"] for row in rows_of(folder / "volumes.csv")}
    assert labels == {"a.nii": "anomaly", "b.nii": "", "c.nii": "anomaly"}
    # Which slices are the anomalies is marked where the labels of a volume differ: in a and b.
    assert sum(strip.count('class="tag') for strip in strips_of(page)) == 2 * SLICES
    _, page = report(data)
    assert len(strips_of(page)) == 3
    assert not any('class="tag' in strip for strip in strips_of(page))


def test_a_strip_has_few_slices_and_the_highest(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    asked: list[str] = []

    def small(path: str) -> bytes | None:
        asked.append(path)
        return None if path.endswith("/000") else JPEG

    data = with_volumes([f"{number:02}.nii" for number in range(14)], slices=70)
    _, page = report(replace(data, gallery_scans=1, looks=replace(looks(), small=small)))
    assert len(asked) == len(set(asked)) == 12 * 24
    assert page.text.count("24 of 70 slices") == 12
    assert page.source.count('<li tabindex="0" class="highest"') == 12
    best = {}
    for scan in data.scans:
        best.setdefault(scan.volume, scan)
    for scan in list(best.values())[:12]:
        number = int(scan.path.split("/")[-1]) + 1
        assert f'class="highest" title="Slice {number} of 70: {scan.path} ({scan.label})"' in page.source
        assert f"{scan.volume} {scan.score:.4f}" in page.text
    alts = [image["alt"] for image in page.all("img") if (image["alt"] or "").startswith("Slice ")]
    assert sum(alt.endswith("of 70, the highest") for alt in alts) + page.text.count("not readable") >= 12
    assert page.text.count("not readable") == sum(path.endswith("/000") for path in asked)


@pytest.mark.parametrize("count", [1, 2, 23, 24, 25, 26, 47, 48, 49, 300, 5000])
def test_slices_are_spread_evenly(count: int) -> None:
    most, rng = 24, np.random.default_rng(count)
    for highest in {0, count - 1, count // 2, *rng.integers(0, count, 50).tolist()}:
        slices = [Slice(str(number), None, float(number == highest)) for number in range(count)]
        chosen = volumes._spread(slices)
        assert highest in chosen
        assert chosen == sorted(set(chosen))
        assert len(chosen) == min(count, most)
        step = (count - 1) / (most - 1) if count > most else 1
        assert max(np.diff(chosen), default=0) <= 1.5 * step + 1
        assert chosen[0] <= step
        assert chosen[-1] >= count - 1 - step


def test_skipped_slices_are_counted(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    data = with_volumes(["a.nii", "b.nii"])
    ignored = [IgnoredFile("notes.txt", "not an image"), IgnoredFile("a.nii/axial/099", "The slice is empty.")]
    _, page = report(replace(data, counts=replace(data.counts, skipped=1, ignored=1), ignored=ignored))
    assert "<dt>empty slices skipped</dt><dd>1</dd>" in page.source
    assert "1 file and 1 empty slice in the source are not scored" in page.text
    assert "1 empty slice was skipped" in page.text
    _, page = report(data)
    assert "empty slice" not in page.text


def test_a_name_is_only_ever_text(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    _, hostile = report(with_volumes(list(HOSTILE_NAMES), 3, group=lambda name: f"of {name}"))
    _, plain = report(with_volumes([f"{number}.nii" for number in range(len(HOSTILE_NAMES))], 3, str.upper))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not [c for c in hostile.source if not c.isprintable() and c != "\n"]
    assert len(hostile.all("script")) == 1


def test_numbers_of_volumes_take_8_bytes_a_scan() -> None:
    """Where names come late, and where there are none."""
    ranking = Ranking(3, ["centroid"])
    scan = RankedScan("x", Label.NORMAL, 0.5, 0.5, "ab")
    scans = [scan] * 2500 + [scan._replace(volume="v", group="g")] * 2 + [scan._replace(volume="w")]
    assert len(list(ranking.passing(scans))) == 2503
    assert ranking.volume_names == ["v", "w"]
    assert ranking.groups_of_volumes() == ["g", None]
    assert not ranking.groups_are_volumes
    found = ranking.volumes()
    assert found is not None
    assert dict(zip(found.numbers.tolist(), found.sizes.tolist(), strict=True)) == {0: 2, 1: 1}
    ranking = Ranking(3, ["centroid"])
    assert len(list(ranking.passing([scan] * 3))) == 3
    assert ranking.volumes() is ranking.groups() is None
    assert not ranking.groups_are_volumes


@pytest.mark.parametrize("width", [380, 1400])
def test_strips_fit_and_the_keyboard_walks_through_them(
    opened: Callable[..., BrowserPage],  # noqa: F811
    picture: bytes,  # noqa: F811
    width: int,
) -> None:
    names = [*HOSTILE_NAMES, "wide/" + "w" * 250 + ".nii"]
    data = replace(with_volumes(list(names), 40), looks=looks(lambda path: picture), gallery_scans=3)
    page = opened(data, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    strip, named = page.locator(".strip").first, page.locator(".strips .named").first
    at_first = named.text_content()
    strip.scroll_into_view_if_needed()
    strip.locator(".highest").focus()
    assert named.text_content() == at_first
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert named.text_content() != at_first
    assert page.evaluate("document.activeElement.title") == named.evaluate("e => e.textContent")
    page.keyboard.press("Tab")
    page.mouse.move(0, 0)
    assert named.text_content() == at_first
    assert page.locator(".strip li[tabindex='0']").count() == len(names)


def test_slices_are_in_the_order_of_their_numbers(report: Callable[[ReportData], tuple[Path, Page]]) -> None:
    data = with_volumes(["series-a", None], slices=3)
    names = ["IM10", "IM2", "IM²"]
    shown = [Slice(name, Label.NORMAL, 0.5) for name in names]
    _, page = report(replace(data, slices=lambda wanted: dict.fromkeys(wanted, shown)))
    (strip,) = strips_of(page)
    assert sorted(names, key=strip.index) == ["IM2", "IM10", "IM²"]
