"""What becomes of an error in a task: the job has failed with its sentence, or the process ends."""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.records import FoundScan, NewJob, ScanResult
from scanomaly.models.settings import Settings
from scanomaly.models.states import JobState
from scanomaly.models.store import Store
from scanomaly.worker import tasks

JOB = "abcdef"


class EndedError(BaseException):
    """The process would have ended."""


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store.open(Settings(store_url=url))
    job = NewJob(JOB, ".", "/scans", "/reports", parse_encoder("efficientnet_lite0"), 1)
    store.submissions.add(job, [FoundScan("1.png")])
    yield store
    store.close()


@pytest.fixture
def process(store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A process whose work is what a test says, with a real store."""

    def end(code: int) -> None:
        raise EndedError(code)

    # What pytest-xdist keeps of a test's log it sends as UTF-8, which one of the messages is not.
    monkeypatch.setattr(tasks.logger, "disabled", True)
    monkeypatch.setenv("SCANOMALY_STORE_URL", url)
    monkeypatch.setenv("SCANOMALY_HOME", str(tmp_path))
    monkeypatch.setattr("scanomaly.worker.tasks.os._exit", end)
    tasks.open_process("/var/log/worker.log")
    monkeypatch.setattr(tasks._process, "embedder", embedder := SimpleNamespace())
    return embedder


def raising(error: BaseException) -> Callable[..., Any]:
    def work(*_: object) -> None:
        raise error

    return work


def begin_scoring(store: Store) -> None:
    (batch_id,) = store.batches.unfinished(JOB)
    batch = store.batches.begin(batch_id, "w1")
    assert batch is not None
    store.batches.finish(batch, [ScanResult(batch.scans[0].id, sha256="0" * 64)], {})
    assert store.begin_scoring(JOB)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no good\nat all"), "ValueError: no good at all"),
        (SystemExit("a library ends the program"), "SystemExit: a library ends the program"),
        (ImportError("libx.so: bytes \0 and \udcff"), "ImportError: libx.so: bytes and ?"),
        (RecursionError(), "RecursionError:"),
        (ValueError("x" * 10**6), "ValueError: xxx"),
    ],
    ids=["several lines", "end of the program", "not for a database", "without words", "long"],
)
def test_an_error_of_a_batch_is_the_jobs(
    store: Store, process: SimpleNamespace, error: BaseException, told: str
) -> None:
    process.embed = raising(error)
    tasks.embed.apply([1], throw=True)
    job = store.find_job(JOB)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert told in job.error
    assert job.error.startswith("internal error in the worker ")
    assert "/var/log/worker.log" in job.error
    assert "\n" not in job.error
    assert len(job.error) <= 2000


def test_a_batch_of_a_paused_job_fails_it_too(store: Store, process: SimpleNamespace) -> None:
    """Its worker lives, so that nobody would take the batch from it when the job is taken up again."""
    store.workers.beat("w1", "host", 1, "cpu", "1")
    assert store.batches.begin(1, "w1") is not None
    store.pause(JOB)
    process.embed = raising(ValueError("no good"))
    tasks.embed.apply([1], throw=True)
    assert store.find_job(JOB).state == JobState.FAILED
    assert store.progress(JOB).running == 0


def test_a_last_step_that_cannot_be_imported_is_told(
    store: Store, process: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_scoring(store)
    process.alone = nullcontext
    monkeypatch.setitem(sys.modules, "scanomaly.worker.aggregate", None)
    tasks.aggregate.apply([JOB], throw=True)
    job = store.find_job(JOB)
    assert job.state == JobState.FAILED
    assert "ModuleNotFoundError: import of scanomaly.worker.aggregate halted" in str(job.error)


def test_an_error_that_cannot_be_stored_ends_the_process(
    store: Store, process: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.embed = raising(ValueError("no good"))
    monkeypatch.setattr(tasks._process.store, "fail_job", raising(LookupError("no such column")))
    with pytest.raises(EndedError, match="70"):
        tasks.embed.apply([1], throw=True)


@pytest.mark.parametrize("batch_id", ["x", None, -1, 2**70, {"a": 1}, True])
def test_a_call_that_nobody_sends_ends_nothing(store: Store, process: SimpleNamespace, batch_id: object) -> None:
    process.embed = raising(AssertionError("it was taken for a batch"))
    tasks.embed.apply([batch_id])
    tasks.aggregate.apply([batch_id])
    assert store.find_job(JOB).state == JobState.EMBEDDING
