"""The report: what its files say, that no name can break them, and that it is written whole or not at all."""

import base64
import csv
import hashlib
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pyarrow import parquet

from scanomaly.models.errors import ReportError
from scanomaly.models.hiding import Hiding
from scanomaly.models.records import (
    Failure,
    IgnoredFile,
    NamedScan,
    OtherScores,
    OutlinePage,
    RankedScan,
    Slice,
)
from scanomaly.models.reports import REPORT_FILES, is_report
from scanomaly.models.states import Label
from scanomaly.worker.reporting import ranking
from scanomaly.worker.reporting.embedding_map import EmbeddingMap, MapPoint
from scanomaly.worker.reporting.evaluation import evaluate
from scanomaly.worker.reporting.files import whole_folder
from scanomaly.worker.reporting.gallery import Looks
from scanomaly.worker.reporting.report import (
    SCORES_COLUMNS,
    ReportCounts,
    ReportData,
    ReportTimings,
    write_report,
)
from scanomaly.worker.scoring.outline import Outline

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))
# Writes a report and dies: while it writes, or between the two renames.
DIE = """
import os, sys
from pathlib import Path
from scanomaly.worker.reporting.files import whole_folder
rename = Path.rename
def rename_and_die(old, new):
    rename(old, new)
    os._exit(9)
with whole_folder(Path(sys.argv[1])) as staging:
    (staging / "report.json").write_text("half")
    if sys.argv[2] == "writing":
        os._exit(9)
    Path.rename = rename_and_die
"""
BITS = np.array([1 << bit for bit in range(64)], dtype=np.uint64)
JPEG = b"\xff\xd8 not decoded here \xff\xd9"
CURVES = {"roc.png", "precision_recall.png"}
HOSTILE_NAMES = [
    "<script>alert(1)</script>.jpg",
    "\"><img src=http://example.invalid/x onerror='alert(1)'>.png",
    "{{ 7 * 7 }}{% raw %}&amp;.png",
    "two\nlines\r.png",
    "only a\rreturn.png",
    "\u202egpj.exe",
    "bell\x07 escape\x1b[31m.png",
    "=cmd, with a comma.png",
    "脑 מוח é 🧠.png",
    "long/" + "n" * 300 + ".png",
    "not utf-8 \udce9.png",
]


def outline_of(labels: list[Label | None], **columns: list[Any]) -> Outline:
    """Scans of different contents and looks, with traits that tell nothing; columns as given."""
    count = len(labels)
    bits = np.random.default_rng(7).permuted(np.tile([0] * 32 + [1] * 32, (count, 1)), axis=1)
    hashes = [int(number) for number in bits.astype(np.uint64) @ BITS]
    traits: dict[str, list[Any]] = {
        "format": ["PNG"] * count,
        "file_bytes": [1000] * count,
        "width": [10] * count,
        "height": [20] * count,
        "grey_mean": [99.5] * count,
        "grey_spread": [1.0] * count,
        "border_share": [0.0] * count,
        "perceptual_hash": [number - (number >> 63 << 64) for number in hashes],
    }
    page = OutlinePage(range(count), labels, [None] * count, range(count), traits)
    return Outline.read([replace(page, traits=traits | columns)])


def looks(
    thumbnail: Callable[[str], bytes | None] = lambda path: JPEG,
    nearest: NamedScan | None = None,
    heat: np.ndarray | None = None,
) -> Looks:
    of_all = (lambda digests: [nearest] * len(digests), lambda digests: [heat] * len(digests))
    return Looks(thumbnail, thumbnail, *of_all)


