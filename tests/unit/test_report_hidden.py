"""Where paths are hidden, no file of the report has one, or a part of one."""

import base64
import csv
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from scanomaly.models.hiding import Hiding
from scanomaly.models.records import Failure, IgnoredFile, NamedScan
from scanomaly.worker.reporting.embedding_map import EmbeddingMap, MapPoint
from scanomaly.worker.reporting.report import Findings, ReportData, write_report

from .test_report import JPEG, SCHEMA, looks, make_data, outline_of, slices_of

FOLDER, FILE = "mrs-smith-folder", "smith-1957-file"
MARKS = (FOLDER, FILE, "smith", "1957")
KEY = "a key that only the submitter knows"


def marked(hiding: Hiding) -> ReportData:
    """A job in which whatever may hold a path does: two volumes, pictures, a duplicate with both labels, …"""
    names = [f"{FOLDER}/{FILE}-{volume}.nii/axial/{index}" for volume in "ab" for index in range(30)]
    data = make_data([*names, *(f"{FOLDER}/{FILE} {number}.png" for number in range(6))])
    scans = [
        scan._replace(volume=path, group=path) if "/axial/" in scan.path else scan._replace(group=FOLDER)
        for scan in data.scans
        for path in [scan.path.split("/axial/")[0]]
    ]
    named = [NamedScan(number, scan.path, scan.label, scan.sha256) for number, scan in enumerate(scans)]
    outline = outline_of([scan.label for scan in scans])
    outline.hashes[[0, 1]] = outline.hashes[0]
    note = f"by --normal {FOLDER}/*"
    return replace(
        data,
        source=f"/archive/{FOLDER}",
        root=f"/archive/{FOLDER}",
        source_note=note,
        labels_note=note,
        groups_note=note,
        scans=scans,
        outline=outline,
        named=lambda ids: [named[number] for number in ids],
        failures=[Failure(f"{FOLDER}/{FILE}.jpg", "missing", "The file is no longer there.")],
        ignored=[IgnoredFile(f"{FOLDER}/{FILE}.txt", "not an image by its ending")],
        looks=looks(lambda path: JPEG if FILE in path else None, named[-1], np.eye(9)),
        slices=lambda volumes: slices_of(scans, volumes),
        embedding_map=EmbeddingMap([MapPoint(scan, float(scan.id), 0.5) for scan in named], 0.5, len(named)),
        hiding=hiding,
    )


def texts(folder: Path) -> dict[str, str]:
    """All that can be read in the files of a report."""
    found = {}
    for file in folder.iterdir():
        content = file.read_bytes()
        found[file.name] = html.unescape(content.decode("utf-8", "replace"))
        pictures = re.findall(r'"data:[^;"]*;base64,([^"]*)"', found[file.name])
        found[file.name] += str([base64.b64decode(picture) for picture in pictures])
        if file.suffix == ".png":
            with Image.open(file) as image:
                found[file.name] += str(image.info)
        elif file.suffix == ".parquet":
            table = parquet.read_table(file)
            found[file.name] += str(table.to_pylist()) + str(table.schema.metadata)
            found[file.name] += str(parquet.ParquetFile(file).metadata.to_dict())
    return found


def leaks(folder: Path) -> set[str]:
    return {name for name, text in texts(folder).items() if any(mark in text.lower() for mark in MARKS)}


def spoken(findings: Findings) -> str:
    return str([findings.warnings, findings.most_anomalous, findings.volumes_listed])


def test_no_file_has_a_path(tmp_path: Path) -> None:
    findings = write_report(marked(Hiding(KEY)), tmp_path / "hidden")
    assert leaks(tmp_path / "hidden") == set()
    assert not any(mark in spoken(findings) for mark in MARKS)
    document = json.loads((tmp_path / "hidden" / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_search_finds_them_where_they_are_shown(tmp_path: Path) -> None:
    findings = write_report(marked(Hiding(None)), tmp_path / "shown")
    lists = {"scores.csv", "scores.parquet", "failures.csv", "ignored.csv", "duplicates.csv"}
    assert leaks(tmp_path / "shown") == lists | {"groups.csv", "volumes.csv", "report.html", "report.json"}
    assert all(mark in spoken(findings) for mark in MARKS)


@pytest.mark.parametrize(
    "leak",
    [
        {"encoder_key": FILE},
        {"failures": [Failure("a.png", "missing", f"{FILE} is gone.")]},
        {"looks": looks(lambda path: JPEG + path.encode())},
    ],
)
def test_the_search_finds_one_leak(tmp_path: Path, leak: dict[str, Any]) -> None:
    """Of what is written as it is."""
    write_report(replace(marked(Hiding(KEY)), **leak), tmp_path / "r")
    assert leaks(tmp_path / "r")


def test_ids_are_the_same_in_all_files(tmp_path: Path) -> None:
    hiding = Hiding(KEY)
    data = marked(hiding)
    write_report(data, tmp_path / "r")
    with open(tmp_path / "r" / "scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scans = list(data.scans)
    assert [row["path"] for row in rows] == [hiding.path(scan.path) for scan in scans]
    assert len({row["path"] for row in rows}) == len(rows)
    assert len({row["volume"] for row in rows}) == 3
    assert {row["volume"] for row in rows} == {
        "",
        *(hiding.name(scan.volume, "volume") for scan in scans if scan.volume),
    }
    found = texts(tmp_path / "r")
    for name in ("report.html", "duplicates.csv"):
        assert hiding.path(scans[0].path) in found[name]
    for name in ("report.html", "volumes.csv"):
        assert rows[0]["volume"] in found[name]
    assert hiding.path(f"{FOLDER}/{FILE}.jpg") in found["failures.csv"]
    assert hiding.path(f"{FOLDER}/{FILE}.txt") in found["ignored.csv"]
    document = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert document["job"]["root"] == hiding.place(data.root)
    assert hiding.path(scans[0].path) in document["warnings"][0]


def test_looks_are_asked_for_with_real_paths(tmp_path: Path) -> None:
    asked: list[str] = []
    data = marked(Hiding(KEY))
    write_report(replace(data, looks=looks(lambda path: asked.append(path) or JPEG)), tmp_path / "r")
    real = {scan.path for scan in data.scans}
    assert set(asked) == real
    assert len(asked) == len(real) + 2 * 24  # the strips' are smaller ones


def test_names_that_are_pseudonyms_stay() -> None:
    hiding = Hiding(KEY)
    for name in ("patient-0123456789ab", "series-abcdefabcdef"):
        assert hiding.name(name, "group") == name
    # Numbers alone may be a patient's, and a folder's name.
    for name in ("patient-012345678901", "patient-0123456789abc", "Patient-0123456789ab", "smith", "a/b.nii", ""):
        found = hiding.name(name, "group")
        assert found.startswith("group-")
        assert len(found) == len("group-") + 16
        assert Hiding(None).name(name, "group") == name


def test_a_scan_without_group_or_volume_has_none(tmp_path: Path) -> None:
    write_report(replace(make_data(), hiding=Hiding(KEY)), tmp_path / "r")
    with open(tmp_path / "r" / "scores.csv", encoding="utf-8", newline="") as file:
        assert {(row["group"], row["volume"]) for row in csv.DictReader(file)} == {("", "")}
    assert not (tmp_path / "r" / "groups.csv").exists()
