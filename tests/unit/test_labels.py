"""Labels: by patterns, by file, by folder."""

from pathlib import Path
from typing import Any

import pytest

from scanomaly.models.errors import UsageError
from scanomaly.models.states import Label
from scanomaly.producer.discover.folders import Folder
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
    ],
)
def test_folders_with_known_names(tmp_path: Path, folder: str, label: Label | None) -> None:
    for name in (f"{folder}/x.png", "normal/n.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    labels, note = label_all(Folder(tmp_path))
    assert labels[f"{folder}/x.png"] == label
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
        ("file,label\na,normal\n", "must name the columns path,label"),
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


def test_a_csv_file_in_another_encoding(found: Folder, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("path,label\nü.png,normal\n".encode("utf-16"))
    with pytest.raises(UsageError, match="not a CSV file in UTF-8"):
        labels_of(found, labels_file=file)