def make_data(names: list[str] | None = None, labelled: bool = True) -> ReportData:
    """A job of twelve scans, or of scans with the names given; half are anomalies, or unlabelled."""
    names = names or [f"no/{index} scan.png" for index in range(12)]
    scores = np.linspace(0.9, 0.1, len(names)) / 3
    other = Label.ANOMALY if labelled else None
    labels = [other if index % 2 == 0 else Label.NORMAL for index in range(len(names))]
    scans = [
        RankedScan(name, label, float(score), float(score) - 0.01, f"{index:064x}")
        for index, (name, label, score) in enumerate(zip(names, labels, scores, strict=True))
    ]
    others = len(names) - labels.count(Label.NORMAL)
    return ReportData(
        job_id="job-1",
        source="/data/scans",
        root="/data/scans",
        created_at=datetime(2026, 7, 27, 16, 3, 5, tzinfo=timezone(timedelta(hours=2))),
        encoder_key="timm/tf_efficientnet_lite0/57934424/fp32/p1",
        source_note="the built-in sample stands in",
        encoder_note="the model hub could not be reached: the offline encoder ran instead",
        labels_note="sub-folders: no/ is normal, yes/ is anomaly",
        groups_note=None,
        counts=ReportCounts(
            len(names), len(names) - others, others * labelled, others * (not labelled), len(names), 0, 0, 0
        ),
        scorers=["centroid"],
        scans=scans,
        outline=outline_of(labels),
        named=lambda ids: [NamedScan(n, names[n], labels[n], f"{n:064x}") for n in ids],
        normal_scores=[scan.score for scan in scans if scan.label is Label.NORMAL],
        other_scores=[scan.score for scan in scans if scan.label is not Label.NORMAL],
        false_alarm_rate=0.25,
        failures=[],
        ignored=[],
        timings=ReportTimings(1.5, 0.25, 2.0, 12),
        versions={"scanomaly": "0.1.0", "numpy": "2.4.6"},
        gallery_scans=300,
        looks=looks(),
        slices=lambda volumes: slices_of(scans, volumes),
        embedding_map=EmbeddingMap([], 0.0, len(names)),
        hiding=Hiding(None),
    )


def slices_of(scans: Iterable[RankedScan], volumes: Sequence[str]) -> dict[str, list[Slice]]:
    """In order of their paths."""
    ordered = sorted(scans, key=lambda scan: scan.path)
    return {
        name: [Slice(scan.path, scan.label, scan.score) for scan in ordered if scan.volume == name]
        for name in volumes
    }


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def read_csv(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def visible(path: str) -> str:
    """The name as a page may show it: what cannot be seen is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(self.source)
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written_page(data: ReportData, folder: Path) -> Page:
    write_report(data, folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[[ReportData], Page]:
    """The page of the report that is made from these data."""
    return lambda data: written_page(data, tmp_path / "page of")


def named_everywhere(text: str) -> ReportData:
    """What a user wrote is the same text wherever the page prints it."""
    return replace(
        make_data(["first.png", text]),
        source=text,
        root=f"{text}/",
        labels_note=text,
        source_note=text,
        encoder_note=text,
        failures=[Failure(text, "missing", text)],
        looks=looks(nearest=NamedScan(0, text, None, "f" * 64)),
        embedding_map=EmbeddingMap([MapPoint(NamedScan(0, text, None, "f" * 64), 0.5, 0.25)], 0.5, 2),
        ignored=[IgnoredFile(text, text)],
    )


@pytest.fixture(scope="module")
def plain_tags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tags of a page whose names are harmless."""
    return [tag for tag, _ in written_page(named_everywhere("plain"), tmp_path_factory.mktemp("plain") / "r").tags]


def one_normal_content(data: ReportData) -> ReportData:
    return replace(data, normal_scores=[])


class TestDocument:
    @pytest.mark.parametrize("labelled", [True, False])
    def test_it_follows_the_schema_and_names_the_files_that_are_there(self, tmp_path: Path, labelled: bool):
        data = make_data(labelled=labelled)
        write_report(data, tmp_path / "report")
        document = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))

        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
        assert document["files"] == names_in(tmp_path / "report")
        assert set(REPORT_FILES) - {"groups.csv", "volumes.csv"} - set(document["files"]) == (
            set() if labelled else CURVES
        )
        scans = list(data.scans)
        if labelled:
            truth = [scan.label is Label.ANOMALY for scan in scans]
            plain = [scan.score_in_sample for scan in scans]
            expected = evaluate([scan.score for scan in scans], plain, truth)
            assert expected.auroc is not None
            assert expected.auroc.interval is not None
            assert document["auroc"] == expected.auroc.value
            assert document["intervals"]["auroc"] == [expected.auroc.interval.low, expected.auroc.interval.high]
            assert document["auroc_in_sample"] == expected.auroc_in_sample
            assert document["average_precision"] == getattr(expected.average_precision, "value", None)
        assert (document["auroc"] is None) is not labelled
        assert document["job"]["created_at"] == "2026-07-27T14:03:05+00:00"
        assert document["warnings"] == []

    def test_normals_of_one_content_are_said_and_not_measured(self, tmp_path: Path):
        findings = write_report(one_normal_content(make_data()), tmp_path / "report")
        document = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
        assert document["warnings"] == findings.warnings
        assert "all normal scans show the same picture" in document["warnings"][0]
        assert document["auroc"] is document["auroc_in_sample"] is document["average_precision"] is None

    def test_the_schema_allows_no_other_key(self, tmp_path: Path):
        write_report(make_data(), tmp_path / "report")
        document = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
        for part in (document, document["job"], document["counts"], document["timings"]):
            part["surprise"] = 1
            with pytest.raises(jsonschema.ValidationError, match="surprise"):
                jsonschema.validate(document, SCHEMA)
            del part["surprise"]

    def test_a_time_without_a_zone_is_refused(self):
        with pytest.raises(ValueError, match="time zone"):
            replace(make_data(), created_at=datetime(2026, 7, 27))


