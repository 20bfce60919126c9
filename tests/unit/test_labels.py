"""Labels: by patterns, by file, by folder."""

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanomaly.models.errors import UsageError
from scanomaly.models.states import Label
from scanomaly.producer.discover.folders import Folder
from scanomaly.producer.groups import Groups
from scanomaly.producer.labels import make_labels
from tests.sources import scans_of

NORMAL, ANOMALY = Label.NORMAL, Label.ANOMALY


@pytest.fixture
def found(tmp_path: Path) -> Folder:
    for name in ("one/a1.png", "one/a2.png", "two/deep/b1.png", "two/b2.png", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return Folder(tmp_path)


def label_all(source: Folder, **rules: Any) -> tuple[dict[str, Label | None], str]:
    """The labels of all scans, and how they got them."""
    labels = make_labels(source.root, **rules)
    found = {scan.path: labels.label(scan.path) for scan in scans_of(source).walk() if scan.reason is None}
    labels.check(list(found.values()).count(NORMAL), len(found))
    return found, labels.note


def labels_of(source: Folder, **rules: Any) -> dict[str, Label | None]:
    return label_all(source, **rules)[0]


@pytest.mark.parametrize("pattern", ["two", "two/", "./two", "two/*", "b*.png", "*/b[12].png"])
def test_a_glob_or_a_subfolder(found: Folder, pattern: str) -> None:
    labels = labels_of(found, normal=["one/"], anomaly=[pattern])
    expected = {"one/a1.png": NORMAL, "one/a2.png": NORMAL, "c.png": None}
    assert labels == expected | {"two/b2.png": ANOMALY, "two/deep/b1.png": ANOMALY}


def test_a_folder_as_the_shell_completes_it(found: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(found.root).parent)
    labels = labels_of(found, normal=[f"{Path(found.root).name}/one/"])
    assert labels["one/a1.png"] == NORMAL
    assert labels["c.png"] is None


def test_rules_add_up(found: Folder) -> None:
    labels = labels_of(found, normal=["one", "c.png"])
    assert [path for path, label in labels.items() if label == NORMAL] == ["c.png", "one/a1.png", "one/a2.png"]


def test_rules_that_cannot_be_right(found: Folder) -> None:
    with pytest.raises(UsageError, match=r"--normal three matches none of the 5 images"):
        labels_of(found, normal=["three"])
    with pytest.raises(UsageError, match=r"one/a1\.png is normal by --normal and an anomaly by --anomaly"):
        labels_of(found, normal=["one"], anomaly=["a1.png"])
    with pytest.raises(UsageError, match="none of the 5 images is known to be normal: name them with --normal"):
        labels_of(found)
    with pytest.raises(UsageError, match="exclude each other"):
        labels_of(found, normal=["one"], labels_file=Path("x.csv"))


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("no", NORMAL),
        ("Normal", NORMAL),
        ("GOOD", NORMAL),
        ("healthy", NORMAL),
        ("yes", ANOMALY),
        ("tumor", ANOMALY),
        ("Tumour", ANOMALY),
        ("anomaly", ANOMALY),
        ("abnormal", ANOMALY),
        ("bad", ANOMALY),
        ("not", None),
        ("NORMAL", NORMAL),
        ("notumor", NORMAL),
        ("No_Tumor", NORMAL),
        ("no tumour", NORMAL),
        ("non-tumor", NORMAL),
        ("NoFinding", NORMAL),
        ("defect-free", NORMAL),
        ("Normal cases", NORMAL),
        ("0_normal", NORMAL),
        ("healthy_controls", NORMAL),
        ("Uninfected", NORMAL),
        ("NonDemented", NORMAL),
        ("ABNORMAL", ANOMALY),
        ("abnormal_images", ANOMALY),
        ("Ungood", ANOMALY),
        ("unhealthy", ANOMALY),
        ("not normal", ANOMALY),
        ("defects", ANOMALY),
        ("paranormal", None),
        ("normalized", None),
        ("subnormal", None),
        ("goods", None),
        ("no_1", None),
        ("No. 12", None),
        ("no images", None),
        ("nodule", None),
        ("noise", None),
        ("pathology", None),
        ("tumor_dataset", None),
    ],
)
def test_folders_with_known_names(tmp_path: Path, folder: str, label: Label | None) -> None:
    names = (f"{folder}/x.png", f"site/{folder}/p1/t1/x.png", "normal/n.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    labels, note = label_all(Folder(tmp_path))
    assert [labels[name] for name in names[:2]] == [label, label]
    assert ("as anomaly" in note) == (label == ANOMALY)


def test_the_nearest_known_folder_decides(tmp_path: Path) -> None:
    for name in ("yes/no/a.png", "no/yes/b.png", "no/p1/c.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    assert labels_of(Folder(tmp_path)) == {
        "yes/no/a.png": NORMAL,
        "no/yes/b.png": ANOMALY,
        "no/p1/c.png": NORMAL,
    }


def test_a_csv_file(found: Folder, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"\ufeffpath,label,age\none/a1.png,normal,3\n{found.root}/two/b2.png,Tumor,4\nc.png,,5\n")
    assert labels_of(found, labels_file=file) == {
        "one/a1.png": NORMAL,
        "two/b2.png": ANOMALY,
        "c.png": None,
        "one/a2.png": None,
        "two/deep/b1.png": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,label\na,normal\n", "must name the columns path,label; it is 'who,label'"),
        ("one/a1.png,normal\n", "its first line must name the columns path,label; it is 'one/a1.png,normal'"),
        ("path;label\n\n;;\n;normal\n", "line 4: a label, 'normal', without a path"),
        ('path,label\n"one/a1.png,normal\none/a2.png,normal\n', "line 3: not a CSV file"),
        ('path,label\n"one"/a1.png,normal\n', "line 2: not a CSV file"),
        ("path,label\none/a,1.png,normal\n", "line 2: unknown label '1.png'"),
        ("path,label\nC:\\scans\\one\\a1.png,normal\n", "line 2: C:/scans/one/a1.png is none of the 5 images"),
        ("PK\x03\x04", "save its sheet as CSV"),
        ("path,label\none/a1.png,maybe\n", "line 2: unknown label 'maybe'"),
        ("path,label\none/zz.png,normal\n", "line 2: one/zz.png is none of the 5 images"),
        ("path,label\none/a1.png,normal\none/a1.png,bad\n", "line 3: one/a1.png has another label"),
        ("path,label\none/a1.png\n", "known to be normal"),
        ("", "must name the columns"),
    ],
)
def test_a_csv_file_that_cannot_be_right(found: Folder, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        labels_of(found, labels_file=file)


TABLE = [
    ["path", "label", "age"],
    ["one/a1.png", "normal", "3"],
    ["two/ü, é.png", "Tumor", ""],
    ["c.png", "", "5"],
]
LABELS_OF_TABLE = {"one/a1.png": NORMAL, "two/ü, é.png": ANOMALY, "c.png": None}


def written(rows: list[list[str]], end: str = "\n", **options: Any) -> str:
    """As Python's module writes it, which is not what reads it here with other options."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator=end, **options).writerows(rows)
    return stream.getvalue()


def changed(place: int, change: Callable[[str], str], rows: list[list[str]]) -> list[list[str]]:
    """A table with another column."""
    return [[change(field) if place == index else field for index, field in enumerate(row)] for row in rows]


WRITINGS: dict[str, bytes] = {
    "as it is": written(TABLE).encode(),
    "semicolons": written(TABLE, delimiter=";").encode(),
    "tabs": written(TABLE, delimiter="\t").encode(),
    "bars": written(TABLE, delimiter="|").encode(),
    "what Excel is told": ("sep=;\r\n" + written(TABLE, "\r\n", delimiter=";")).encode("cp1252"),
    "a mark": written(TABLE).encode("utf-8-sig"),
    "a mark and quotes": written(TABLE, quoting=csv.QUOTE_ALL).encode("utf-8-sig"),
    "Windows' ends of lines": written(TABLE, "\r\n").encode(),
    "an old Mac's ends of lines": written(TABLE, "\r").encode(),
    "UTF-16": written(TABLE).encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + written(TABLE, delimiter="\t").encode("utf-16-be"),
    "UTF-16 without a mark": written(TABLE).encode("utf-16-le"),
    "UTF-32": written(TABLE).encode("utf-32"),
    "code page 1252": written(TABLE, delimiter=";").encode("cp1252"),
    "letters of macOS": written([[unicodedata.normalize("NFD", field) for field in row] for row in TABLE]).encode(),
    "rows of a spreadsheet": (",,\n" + written([*TABLE[:2], ["", "", ""], *TABLE[2:]]) + ",,\n , ,\n\n").encode(),
    "rows that are wider": written([[*row, "", ""] for row in TABLE]).encode(),
    "other columns first": written([row[::-1] for row in TABLE]).encode(),
    "spaces": written(changed(0, lambda field: f" {field} ", TABLE)).encode(),
    "capital letters": written([[*TABLE[0]], *changed(1, str.upper, TABLE[1:])]).encode(),
    "names of columns": written([["Image Path", "CLASS", "age"], *TABLE[1:]]).encode(),
    "more names of columns": written(
        [["age", "file_name", "Label "], *([c, a, b] for a, b, c in TABLE[1:])]
    ).encode(),
    "dots": written([TABLE[0], *changed(0, lambda field: f".//x/../{field}", TABLE[1:])]).encode(),
    "backslashes": written(changed(0, lambda field: field.replace("/", "\\"), TABLE)).encode(),
}


@pytest.fixture
def tables(tmp_path: Path) -> Folder:
    for name in LABELS_OF_TABLE:
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"x")
    return Folder(tmp_path / "root")


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_csv_file_however_it_is_written(tables: Folder, tmp_path: Path, writing: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(WRITINGS[writing])
    assert labels_of(tables, labels_file=file) == LABELS_OF_TABLE
    groups = Groups(tables.root, "AGE", file)
    assert [groups.group(path) for path in LABELS_OF_TABLE] == ["3", None, "5"]


def test_absolute_paths_of_a_csv_file_also_behind_a_link(tables: Folder, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to("root")
    file = tmp_path / "labels.csv"
    for root in (tables.root, str(tmp_path / "alias")):
        file.write_text(written([TABLE[0], *changed(0, lambda field, root=root: f"{root}/{field}", TABLE[1:])]))
        assert labels_of(Folder(tmp_path / "alias"), labels_file=file) == LABELS_OF_TABLE


def test_a_csv_file_for_a_bucket(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label\ns3://b/scans/no/1.png,normal\nno/2.png,normal\n")
    labels = make_labels("s3://b/scans", labels_file=file)
    assert [labels.label(path) for path in ("no/1.png", "no/2.png", "no/3.png")] == [NORMAL, NORMAL, None]


def test_names_and_files_that_other_systems_write_otherwise(tmp_path: Path) -> None:
    """A file whose name holds a backslash, or letters that are taken apart."""
    for name in ("no\\1.png", unicodedata.normalize("NFD", "ü.png")):
        (tmp_path / name).write_bytes(b"x")
    file = tmp_path / "labels.csv"
    file.write_text("path,label\nno\\1.png,normal\nü.png,bad\n", encoding="utf-8")
    assert sorted(map(str, labels_of(Folder(tmp_path), labels_file=file).values())) == ["anomaly", "normal"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("good", {"good/1.png", "bottle/train/good/1.png", "bottle/test/good/1.png", "a.zip/good/1.png"}),
        ("good/", {"good/1.png", "bottle/train/good/1.png", "bottle/test/good/1.png", "a.zip/good/1.png"}),
        ("./good", {"good/1.png"}),
        ("train/good", {"bottle/train/good/1.png"}),
        ("bottle/test/good", {"bottle/test/good/1.png"}),
        ("*/test/good/", {"bottle/test/good/1.png"}),
        ("./bottle", {"bottle/train/good/1.png", "bottle/test/good/1.png", "bottle/test/goods/1.png"}),
        ("good/*", {"good/1.png"}),
        ("goods", {"bottle/test/goods/1.png"}),
        ("./a.zip/good", {"a.zip/good/1.png"}),
    ],
)
@pytest.mark.parametrize("here", [".", "bottle"])
def test_a_folder_of_that_name_at_any_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: set[str], here: str
) -> None:
    paths = ["good/1.png", "bottle/train/good/1.png", "bottle/test/good/1.png", "bottle/test/goods/1.png"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / here)
    labels = make_labels(str(tmp_path), normal=[pattern])
    assert {
        path for path in [*paths, "a.zip/good/1.png", "x/good.png", "x/train/goo"] if labels.label(path)
    } == expected
