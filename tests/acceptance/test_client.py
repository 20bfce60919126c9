"""Other programs: the Python client and the commands, through the store and through the service; and curl."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanomaly.models.errors import (
    JobNotFoundError,
    JobStateError,
    KeyReusedError,
    NotAllowedError,
    ScanomalyError,
    ServiceUnreachableError,
    UsageError,
    WaitTimeoutError,
)
from scanomaly.models.records import ScanFilter
from scanomaly.models.states import FailureKind, JobState, Label, ScanState
from scanomaly.producer import Client

from ..waiting import HANGS
from .conftest import OFFLINE, Scanomaly, check_schema

README = Path(__file__).parents[2] / "README.md"
ENCODER = OFFLINE[1]


@pytest.fixture(scope="module")
def url(served: Scanomaly, drawn: Path) -> Iterator[str]:
    """A service beside a worker that is running."""
    with served.serving("--root", drawn.parent) as url:
        yield url


@pytest.fixture(params=["store", "service"])
def client(
    request: pytest.FixtureRequest, served: Scanomaly, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """The same client, on either way to the jobs."""
    monkeypatch.setenv("SCANOMALY_HOME", str(served.home))
    with Client(url if request.param == "service" else f"sqlite:///{served.home}/store.sqlite") as client:
        yield client


def rows_of(report: str) -> list[dict[str, str]]:
    with open(Path(report) / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_program_submits_waits_and_reads_the_scores(client: Client, scans: Path, drawn: Path) -> None:
    submitted = client.submit(
        str(drawn), encoder=ENCODER, scorers=["centroid", "knn"], normal=["no/"], anomaly=["yes/"]
    )
    assert (submitted.state, submitted.scans.total) == (JobState.EMBEDDING, 24)
    status = client.wait(submitted.job, timeout=HANGS)
    assert (status.state, status.exit_code, status.scans.embedded) == (JobState.DONE, 0, 24)
    assert status == client.status(submitted.job[:6])
    assert submitted.job in [job.job for job in client.jobs(JobState.DONE)]
    assert submitted.job not in [job.job for job in client.jobs(JobState.FAILED)]

    scores = list(client.scores(submitted.job))
    assert status.report is not None
    written = rows_of(status.report)
    assert [(scan.path, scan.score) for scan in scores] == [(row["path"], float(row["score"])) for row in written]
    assert scores[0].label == Label.ANOMALY
    assert [scan.score for scan in client.scores(submitted.job, "knn")] != [scan.score for scan in scores]
    normal = ScanFilter(label=Label.NORMAL, state=ScanState.EMBEDDED)
    assert len(list(client.scans(submitted.job, normal))) == 12
    with pytest.raises(UsageError, match="no scores of 'mahalanobis'"):
        list(client.scores(submitted.job, "mahalanobis"))


def test_a_done_job_gets_more_scorers_from_the_workers(client: Client, drawn: Path) -> None:
    job = client.wait(client.submit(str(drawn), encoder=ENCODER).job, timeout=HANGS)
    again = client.score(job.job, ["mahalanobis"], headline="mahalanobis")
    assert again.scorers == ("mahalanobis", "centroid")
    # A worker may be done with it before it is looked at.
    assert (again.finished_at is None) == (again.state == JobState.SCORING)
    status = client.wait(job.job, timeout=HANGS)
    assert status.state == JobState.DONE
    assert status.result is not None
    assert job.finished_at is not None
    assert list(status.result["scorers"]) == ["mahalanobis", "centroid"]
    took = (job.finished_at - job.created_at).total_seconds()
    assert status.result["timings"]["total_seconds"] == pytest.approx(took, abs=0.002)
    assert status.report is not None
    assert [float(row["score"]) for row in rows_of(status.report)] == [
        scan.score for scan in client.scores(job.job)
    ]
    with pytest.raises(UsageError, match="unknown scorer 'nonsense'"):
        client.score(job.job, ["nonsense"])
    with pytest.raises(JobStateError, match="has no patches"):
        client.score(job.job, ["patch_knn"])


def test_errors_are_the_same_on_both_ways(client: Client, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(JobNotFoundError, match="there is no job 'none'"):
        client.status("none")
    with pytest.raises(UsageError, match="unknown encoder 'ViT-X'"):
        client.submit(str(drawn), encoder="ViT-X")
    with pytest.raises(UsageError, match="--normal x/ matches none"):
        client.submit(str(drawn), encoder=ENCODER, normal=["x/"])
    job = client.submit(str(drawn), encoder=ENCODER).job
    client.wait(job, timeout=HANGS)
    with pytest.raises(JobStateError, match="there is nothing to cancel"):
        client.cancel(job)
    with pytest.raises(JobStateError, match="there is nothing to retry"):
        client.retry(job)


def test_a_job_is_steered(client: Client, home: Path, drawn: Path) -> None:
    job = client.submit(str(drawn), encoder=ENCODER, batch_size=1).job
    assert client.pause(job).state == JobState.PAUSED
    with pytest.raises(WaitTimeoutError, match="is still paused"):
        client.wait(job, timeout=0.1)
    assert client.resume(job).state in (JobState.EMBEDDING, JobState.SCORING, JobState.DONE)
    assert client.cancel(job).state == JobState.CANCELLED
    assert client.wait(job).exit_code == 5
    assert any(worker.alive for worker in client.workers())


def test_a_submission_that_is_repeated_makes_no_second_job(client: Client, drawn: Path) -> None:
    key = f"key of {client}"
    first = client.submit(str(drawn), key=key.replace(" ", "-"), encoder=ENCODER)
    again = client.submit(str(drawn), key=key.replace(" ", "-"), encoder=ENCODER)
    assert again.job == first.job
    with pytest.raises(KeyReusedError):
        client.submit(str(drawn), key=key.replace(" ", "-"), encoder=ENCODER, rehash=True)


def test_failed_scans_are_listed_with_their_reasons(client: Client, served: Scanomaly, drawn: Path) -> None:
    folder = drawn.parent / "damaged"
    (folder / "no").mkdir(parents=True, exist_ok=True)
    (folder / "no" / "empty.png").touch()
    (folder / "no" / "whole.png").write_bytes(next((drawn / "no").iterdir()).read_bytes())
    status = client.wait(client.submit(str(folder), encoder=ENCODER).job, timeout=HANGS)
    assert status.exit_code == 3
    (failed,) = client.scans(status.job, ScanFilter(state=ScanState.FAILED))
    assert (failed.path, failed.failure, failed.score) == ("no/empty.png", FailureKind.EMPTY, None)
    assert failed.failure_detail
    # By its batches, not by its state: a worker may have read the empty file again before the answer is made.
    assert client.retry(status.job).batches.total == status.batches.total + 1


def test_the_commands_ask_the_service(served: Scanomaly, home: Path, url: str, drawn: Path) -> None:
    away = Scanomaly(home, SCANOMALY_SERVER_URL=url)  # it has neither store nor broker nor worker
    job = away("submit", drawn, *OFFLINE).stdout.strip()
    watched = away.json("watch", job)
    check_schema(watched, "status")
    assert watched["state"] == "done"
    assert away.json("status", job) == served.look("status", job)
    assert away.json("jobs", "--limit", "1")["jobs"] == [watched]
    assert "alive" in away("workers").stdout
    assert "there is nothing to cancel" in away("cancel", job, code=1).stderr
    scored = away.json("score", job, "--scorer", "knn", "--headline", "knn")
    assert scored["scorers"] == ["knn", "centroid"]
    assert away.json("score", job, "--headline", "centroid")["scorers"] == ["centroid", "knn"]
    fetched = Path(away("report", job).stdout.strip())
    assert fetched == home / "reports" / job
    theirs = Path(served.look("report", job)["report"])
    for name in (file.name for file in theirs.iterdir()):
        assert (fetched / name).read_bytes() == (theirs / name).read_bytes()
    (home / "mine").mkdir()
    (home / "mine" / "notes.txt").touch()
    assert "not a Scanomaly report" in away("report", job, "--out", home / "mine", code=1).stderr
    assert "there is no job" in away("report", "none", code=1).stderr
    assert "gives out no embeddings" in away("export", job, "--vectors", "npy", code=2).stderr
    assert "is not for the service" in away("submit", drawn, "--out", home / "x", code=2).stderr
    assert "name the paused job" in away("resume", code=2).stderr
    assert not (home / "store.sqlite").exists()


def test_a_service_that_is_not_there_or_not_ours_is_told(home: Path, url: str) -> None:
    user = Scanomaly(home)
    gone = user("status", "x", "--server", "http://127.0.0.1:1", code=69).stderr
    assert gone.startswith("scanomaly: the service http://127.0.0.1:1 cannot be reached (Connection refused)")
    assert "is not the URL of a service" in user("status", "x", "--server", "nonsense", code=2).stderr
    with pytest.raises(ServiceUnreachableError):
        Client("http://127.0.0.1:1").status("x")
    with pytest.raises(ScanomalyError, match="there is nothing at /elsewhere"):
        Client(f"{url}/elsewhere").status("x")


def test_a_client_without_a_token_is_told_so(
    served: Scanomaly, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {"SCANOMALY_API_TOKEN": "0123456789abcdefghij", "SCANOMALY_API_READ_TOKEN": "abcdefghij0123456789"}
    guarded = Scanomaly(served.home, **tokens)
    monkeypatch.setenv("SCANOMALY_API_TOKEN", "")
    with guarded.serving("--root", drawn.parent) as url:
        with pytest.raises(NotAllowedError, match="a token is needed"):
            next(iter(Client(url).jobs()), None)
        reader = Client(url, token="abcdefghij0123456789")
        job = Client(url, token="0123456789abcdefghij").submit(str(drawn), encoder=ENCODER).job
        assert reader.wait(job, timeout=HANGS).state == JobState.DONE
        with pytest.raises(NotAllowedError, match="may only look"):
            reader.cancel(job)


def test_the_client_needs_no_torch(url: str) -> None:
    code = (
        "import sys; from scanomaly.producer import Client; "
        f"list(Client({url!r}).jobs()); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_script_of_the_readme_submits_polls_and_fetches_the_scores(
    served: Scanomaly, url: str, drawn: Path, tmp_path: Path
) -> None:
    (script,) = re.findall(r"^```sh\n(#!/bin/sh.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(script.splitlines()) <= 10
    done = subprocess.run(
        ["sh", "-e", "-c", script, "scores.sh", str(drawn)],
        env=os.environ | {"SCANOMALY_SERVER_URL": url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"job \w+ is done\n", done.stdout)
    job = done.stdout.split()[1]
    report = served.look("status", job)["report"]
    assert (tmp_path / "scores.csv").read_bytes() == (Path(report) / "scores.csv").read_bytes()


def test_the_commands_json_is_the_services(served: Scanomaly, url: str, drawn: Path) -> None:
    job = served.job(drawn, *OFFLINE)["job"]
    got = subprocess.run(["curl", "-sS", f"{url}/api/v1/jobs/{job}"], capture_output=True, check=True).stdout
    assert json.loads(got) == served.look("status", job)