class TestTables:
    def test_scores_read_back_exactly(self, tmp_path: Path):
        data = make_data(HOSTILE_NAMES)
        scans = [*data.scans, RankedScan("x", None, 1 / 3, 0.1, "ff")]
        write_report(replace(data, scans=scans, other_scores=[*data.other_scores, 1 / 3]), tmp_path / "r")
        header, *rows = read_csv(tmp_path / "r" / "scores.csv")
        assert header == list(SCORES_COLUMNS)
        assert header[:8] == [
            *("rank", "path", "label", "score", "score_in_sample", "sha256", "p_value", "predicted")
        ]
        assert [int(row[0]) for row in rows] == list(range(1, len(HOSTILE_NAMES) + 2))
        assert [row[1] for row in rows] == [*(n.replace("\udce9", "\\udce9") for n in HOSTILE_NAMES), "x"]
        assert [float(row[3]) for row in rows[:-1]] == [scan.score for scan in data.scans]
        assert rows[-1][2:9] == ["", "0.3333333333333333", "0.1", "ff", str(1 / 6), "anomaly", ""]
        assert rows[-1][10] == ""  # the volume
        assert {row[2] for row in rows} == {"normal", "anomaly", ""}

    def test_the_parquet_file_is_the_csv_file(self, tmp_path: Path):
        data = make_data(HOSTILE_NAMES)
        scans = [scan._replace(others=(OtherScores(number / 7, 0.5),)) for number, scan in enumerate(data.scans)]
        write_report(replace(data, scans=scans, scorers=["knn", "centroid"]), tmp_path / "r")
        header, *rows = read_csv(tmp_path / "r" / "scores.csv")
        table = parquet.read_table(tmp_path / "r" / "scores.parquet")
        assert table.column_names == header
        for name, column in zip(header, zip(*rows, strict=True), strict=True):
            values = table[name].to_pylist()
            assert ["" if value is None else str(value) for value in values] == list(column)
        assert {str(kind) for kind in table.schema.types} == {"int64", "string", "double"}

    def test_what_lies_above_the_threshold_is_called_an_anomaly(self, tmp_path: Path):
        findings = write_report(make_data(), tmp_path / "r")
        document = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
        _, *rows = read_csv(tmp_path / "r" / "scores.csv")
        called = [row[2] for row in rows if row[7] == "anomaly"]
        assert all((float(row[3]) > findings.decisions.threshold) == (row[7] == "anomaly") for row in rows)
        assert document["decision"]["called_anomalies"] == {
            "normal": called.count("normal"),
            "anomaly": called.count("anomaly"),
            "unlabelled": 0,
        }
        assert 0 < len(called) < len(rows)
        assert min(float(row[6]) for row in rows) == document["decision"]["smallest_p_value"] == 1 / 7

    def test_too_few_normals_are_said(self, tmp_path: Path):
        findings = write_report(replace(make_data(), false_alarm_rate=0.05), tmp_path / "r")
        _, *rows = read_csv(tmp_path / "r" / "scores.csv")
        assert {row[7] for row in rows} == {""}
        assert all(row[6] for row in rows)
        assert "6 normal scans are too few for a false-alarm rate of 0.05" in findings.warnings[0]
        page = Page((tmp_path / "r" / "report.html").read_text(encoding="utf-8"))
        assert "so no scan is called an anomaly" in page.text

    def test_failures_and_ignored_files(self, tmp_path: Path):
        failure = Failure("a\nb.jpg", "not_an_image", 'It says "hello".')
        write_report(
            replace(make_data(), failures=[failure], ignored=[IgnoredFile("a,b.txt", "no image")]), tmp_path / "r"
        )
        assert read_csv(tmp_path / "r" / "failures.csv") == [
            ["path", "kind", "detail"],
            ["a\nb.jpg", "not_an_image", 'It says "hello".'],
        ]
        assert read_csv(tmp_path / "r" / "ignored.csv") == [["path", "reason"], ["a,b.txt", "no image"]]

    def test_without_failures_the_header_is_there(self, tmp_path: Path):
        write_report(make_data(), tmp_path / "r")
        assert (tmp_path / "r" / "failures.csv").read_bytes() == b"path,kind,detail\n"
        assert (tmp_path / "r" / "ignored.csv").read_bytes() == b"path,reason\n"


