"""The Python client as somebody meets it in a notebook: on a store of its own, where no worker is."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanomaly.models.errors import JobNotFoundError, ScanomalyError, UsageError, WaitTimeoutError
from scanomaly.models.states import JobState, Priority
from scanomaly.producer import Client
from scanomaly.producer.remote import RemoteJobs, is_service_url

from ..acceptance.conftest import write_image

ENCODER = "efficientnet_lite0"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name in ("SCANOMALY_SERVER_URL", "SCANOMALY_STORE_URL", "SCANOMALY_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCANOMALY_HOME", str(tmp_path / "home"))
    with Client() as client:
        yield client


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("no/a.png", "no/b.png", "yes/c.png", "d.png"):
        write_image(tmp_path / "scans" / name)
    return tmp_path / "scans"


@pytest.mark.parametrize("scorers", ["knn", "knn,centroid", ["knn"], ("knn", "centroid")])
@pytest.mark.parametrize("name", ["scorers", "scorer"])
def test_scorers_are_one_text_or_several(client: Client, scans: Path, name: str, scorers: str | list[str]) -> None:
    status = client.submit(scans, encoder=ENCODER, **{name: scorers})  # type: ignore[arg-type]
    expected = scorers.split(",") if isinstance(scorers, str) else list(scorers)
    assert list(status.scorers) == expected


def test_one_folder_of_normals_is_one_text(client: Client, scans: Path, tmp_path: Path) -> None:
    status = client.submit(scans, encoder=ENCODER, normal="no/", anomaly="yes/", out=str(tmp_path / "report"))  # type: ignore[call-arg]
    assert (status.scans.normal, status.scans.anomaly, status.scans.unlabelled) == (2, 1, 1)


def test_the_command_lines_names_do(client: Client, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\nd.png,normal\n")
    status = client.submit(scans, encoder=ENCODER, labels=tmp_path / "labels.csv")  # type: ignore[call-arg]
    assert status.scans.normal == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scorrer": "knn"}, "there is no option 'scorrer' for a job (did you mean 'scorer'?)"),
        ({"batchsize": 3}, "did you mean 'batch_size'?"),
        ({"zzz": 3}, "there is no option 'zzz' for a job: normal, "),
        ({"scorer": "knn", "scorers": ["knn"]}, "are the same option"),
        ({"scorers": "kn"}, "unknown scorer 'kn' (did you mean 'knn'?)"),
        ({"scorers": ""}, "no scorer is named"),
        ({"priority": "urgent"}, "'urgent'"),
        ({"precision": "fp64"}, "fp64"),
        ({"plane": "top"}, "top"),
        ({"slices": "some"}, "some"),
        ({"false_alarm_rate": 5}, "5"),
        ({"batch_size": 0}, "0"),
    ],
)
def test_what_cannot_be_right_is_told(client: Client, scans: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as error:
        client.submit(scans, **{"encoder": ENCODER, **options})  # type: ignore[arg-type]
    assert words in str(error.value)
    assert list(client.jobs()) == []


def test_jobs_are_listed_by_the_names_of_their_states(client: Client, scans: Path) -> None:
    job = client.submit(scans, encoder=ENCODER).job
    assert [status.job for status in client.jobs("embedding")] == [job]
    assert [status.job for status in client.jobs(JobState.EMBEDDING, "done")] == [job]
    assert list(client.jobs("done")) == []
    with pytest.raises(UsageError, match=r"no state 'finnished' of jobs: embedding, paused"):
        client.jobs("finnished")  # at once, not when the first job is asked for
    with pytest.raises(UsageError, match="did you mean 'done'"):
        client.jobs("Don")


def test_waiting_for_what_no_worker_does_says_so(client: Client, scans: Path) -> None:
    job = client.submit(scans, encoder=ENCODER, priority="high")
    assert (job.priority, job.stage, job.stalled) == (Priority.HIGH, "waiting for a worker", True)
    with (
        pytest.warns(UserWarning, match="no worker is running: `scanomaly worker` starts one") as said,
        pytest.raises(WaitTimeoutError, match=r"still embedding after 0\.1 s; no worker is running"),
    ):
        client.wait(job.job, timeout=0.1)
    assert [Path(warning.filename).name for warning in said] == [Path(__file__).name]  # the caller's line
    client.cancel(job.job)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.wait(job.job).state == JobState.CANCELLED


def test_scoring_again_asks_for_something(client: Client, scans: Path) -> None:
    job = client.submit(scans, encoder=ENCODER).job
    with pytest.raises(UsageError, match="name scorers, or a headline"):
        client.score(job)
    with pytest.raises(ScanomalyError, match="only a done job"):
        client.score(job, "knn")
    with pytest.raises(JobNotFoundError):
        client.score("none", headline="knn")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:8321", "http://127.0.0.1:8321"),
        ("localhost:8321/", "http://localhost:8321"),
        ("scans.example:80/below", "http://scans.example:80/below"),
        ("[::1]:8321", "http://[::1]:8321"),
        ("HTTPS://scans.example", "HTTPS://scans.example"),
    ],
)
def test_a_service_is_known_by_its_machine_and_port(text: str, url: str) -> None:
    assert is_service_url(text)
    client = Client(text)
    assert isinstance(client._jobs, RemoteJobs)
    assert client._jobs._url == f"{url}/api/v1"


@pytest.mark.parametrize("text", ["/tmp/store.sqlite", "store.sqlite", "127.0.0.1", "localhost", ""])
def test_another_text_is_told_what_a_url_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:8321 nor of a store such as sqlite:"):
        Client(text)


@pytest.mark.parametrize("option", ["out", "follow_links"])
def test_a_service_decides_about_its_own_disk(option: str) -> None:
    with pytest.raises(UsageError, match="is not for a service"):
        Client("127.0.0.1:1").submit("/scans", **{option: "x"})  # type: ignore[arg-type]
