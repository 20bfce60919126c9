"""Scans as hospitals have them: one folder of everything, one job, one report, and nothing of the headers in it."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import parquet

from scanomaly.producer.sample import draw_sample
from tests.hospital import MARKS, mixed_folder

from .conftest import OFFLINE, Scanomaly, check_schema


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    draw_sample(tmp_path / "drawn", normals=16, anomalies=8)
    normal, anomaly = (sorted((tmp_path / "drawn" / label).iterdir()) for label in ("no", "yes"))
    mixed_folder(tmp_path / "mixed", normal, anomaly)
    return tmp_path / "mixed"


@pytest.fixture
def bucket(mixed: Path) -> Iterator[dict[str, str]]:
    """The mixed folder in a bucket of a server of S3's protocol; yields the variables that name the server."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="MARKKEY",
        aws_secret_access_key="MARKSECRET",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="scans")
    for file in mixed.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), "scans", f"mixed/{file.relative_to(mixed).as_posix()}")
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "MARKKEY",
        "AWS_SECRET_ACCESS_KEY": "MARKSECRET",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


def rows(report: Path, name: str) -> list[dict[str, str]]:
    with open(report / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_mixed(report: Path) -> dict[str, tuple[str, str, str]]:
    """What every report of the mixed folder says. Returns label, group and volume by path."""
    found = {row["path"]: (row["label"], row["group"], row["volume"]) for row in rows(report, "scores")}
    assert len(found) == 24
    assert rows(report, "failures") == []
    skipped = [row for row in rows(report, "ignored") if "empty" in row["reason"]]
    assert len(skipped) == 2
    volumes = {row["volume"]: (row["label"], row["scans"]) for row in rows(report, "volumes")}
    assert sorted(volumes.values()) == [("anomaly", "4"), ("normal", "4"), ("normal", "4")]
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    check_schema(document, "report")
    assert document["counts"]["skipped"] == 2
    return found


def check_nothing_leaked(folders: list[Path], marks: tuple[str, ...]) -> None:
    """No file below the folders holds one of the marks, whatever the letters' size."""
    wanted = [mark.lower().encode() for mark in marks]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes().lower()
        assert not [mark for mark in wanted if mark in content], file


def test_a_mixed_folder_is_one_job_with_one_report(served: Scanomaly, mixed: Path, tmp_path: Path) -> None:
    job = served("submit", mixed, *OFFLINE, "--out", tmp_path / "report").stdout.strip()
    assert "2 empty slices skipped" in served("watch", job).stdout
    found = check_mixed(tmp_path / "report")
    patients = {path: group for path, (_, group, _) in found.items() if "series/" in path}
    assert len(set(patients.values())) == 2
    assert all(re.fullmatch("patient-[0-9a-f]{12}", name) for name in patients.values())
    brain = {path: names for path, names in found.items() if "brain" in path}
    assert brain == {
        f"no/brain.nii.gz/axial/{number}": ("normal", "no/brain.nii.gz", "no/brain.nii.gz")
        for number in range(1, 5)
    }
    assert sum(path.startswith("more.zip/no/") and names[0] == "normal" for path, names in found.items()) == 4
    check_nothing_leaked([served.home, tmp_path / "report"], MARKS)
    again = served.job(mixed, *OFFLINE, "--slices", "middle:2", "--out", tmp_path / "again")
    assert again["scans"]["total"] == 22
    assert again["result"]["timings"]["scans_encoded"] == 0, "the same frames are encoded once"


def test_hidden_paths_are_nowhere_but_in_the_store(served: Scanomaly, mixed: Path, tmp_path: Path) -> None:
    marked = mixed.rename(tmp_path / "MARKFOLDER")
    (marked / "no" / "brain.nii.gz").rename(marked / "no" / "MARKFILE.nii.gz")
    report = tmp_path / "report"
    job = served.job(marked, *OFFLINE, "--hide-paths", "--out", report)
    check_mixed(report)
    check_nothing_leaked([report], (*MARKS, "MARKFOLDER", "MARKFILE", "more.zip"))
    assert not re.search("MARKF|more.zip", json.dumps(job))
    served("export", job["job"], "--vectors", "parquet", "--out", tmp_path / "vectors")
    table = parquet.read_table(tmp_path / "vectors" / "vectors.parquet")
    assert not re.search("MARKF|more.zip", f"{table['image_path'].to_pylist()} {table.schema.metadata}")
    with served.serving() as url, urlopen(f"{url}/api/v1/jobs/{job['job']}/scans") as answer:
        listed = json.load(answer)["scans"]
        assert len(listed) == 26
        assert not re.search("MARKF|more.zip", json.dumps(listed))
    newest = served("jobs", "--limit", "1").stdout
    assert job["job"] in newest
    assert not re.search("MARKF|more.zip", newest + served("status", job["job"]).stdout)


def test_a_bucket_is_as_good_as_a_folder(
    home: Path, served: Scanomaly, mixed: Path, bucket: dict[str, str], tmp_path: Path
) -> None:
    there = Scanomaly(home, **bucket)
    there("run", "s3://scans/mixed", *OFFLINE, "--out", tmp_path / "there")
    remote = check_mixed(tmp_path / "there")
    served.job(mixed, *OFFLINE, "--out", tmp_path / "here")
    scores = [
        {row["path"]: float(row["score"]) for row in rows(tmp_path / folder, "scores")}
        for folder in ("here", "there")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)  # other batches round otherwise
    assert {names[0] for names in remote.values()} == {"normal", "anomaly"}
    check_nothing_leaked([home, tmp_path / "there"], (*MARKS, "MARKKEY", "MARKSECRET"))