class TestPage:
    def test_it_says_what_ran_and_how_well(self, page_of: Callable[[ReportData], Page]):
        page = page_of(make_data())
        assert "6 anomaly scans against 6 normal: AUROC 0.583" in page.text
        for sentence in (
            "This is a ranking, not a diagnosis.",
            "the offline encoder ran instead",
            "sub-folders: no/ is normal, yes/ is anomaly",
            "timm/tf_efficientnet_lite0/57934424/fp32/p1",
            "2026-07-27 14:03 UTC",
            "Every scan could be scored.",
        ):
            assert sentence in page.text
        assert page.all("html") == [{"lang": "en"}]
        assert all(image["alt"] for image in page.all("img"))

    def test_without_anomaly_labels_it_ranks(self, tmp_path: Path):
        write_report(make_data(labelled=False), tmp_path / "r")
        page = Page((tmp_path / "r" / "report.html").read_text(encoding="utf-8"))
        assert "12 scans ranked by how unlike 6 normal scans they are" in page.text
        assert "There is no ROC curve and no AUROC" in page.text
        assert len(page.all("img")) == 12
        assert len(page.all("svg")) == 1
        assert not (tmp_path / "r" / "roc.png").exists()

    def test_it_fetches_nothing_and_runs_one_script(self, tmp_path: Path):
        write_report(make_data(HOSTILE_NAMES), tmp_path / "r")
        page = Page((tmp_path / "r" / "report.html").read_text(encoding="utf-8"))
        assert not {"iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
        (script,) = page.source.split("<script>")[1:]
        digest = base64.b64encode(hashlib.sha256(script.split("</script>")[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'; base-uri 'none'" in page.source
        assert len(page.all("script")) == 1
        loaded = [a[k] for tag, a in page.tags for k in ("src", "href") if k in a and tag != "a"]
        assert len(loaded) == len(HOSTILE_NAMES) + 1
        assert all(address.startswith("data:") for address in loaded)
        assert all(link["href"].startswith("#") for link in page.all("a"))
        assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
        style = page.source.split("<style>")[1].split("</style>")[0]
        assert "url(" not in style
        assert "@import" not in style
        assert any(
            (meta.get("content") or "").startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
            for meta in page.all("meta")
        )

    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_a_name_is_only_ever_text(
        self, page_of: Callable[[ReportData], Page], plain_tags: list[str], name: str
    ):
        """Everywhere that a page prints what a user wrote, not only in the gallery."""
        page = page_of(named_everywhere(name))
        assert page.text.count(" ".join(visible(name).split())) == 14
        assert not [c for c in page.source if not c.isprintable() and c != "\n"]
        assert [tag for tag, _ in page.tags] == plain_tags

    def test_only_the_shown_scans_get_a_thumbnail(
        self, page_of: Callable[[ReportData], Page], monkeypatch: pytest.MonkeyPatch
    ):
        asked: list[str] = []

        def thumbnail(path: str) -> bytes | None:
            asked.append(path)
            if path == "no/1 scan.png":
                raise PermissionError(path)
            return None if path == "no/2 scan.png" else JPEG + path.encode()

        monkeypatch.setattr(ranking, "_EXTRA", 2)
        data = replace(make_data([f"no/{index} scan.png" for index in range(200)]), gallery_scans=5)
        page = page_of(replace(data, looks=looks(thumbnail)))
        shown = sorted(int(path.split("/")[1].split()[0]) for path in asked)
        # Normals have odd numbers: the two highest of them, the two lowest anomalies, and two of all.
        assert shown[:5] == [0, 1, 2, 3, 4]
        assert {196, 198} <= set(shown)
        assert len(shown) == len(set(shown)) <= 5 + 2 + 2
        jpegs = [JPEG + f"no/{index} scan.png".encode() for index in shown if index not in (1, 2)]
        sources = [image["src"] for image in page.all("img") if "rank" in (image["alt"] or "")]
        assert sources == [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in jpegs]
        assert page.text.count("The file cannot be read any more") == 2
        assert "Shown are the first 5 of 200 scans" in page.text

    def test_a_warning_is_shown(self, page_of: Callable[[ReportData], Page]):
        page = page_of(one_normal_content(make_data()))
        assert "all normal scans show the same picture" in page.text
        assert "Warnings (1)" in page.text

    def test_a_shortcut_as_good_as_the_scorer_is_told(self, page_of: Callable[[ReportData], Page]):
        data = make_data()
        labels = [scan.label for scan in data.scans]
        widths = [200 if label is Label.ANOMALY else 100 for label in labels]
        page = page_of(replace(data, outline=outline_of(labels, width=widths)))
        assert "The scorer is not clearly better than the image width alone" in page.text
        assert "Image width alone separates the classes at least as well (1.000) as the scores (" in page.text
        assert "not clearly better" not in page_of(data).text

    def test_duplicates_across_labels_are_told(self, page_of: Callable[[ReportData], Page]):
        data = make_data(HOSTILE_NAMES[:6])
        outline = outline_of([scan.label for scan in data.scans])
        outline.hashes[[0, 1]] = outline.hashes[0]
        page = page_of(replace(data, outline=outline))
        assert "1 group with both labels" in page.text
        assert "near-identical, both labels" in page.text
        assert page.text.count(visible(HOSTILE_NAMES[0])) == 3  # in the ranking, the group and the warning

    def test_groups_have_metrics_and_a_file(self, tmp_path: Path):
        data = make_data()
        scans = [scan._replace(group=f"patient {number // 4}") for number, scan in enumerate(data.scans)]
        write_report(replace(data, scans=scans, groups_note="groups by hand"), tmp_path / "r")
        document = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
        header, *rows = read_csv(tmp_path / "r" / "groups.csv")
        assert header == ["group", "label", "scans", "score_max", "score_mean_top_3"]
        assert [row[:3] for row in rows] == [[f"patient {number}", "anomaly", "4"] for number in range(3)]
        assert (
            "3 groups of scans (groups by hand)" in Page((tmp_path / "r" / "report.html").read_text("utf-8")).text
        )

    def test_failures_are_counted_by_kind(self, page_of: Callable[[ReportData], Page]):
        kinds = ["empty", "truncated", "empty"]
        failures = [Failure(f"{number}.png", kind, "x") for number, kind in enumerate(kinds)]
        page = page_of(replace(make_data(), failures=failures))
        assert "3 scans could not be scored: 2 empty, 1 truncated." in page.text

    def test_long_lists_are_cut_and_say_so(self, page_of: Callable[[ReportData], Page]):
        ignored = [IgnoredFile(f"{index}.txt", "not an image") for index in range(1234)]
        failures = [Failure(f"{index}.png", "empty", "The file is empty.") for index in range(201)]
        page = page_of(replace(make_data(), ignored=ignored, failures=failures))
        assert "and 1,034 more in ignored.csv" in page.text
        assert "and 1 more in failures.csv" in page.text
        assert "199.txt" in page.text
        assert "200.txt" not in page.text


class TestMemory:
    def test_rows_pass_by(self, tmp_path: Path):
        """So many of them would take 12 MB more. None is kept but those that are shown."""
        rng = np.random.default_rng(0)
        scores = sorted(rng.random(30_000).tolist(), reverse=True)
        labels = (Label.NORMAL, Label.ANOMALY)

        def scans() -> Iterator[RankedScan]:
            for index, score in enumerate(scores):
                yield RankedScan(f"folder/{index} scan.png", labels[index % 2], score, score / 2, f"{index:064x}")

        ignored = (IgnoredFile(f"folder/{index} notes.txt", "not an image") for index in range(30_000))
        tracemalloc.start()
        data = replace(make_data(), scans=scans(), other_scores=scores[1::2], ignored=ignored)
        write_report(data, tmp_path / "r")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 13e6, peak
        assert (
            len(read_csv(tmp_path / "r" / "scores.csv")) == len(read_csv(tmp_path / "r" / "ignored.csv")) == 30_001
        )


class TestFolder:
    """Whatever happens, a folder is the old one or the new one, and nothing else is left beside it."""

    def test_parents_are_made_and_nothing_else_is_left(self, tmp_path: Path):
        write_report(make_data(), tmp_path / "a" / "b" / "r")
        assert is_report(tmp_path / "a" / "b" / "r")
        assert names_in(tmp_path / "a" / "b") == ["r"]

    def test_an_empty_folder_is_taken(self, tmp_path: Path):
        (tmp_path / "r").mkdir()
        write_report(make_data(), tmp_path / "r")
        assert is_report(tmp_path / "r")

    def test_a_report_is_replaced_and_what_a_person_put_there_stays(self, tmp_path: Path):
        write_report(make_data(), tmp_path / "r")
        (tmp_path / "r" / "notes.txt").write_text("mine")
        write_report(make_data(labelled=False), tmp_path / "r")
        assert not (tmp_path / "r" / "roc.png").exists()
        assert (tmp_path / "r" / "notes.txt").read_text() == "mine"
        assert names_in(tmp_path) == ["r"]

    def test_a_link_to_a_folder_stays_a_link(self, tmp_path: Path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        write_report(make_data(), tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert is_report(tmp_path / "real")

    @pytest.mark.parametrize("present", [["thesis.tex"], ["report.json"], ["scores.csv", "other"]])
    def test_a_folder_that_is_no_report_is_refused(self, tmp_path: Path, present: list[str]):
        (tmp_path / "r").mkdir()
        for name in present:
            (tmp_path / "r" / name).write_text("precious")
        with pytest.raises(ReportError, match="not a Scanomaly report: name a new or empty folder"):
            write_report(make_data(), tmp_path / "r")
        assert names_in(tmp_path / "r") == sorted(present)
        assert names_in(tmp_path) == ["r"]

    def test_a_file_is_refused(self, tmp_path: Path):
        (tmp_path / "r").write_text("precious")
        with pytest.raises(ReportError, match="is a file: name a folder"):
            write_report(make_data(), tmp_path / "r")

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ReportError, match=r"file/r cannot be written \(.+\): .+ --out") as caught:
            write_report(make_data(), tmp_path / "file" / "r")
        assert "\n" not in str(caught.value)

    def test_an_error_while_writing_leaves_the_old_report(self, tmp_path: Path):
        write_report(make_data(), tmp_path / "r")
        before = {file.name: file.read_bytes() for file in (tmp_path / "r").iterdir()}

        def broken() -> Iterator[RankedScan]:
            yield from make_data().scans
            raise ValueError("the store is gone")

        with pytest.raises(ValueError, match="the store is gone"):
            write_report(replace(make_data(), scans=broken()), tmp_path / "r")
        assert {file.name: file.read_bytes() for file in (tmp_path / "r").iterdir()} == before
        assert names_in(tmp_path) == ["r"]

    def test_what_appears_meanwhile_is_not_lost(self, tmp_path: Path):
        def write_while_someone_else_does() -> None:
            with whole_folder(tmp_path / "r") as staging:
                (staging / "report.json").write_text("{}")
                (tmp_path / "r").mkdir()
                (tmp_path / "r" / "thesis.tex").write_text("precious")

        with pytest.raises(ReportError, match="not a Scanomaly report"):
            write_while_someone_else_does()
        assert names_in(tmp_path) == ["r"]
        assert names_in(tmp_path / "r") == ["thesis.tex"]

    def test_the_old_report_comes_back_when_the_new_one_cannot_be_put_in_place(self, tmp_path: Path):
        write_report(make_data(), tmp_path / "r")

        def lose_the_new_one() -> None:
            with whole_folder(tmp_path / "r") as staging:
                staging.rmdir()

        with pytest.raises(ReportError, match="No such file"):
            lose_the_new_one()
        assert is_report(tmp_path / "r")
        assert names_in(tmp_path) == ["r"]

    @pytest.mark.parametrize("moment", ["writing", "between"])
    def test_what_a_killed_writer_left_is_put_in_order_by_the_next(self, tmp_path: Path, moment: str):
        write_report(make_data(), tmp_path / "r")
        (tmp_path / "r" / "mine.txt").write_text("keep")
        (tmp_path / "other").mkdir()
        done = subprocess.run([sys.executable, "-c", DIE, str(tmp_path / "r"), moment], check=False)
        assert done.returncode == 9
        assert names_in(tmp_path) != ["other", "r"]
        write_report(make_data(), tmp_path / "r")
        assert names_in(tmp_path) == ["other", "r"]
        assert (tmp_path / "r" / "mine.txt").read_text() == "keep"
