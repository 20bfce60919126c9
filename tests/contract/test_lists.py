"""What other programs look at, on both databases: pages of jobs and scans, sums, submissions that are repeated."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import AlreadySubmittedError, JobNotFoundError, JobStateError
from scanomaly.models.lists import BATCH_SECONDS
from scanomaly.models.records import (
    FoundScan,
    JobFilter,
    ListedScan,
    NewJob,
    Place,
    ScanFilter,
    ScanResult,
    ScorePage,
    SubmissionKey,
)
from scanomaly.models.states import FailureKind, JobState, Label, ScanState
from scanomaly.models.store import Store

from .test_store import new

OFFLINE = parse_encoder("efficientnet_lite0")
LABELS = (Label.NORMAL, Label.NORMAL, Label.ANOMALY, None, None)
SCORES = (0.1, 0.2, 0.4, 0.2)
"""Of the first four scans; the fifth fails."""


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def add(
    store: Store, job_id: str, scans: int = 5, source: str = "/scans", key: SubmissionKey | None = None
) -> NewJob:
    job = NewJob(job_id, source, source, f"/reports/{job_id}", OFFLINE, batch_size=2, key=key)
    found = [FoundScan(f"{number}.png", LABELS[number % 5]) for number in range(scans)]
    store.submissions.add(job, found)
    return job


def embed(store: Store, job_id: str, failing: tuple[str, ...] = ("4.png",)) -> None:
    for batch_id in store.batches.unfinished(job_id):
        batch = store.batches.begin(batch_id, "w1")
        assert batch is not None
        results = [
            ScanResult(scan.id, failure=FailureKind.EMPTY, detail="it has no bytes")
            if scan.path in failing
            else ScanResult(scan.id, sha256=f"{scan.id:064d}")
            for scan in batch.scans
        ]
        store.batches.finish(batch, results, new({r.sha256: b"1234" for r in results if r.sha256}))


@pytest.fixture
def scored(store: Store) -> Store:
    """A done job of five scans."""
    add(store, "other")
    add(store, "scored")
    embed(store, "scored")
    ids = [scan.id for scan in store.lists.scans("scored", "centroid") if scan.state == ScanState.EMBEDDED]
    for scorer, sign in (("centroid", 1), ("knn", -1)):
        store.scores.save(scorer, [ScorePage(ids, [sign * score for score in SCORES], SCORES)])
    assert store.begin_scoring("scored")
    assert store.begin_aggregate("scored", "w1", 3) is not None
    assert store.finish_job("scored", {"auroc": 0.5})
    return store


def names(scans: list[ListedScan]) -> list[str]:
    return [scan.path.removesuffix(".png") for scan in scans]


def test_jobs_come_in_pages_the_newest_first(store: Store) -> None:
    ids = [f"job{number}" for number in range(7)]
    for job_id in ids:
        add(store, job_id, source=f"/data/{job_id}_100%")
    store.cancel("job3")
    assert [job.id for job in store.lists.jobs()] == ids[::-1]
    seen: list[str] = []
    while page := store.lists.jobs(limit=3, after=seen[-1] if seen else None):
        seen += [job.id for job in page]
    assert seen == ids[::-1]
    assert [job.id for job in store.lists.jobs(JobFilter((JobState.CANCELLED, JobState.DONE)))] == ["job3"]
    assert [job.id for job in store.lists.jobs(JobFilter(source="job4_100%"))] == ["job4"]
    assert store.lists.jobs(JobFilter(source="job4x")) == []
    with pytest.raises(JobNotFoundError):
        store.lists.jobs(after="none")


def test_the_progress_of_several_jobs_is_that_of_each(scored: Store) -> None:
    found = scored.lists.progress(["scored", "other", "none"])
    assert found["scored"] == scored.progress("scored")
    assert (found["scored"].embedded, found["scored"].failed, found["other"].embedded) == (4, 1, 0)
    assert (found["none"].batches, found["none"].embedded, found["none"].started_at) == (0, 0, None)


def test_a_scan_is_listed_with_all_that_is_known_of_it(scored: Store) -> None:
    first, *_, last = scored.lists.scans("scored", "centroid")
    assert first == ListedScan(
        first.id, "0.png", Label.NORMAL, None, None, ScanState.EMBEDDED, None, None, 0.1, 0.1
    )
    failure = (ScanState.FAILED, FailureKind.EMPTY, "it has no bytes", None, None)
    assert last == ListedScan(last.id, "4.png", None, None, None, *failure)
    assert scored.lists.scans("scored", "knn")[2].score == -0.4
    assert {scan.score for scan in scored.lists.scans("scored", "mahalanobis")} == {None}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ScanFilter(), "01234"),
        (ScanFilter(state=ScanState.EMBEDDED), "0123"),
        (ScanFilter(state=ScanState.FAILED), "4"),
        (ScanFilter(state=ScanState.PENDING), ""),
        (ScanFilter(failure=FailureKind.EMPTY), "4"),
        (ScanFilter(failure=FailureKind.MISSING), ""),
        (ScanFilter(label=Label.NORMAL), "01"),
        (ScanFilter(unlabelled=True), "34"),
        (ScanFilter(least_score=0.2), "123"),
        (ScanFilter(greatest_score=0.2), "013"),
        (ScanFilter(least_score=0.2, greatest_score=0.3, unlabelled=True), "3"),
        (ScanFilter(by_score=True), "2130"),
        (ScanFilter(by_score=True, label=Label.NORMAL), "10"),
        (ScanFilter(by_score=True, greatest_score=0.2), "130"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_scans_are_filtered_and_come_in_pages(scored: Store, wanted: ScanFilter, found: str, size: int) -> None:
    seen: list[ListedScan] = []
    place: Place | None = None
    while page := scored.lists.scans("scored", "centroid", wanted, size, place):
        seen += page
        place = Place(page[-1].id, page[-1].score)
    assert names(seen) == list(found)


def test_failures_are_counted_by_kind(scored: Store) -> None:
    embed(scored, "other", failing=("0.png", "1.png"))
    assert scored.lists.failures("scored") == {FailureKind.EMPTY: 1}
    assert scored.lists.failures() == {FailureKind.EMPTY: 3}
    scored.reopen("scored", 2)
    assert scored.lists.failures("scored") == {}


def test_totals_are_of_the_jobs_that_are_named(scored: Store) -> None:
    totals = scored.lists.totals(["scored"])
    assert (totals.embedded, totals.failed, totals.encoded, totals.batches) == (4, 1, 4, 3)
    assert 0 < totals.seconds < 60
    assert totals.within[-1] == 3
    assert len(totals.within) == len(BATCH_SECONDS)
    assert scored.lists.totals(["scored", "other"]) == totals + scored.lists.totals(["other"])
    assert scored.lists.totals([]).batches == 0


def test_the_ends_of_all_jobs_are_listed(scored: Store) -> None:
    endings = scored.lists.endings()
    assert {job: end.state for job, end in endings.items()} == {
        "scored": JobState.DONE,
        "other": JobState.EMBEDDING,
    }
    assert endings["scored"].finished_at == scored.find_job("scored").finished_at
    assert endings["other"].finished_at is None


def test_a_submission_with_a_known_key_makes_no_job(store: Store) -> None:
    key = SubmissionKey("key", "d" * 64)
    job = add(store, "first", key=key)
    assert store.submissions.of_key("key") == ("first", "d" * 64)
    assert store.submissions.of_key("other") is None
    assert store.submissions.add(job, [])  # a part of the same job is no second submission
    with pytest.raises(AlreadySubmittedError):
        store.submissions.add(replace(job, id="second"), [FoundScan("a.png")])
    assert [found.id for found in store.lists.jobs()] == ["first"]


def test_a_done_job_is_scored_again_and_keeps_its_time(scored: Store) -> None:
    before = scored.find_job("scored")
    scored.rescore("scored", ("knn", "centroid"))
    job = scored.find_job("scored")
    assert (job.state, job.scorers, job.finished_at) == (JobState.SCORING, ("knn", "centroid"), before.finished_at)
    # Its call may be lost, like any other.
    assert [missed.id for missed in scored.missed_scorings(frozenset(), 5)] == ["scored"]
    assert scored.begin_aggregate("scored", "w2", 3) is not None
    assert scored.finish_job("scored", {"auroc": 0.6})
    with pytest.raises(JobStateError, match="only a done job"):
        scored.rescore("other", ("knn",))


def test_a_batch_of_a_job_that_fails_is_not_kept_from_a_retry(store: Store) -> None:
    add(store, "failing", scans=2)
    store.workers.beat("w1", "here", 1, "cpu", "1")
    (batch_id,) = store.batches.unfinished("failing")
    assert store.batches.begin(batch_id, "w1") is not None  # and cannot load the encoder
    assert store.fail_job("failing", "no weights", "w1")
    (worker,) = store.workers.all()
    assert (worker.alive, worker.running) == (True, 0)
    store.reopen("failing", 2)
    assert [call.batch_id for call in store.batches.next_calls("failing")] == [batch_id]
    assert store.batches.begin(batch_id, "w2") is not None
