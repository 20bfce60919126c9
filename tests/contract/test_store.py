"""What every store does: the same tests over SQLite and PostgreSQL."""

import dataclasses
import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event, inspect, text, update

from scanomaly.models import database, scores
from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import JobNotFoundError, JobStateError, SchemaError, StoreUnreachableError, UsageError
from scanomaly.models.records import (
    FileState,
    FoundScan,
    IgnoredFile,
    NewContent,
    NewJob,
    ScanResult,
    ScorePage,
    Traits,
)
from scanomaly.models.settings import Settings
from scanomaly.models.states import FailureKind, JobState, Label, Priority
from scanomaly.models.store import Store
from scanomaly.models.tables import Base, JobRow, WorkerRow
from scanomaly.producer.local import resume

OFFLINE = parse_encoder("efficientnet_lite0")
SCANS = [
    FoundScan("no/a b.png", Label.NORMAL),
    FoundScan("no/ü.png", Label.NORMAL),
    FoundScan("yes/c.png", Label.ANOMALY),
    FoundScan("d.png"),
    FoundScan("e\n'\".png"),
]


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


TRAITS = Traits("PNG", 1234, 30, 20, 99.5, 20.25, 0.125, 2**64 - 5)


def new(vectors: dict[str, bytes]) -> dict[str, NewContent]:
    return {sha256: NewContent(vector, TRAITS) for sha256, vector in vectors.items()}


def add_job(store: Store, job_id: str = "abcdef", batch_size: int = 2) -> str:
    job = NewJob(job_id, "./scans", "/scans", "/reports/abcdef", OFFLINE, batch_size, {"labels": "by folder"})
    store.submissions.add(job, SCANS, [IgnoredFile("notes.txt", "not an image by its ending")])
    return job_id


def embed_all(store: Store, job_id: str, fail: tuple[int, ...] = ()) -> None:
    """Do a job's batches; scan n gets the digest nnn… and a vector of one n."""
    for batch_id in store.batches.unfinished(job_id):
        batch = store.batches.begin(batch_id, "w1")
        assert batch is not None
        results = [
            ScanResult(scan.id, failure=FailureKind.EMPTY, detail="empty")
            if scan.id in fail
            else ScanResult(scan.id, sha256=f"{scan.id:064d}")
            for scan in batch.scans
        ]
        vectors = {result.sha256: bytes([result.scan_id] * 4) for result in results if result.sha256}
        store.batches.finish(batch, results, new(vectors))


def test_a_job_comes_back_as_it_was_stored(store: Store) -> None:
    add_job(store)
    job = store.find_job("abcdef")
    assert (job.state, job.source, job.root, job.encoder) == (JobState.EMBEDDING, "./scans", "/scans", OFFLINE)
    assert (job.scans, job.normal, job.anomaly, job.ignored) == (5, 2, 1, 1)
    assert job.notes == {"labels": "by folder"}
    assert job.created_at.tzinfo is not None
    assert list(store.scores.ignored("abcdef")) == [IgnoredFile("notes.txt", "not an image by its ending")]


def test_files_that_were_read_are_remembered(store: Store) -> None:
    add_job(store, batch_size=5)
    (batch_id,) = store.batches.unfinished("abcdef")
    batch = store.batches.begin(batch_id, "w1")
    assert batch is not None
    paths = [scan.path for scan in batch.scans]
    state = {path: FileState(7, 10**18 + number, f"{number:064d}") for number, path in enumerate(paths)}
    known = {state[path].sha256: b"1234" for path in paths[:3]}
    results = [ScanResult(scan.id, sha256=state[scan.path].sha256) for scan in batch.scans]
    store.batches.finish(batch, results, new(known), state)
    assert store.files.embedded("/scans", "auto", paths, OFFLINE) == {path: state[path] for path in paths[:3]}
    assert store.files.embedded("/scans/", "auto", paths[:1], OFFLINE) == {paths[0]: state[paths[0]]}
    assert store.files.embedded("/others", "auto", paths, OFFLINE) == {}
    assert store.files.embedded("/scans", "auto", paths, parse_encoder()) == {}


def test_what_a_file_held_last_is_remembered(store: Store) -> None:
    states = [FileState(7, 1, "a" * 64), FileState(2**40, 2**62, "b" * 64)]
    for number, state in enumerate(states):
        job_id = add_job(store, f"job{number}", batch_size=5)
        (batch_id,) = store.batches.unfinished(job_id)
        batch = store.batches.begin(batch_id, "w1")
        assert batch is not None
        results = [ScanResult(scan.id, sha256=state.sha256) for scan in batch.scans]
        store.batches.finish(batch, results, new({state.sha256: b"1234"}), {"d.png": state})
        assert store.files.embedded("/scans", "auto", ["d.png"], OFFLINE) == {"d.png": state}


def test_a_job_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    add_job(store, "abcdef")
    add_job(store, "abxxxx")
    assert store.find_job("abc").id == "abcdef"
    for prefix in ("ab", "zzz", "", "%", "a_c"):
        with pytest.raises(JobNotFoundError):
            store.find_job(prefix)


def test_batches_hold_all_scans_once_and_in_order(store: Store) -> None:
    add_job(store)
    batches = [store.batches.begin(batch_id, "w1") for batch_id in store.batches.unfinished("abcdef")]
    assert [len(batch.scans) for batch in batches if batch] == [2, 2, 1]
    assert [scan.path for batch in batches if batch for scan in batch.scans] == [scan.path for scan in SCANS]


def test_progress_follows_the_batches(store: Store) -> None:
    add_job(store)
    assert store.progress("abcdef").started_at is None
    first = store.batches.unfinished("abcdef")[0]
    store.batches.begin(first, "w1")
    progress = store.progress("abcdef")
    assert (progress.batches, progress.running, progress.finished) == (3, 1, 0)
    embed_all(store, "abcdef", fail=(1,))
    progress = store.progress("abcdef")
    assert (progress.running, progress.finished) == (0, 3)
    assert (progress.embedded, progress.failed, progress.encoded) == (4, 1, 4)
    assert progress.started_at is not None
    assert progress.last_at is not None
    assert progress.started_at <= progress.last_at


def test_a_batch_that_is_done_is_not_begun_again(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    assert store.batches.begin(1, "w1") is None
    assert store.batches.begin(999, "w1") is None


def test_a_batch_delivered_twice_is_written_once(store: Store) -> None:
    add_job(store)
    mine, yours = store.batches.begin(1, "w1"), store.batches.begin(1, "w2")
    assert mine is not None
    assert yours is not None
    results = [ScanResult(scan.id, sha256=f"{scan.id:064d}") for scan in mine.scans]
    store.batches.finish(mine, results, new({f"{1:064d}": b"1111"}))
    failed = [ScanResult(scan.id, failure=FailureKind.EMPTY, detail="") for scan in yours.scans]
    store.batches.finish(yours, failed, new({f"{1:064d}": b"9999"}))
    assert list(store.scores.failures("abcdef")) == []
    assert store.progress("abcdef").encoded == 1
    assert [page.vectors for page in store.scores.vectors("abcdef")] == [b"1111"]


def test_two_workers_with_the_same_content_keep_the_first_vector(store: Store) -> None:
    batches = [
        store.batches.begin(store.batches.unfinished(add_job(store, job))[0], "w1") for job in ("one", "two")
    ]
    for number, batch in enumerate(batches):
        assert batch is not None
        results = [ScanResult(scan.id, sha256="a" * 64) for scan in batch.scans]
        store.batches.finish(batch, results, new({"a" * 64: bytes([number])}))
    vectors = [page.vectors for job in ("one", "two") for page in store.scores.vectors(job)]
    assert vectors == [b"\0\0", b"\0\0"]


def test_exactly_one_of_many_workers_begins_the_scoring(store: Store) -> None:
    add_job(store)
    assert not store.begin_scoring("abcdef")
    embed_all(store, "abcdef")
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(store.begin_scoring("abcdef"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1
    assert store.find_job("abcdef").state == JobState.SCORING


def test_workers_write_at_the_same_time(store: Store) -> None:
    for number in range(4):
        add_job(store, f"job{number}", batch_size=1)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            embed_all(store, f"job{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [store.progress(f"job{number}").finished for number in range(4)] == [5, 5, 5, 5]


def test_vectors_come_with_their_scans(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef", fail=(2,))
    (page,) = store.scores.vectors("abcdef")
    assert page.scan_ids == (1, 3, 4, 5)
    assert page.labels == [Label.NORMAL, Label.ANOMALY, None, None]
    assert page.contents == tuple(f"{scan:064d}" for scan in page.scan_ids)
    assert page.vectors == bytes([1] * 4 + [3] * 4 + [4] * 4 + [5] * 4)
    (normals,) = store.scores.vectors("abcdef", Label.NORMAL)
    assert (normals.scan_ids, normals.vectors) == ((1,), bytes([1] * 4))


def test_lists_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanomaly.models.scores._PAGE", 2)
    add_job(store, "other")
    embed_all(store, "other", fail=(1, 2, 3, 4, 5))
    add_job(store)
    embed_all(store, "abcdef")
    assert [page.scan_ids for page in store.scores.vectors("abcdef")] == [(6, 7), (8, 9), (10,)]
    assert list(store.scores.vectors("other")) == []
    assert [failure.path for failure in store.scores.failures("other")] == [scan.path for scan in SCANS]
    store.scores.save("centroid", [ScorePage([6, 7, 8, 9, 10], [0.1, 0.2, 0.3, 0.4, 0.5], [0.0] * 5)])
    assert [scan.score for scan in store.scores.ranking("abcdef")] == [0.5, 0.4, 0.3, 0.2, 0.1]


def test_scores_are_kept_to_the_last_bit_and_replaced(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    pages = [ScorePage([4, 1], [1 / 3, 0.1 + 0.2], [5e-324, 2.0]), ScorePage([2], [1e-17], [math.pi])]
    store.scores.save("centroid", [ScorePage([1, 2], [0.9, 0.9], [0.9, 0.9]), *pages])
    scores = {scan.path: (scan.score, scan.score_in_sample) for scan in store.scores.ranking("abcdef")}
    assert scores == {
        "no/a b.png": (0.1 + 0.2, 2.0),
        "no/ü.png": (1e-17, math.pi),
        "d.png": (1 / 3, 5e-324),
    }


def test_an_embedding_belongs_to_a_content_and_an_encoder(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    assert store.contents.is_known(f"{1:064d}", OFFLINE)
    assert not store.contents.is_known(f"{1:064d}", parse_encoder())
    assert not store.contents.is_known(f"{9:064d}", OFFLINE)


def test_patches_are_asked_for_only_where_they_are_needed(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    with_patches = dataclasses.replace(OFFLINE, patches=True)
    assert not store.contents.is_known(f"{1:064d}", with_patches)
    assert with_patches.key == OFFLINE.key


def test_patches_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_PATCH_PAGE", 2)
    encoder = dataclasses.replace(OFFLINE, patches=True)
    store.submissions.add(NewJob("p", ".", "/scans", "/r", encoder, 5), SCANS)
    (batch_id,) = store.batches.unfinished("p")
    batch = store.batches.begin(batch_id, "w1")
    assert batch is not None
    assert batch.encoder.patches
    digests = [f"{number // 2:064d}" for number in range(5)]
    results = [ScanResult(scan.id, sha256=digest) for scan, digest in zip(batch.scans, digests, strict=True)]
    made = {digest: NewContent(b"1234", TRAITS, digest[-2:].encode()) for digest in digests}
    store.batches.finish(batch, results, made)
    pages = list(store.scores.patches("p", encoder.patches_key))
    assert [page.patches for page in pages] == [(b"00", b"00"), (b"01", b"01"), (b"02",)]
    assert [scan_id for page in pages for scan_id in page.scan_ids] == [scan.id for scan in batch.scans]
    assert store.contents.patches([digests[4], digests[0], "f" * 64], encoder) == {
        digests[0]: b"00",
        digests[4]: b"02",
    }
    assert store.contents.vectors([digests[0]] * 3, OFFLINE) == {digests[0]: b"1234"}
    assert store.contents.vectors(digests, parse_encoder()) == {}
    assert store.contents.is_known(digests[0], encoder)


def test_an_older_embedding_has_no_traits(store: Store, url: str) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM contents WHERE sha256 = :digest"), {"digest": f"{2:064d}"})
    engine.dispose()
    (page,) = store.scores.outline("abcdef")
    assert page.traits["width"] == (30, None, 30, 30, 30)
    assert not store.contents.is_known(f"{2:064d}", OFFLINE)


def test_groups_come_back(store: Store) -> None:
    scans = [FoundScan("a.png", Label.NORMAL, "patient ü"), FoundScan("b.png", None, None)]
    store.submissions.add(NewJob("g", ".", "/scans", "/r", OFFLINE, 2), scans)
    embed_all(store, "g")
    (page,) = store.scores.outline("g")
    assert page.groups == ("patient ü", None)
    store.scores.save("centroid", [ScorePage(page.scan_ids, [0.1, 0.2], [0.1, 0.2])])
    assert [scan.group for scan in store.scores.ranking("g")] == [None, "patient ü"]
    named = store.scores.named(list(page.scan_ids)[::-1])
    assert [(scan.path, scan.label) for scan in named] == [("b.png", None), ("a.png", Label.NORMAL)]


def test_ranking_is_by_score_and_then_by_submission(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef", fail=(5,))
    store.scores.save("centroid", [ScorePage([1, 2, 3, 4], [0.1, 0.9, 0.9, 0.2], [0.05, 0.8, 0.9, 0.2])])
    ranking = list(store.scores.ranking("abcdef"))
    assert [scan.path for scan in ranking] == ["no/ü.png", "yes/c.png", "d.png", "no/a b.png"]
    assert (ranking[0].score, ranking[0].score_in_sample) == (0.9, 0.8)
    assert [failure.path for failure in store.scores.failures("abcdef")] == ["e\n'\".png"]


def test_scorers_have_their_own_scores_and_one_of_them_ranks(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef", fail=(4, 5))
    store.scores.save("centroid", [ScorePage([1, 2, 3], [0.1, 0.2, 0.3], [0.0, 0.1, 0.2])])
    store.scores.save("knn", [ScorePage([1, 2, 3], [9.0, 7.0, 8.0], [6.0, 5.0, 4.0])])
    by_knn = list(store.scores.ranking("abcdef", ("knn", "centroid")))
    assert [(scan.score, [other[:2] for other in scan.others]) for scan in by_knn] == [
        (9.0, [(0.1, 0.0)]),
        (8.0, [(0.3, 0.2)]),
        (7.0, [(0.2, 0.1)]),
    ]
    assert [scan.score for scan in store.scores.ranking("abcdef")] == [0.3, 0.2, 0.1]
    normal = {scan.path for scan in SCANS if scan.label is Label.NORMAL}
    expected = sorted(scan.score for scan in by_knn if scan.path in normal)
    assert sorted(store.scores.of_normals("abcdef", "knn")) == expected
    (page,) = store.scores.outline("abcdef")
    assert (list(page.scan_ids), page.contents) == ([1, 2, 3], [0, 0, 0])
    assert page.labels == [scan.label for scan in SCANS[:3]]
    assert page.traits["format"] == ("PNG",) * 3
    assert page.traits["perceptual_hash"] == (-5,) * 3  # the highest bit is the sign
    assert page.traits["border_share"] == (0.125,) * 3


def test_only_a_done_job_gets_more_scorers(store: Store) -> None:
    add_job(store)
    assert not store.add_scorers("abcdef", ["knn"], {})
    embed_all(store, "abcdef")
    store.begin_scoring("abcdef")
    store.finish_job("abcdef", {"auroc": 0.5})
    assert store.add_scorers("abcdef", ["knn", "centroid"], {"auroc": 0.75})
    job = store.find_job("abcdef")
    assert (job.scorers, job.result) == (("knn", "centroid"), {"auroc": 0.75})


def test_a_job_ends_once(store: Store) -> None:
    add_job(store)
    assert not store.finish_job("abcdef", {"auroc": 1.0})  # it is not being scored yet
    embed_all(store, "abcdef")
    store.begin_scoring("abcdef")
    assert store.finish_job("abcdef", {"auroc": 1.0})
    assert not store.fail_job("abcdef", "too late")
    job = store.find_job("abcdef")
    assert (job.state, job.result, job.error) == (JobState.DONE, {"auroc": 1.0}, None)
    assert job.finished_at is not None


def test_a_cancelled_job_gives_no_more_work(store: Store) -> None:
    add_job(store)
    store.cancel("abcdef")
    assert store.batches.begin(1, "w1") is None
    assert store.find_job("abcdef").state == JobState.CANCELLED
    with pytest.raises(JobStateError, match="nothing to cancel"):
        store.cancel("abcdef")
    told = set()
    for take_up in (lambda: store.reopen("abcdef", 2), lambda: resume(Settings(), store, "abcdef")):
        with pytest.raises(JobStateError, match="submit it again") as raised:
            take_up()
        told.add(str(raised.value))
    assert len(told) == 1


def test_retry_takes_up_the_failed_scans_only(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef", fail=(1, 3, 4))
    store.begin_scoring("abcdef")
    store.finish_job("abcdef", {})
    assert store.reopen("abcdef", 2) == 3
    assert store.find_job("abcdef").state == JobState.EMBEDDING
    assert (store.progress("abcdef").embedded, store.progress("abcdef").failed) == (2, 0)
    batches = [store.batches.begin(batch_id, "w1") for batch_id in store.batches.unfinished("abcdef")]
    assert [[scan.id for scan in batch.scans] for batch in batches if batch] == [[1, 3], [4]]
    embed_all(store, "abcdef")
    assert store.progress("abcdef").embedded == 5
    assert list(store.scores.failures("abcdef")) == []


def test_a_failed_job_can_be_taken_up_again(store: Store) -> None:
    add_job(store)
    store.fail_job("abcdef", "no encoder")
    assert store.find_job("abcdef").error == "no encoder"
    assert store.reopen("abcdef", 2) == 0
    job = store.find_job("abcdef")
    assert (job.state, job.error, job.finished_at) == (JobState.EMBEDDING, None, None)
    assert store.batches.open_jobs() == (["abcdef"], [])


def test_nothing_to_retry_is_said(store: Store) -> None:
    add_job(store)
    with pytest.raises(JobStateError, match="still running"):
        store.reopen("abcdef", 2)
    embed_all(store, "abcdef")
    store.begin_scoring("abcdef")
    store.finish_job("abcdef", {})
    with pytest.raises(JobStateError, match="nothing to retry"):
        store.reopen("abcdef", 2)


def beat(store: Store, *names: str) -> None:
    for name in names:
        store.workers.beat(name, "host", 1, "cpu", "1.0")


def hearts_stop(url: str) -> None:
    """As if all workers had been silent for a minute."""
    engine = create_engine(url)
    long_ago = datetime.now(UTC) - timedelta(seconds=60)
    with engine.begin() as connection:
        connection.execute(update(WorkerRow).values(beat_at=long_ago))
    engine.dispose()


def hand_over(store: Store, job_id: str = "abcdef") -> list[int]:
    return [call.batch_id for call in store.batches.next_calls(job_id)]


def test_a_job_has_few_calls_on_their_way_and_more_with_more_workers(store: Store) -> None:
    job = NewJob("abcdef", ".", "/scans", "/r", OFFLINE, 1)
    store.submissions.add(job, [FoundScan(f"{number}.png") for number in range(30)])
    assert hand_over(store) == [1, 2, 3, 4]
    assert hand_over(store) == []
    batch = store.batches.begin(1, "w1")
    assert batch is not None
    assert hand_over(store) == []
    store.batches.finish(batch, [ScanResult(batch.scans[0].id, sha256="a" * 64)], {})
    assert hand_over(store) == [5]
    beat(store, "w1", "w2", "w3")
    assert hand_over(store) == list(range(6, 14))


def test_two_callers_never_get_the_same_call(store: Store) -> None:
    job = NewJob("abcdef", ".", "/scans", "/r", OFFLINE, 1)
    store.submissions.add(job, [FoundScan(f"{number}.png") for number in range(40)])
    beat(store, *(f"w{number}" for number in range(10)))
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.extend(hand_over(store))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 41))


def test_a_call_that_is_nowhere_is_missed_once(store: Store) -> None:
    add_job(store)
    assert hand_over(store) == [1, 2, 3]
    assert store.batches.missed_calls({1, 2, 3}, older_than=0) == []
    assert store.batches.missed_calls(set(), older_than=60) == []
    assert [call.batch_id for call in store.batches.missed_calls({2}, older_than=0)] == [1, 3]
    assert [call.batch_id for call in store.batches.missed_calls(set(), older_than=60)] == []
    store.cancel("abcdef")
    assert store.batches.missed_calls(set(), older_than=0) == []


def test_a_batch_belongs_to_one_living_worker(store: Store, url: str) -> None:
    add_job(store)
    beat(store, "w1", "w2")
    assert store.batches.begin(1, "w1")
    assert store.batches.begin(1, "w2") is None
    again = store.batches.begin(1, "w1")
    assert again is not None
    assert again.deaths == 0
    hearts_stop(url)
    beat(store, "w2")
    taken = store.batches.begin(1, "w2")
    assert taken is not None
    assert taken.deaths == 1


def test_the_work_of_a_lost_worker_is_released_and_its_death_counted(store: Store, url: str) -> None:
    add_job(store)
    beat(store, "w1", "w2")
    store.batches.begin(1, "w1")
    store.batches.begin(2, "w2")
    assert store.workers.release_lost() == []
    hearts_stop(url)
    beat(store, "w2")
    assert store.workers.release_lost() == ["w1"]
    assert store.workers.release_lost() == []
    assert store.progress("abcdef").running == 1
    assert hand_over(store) == [1, 3]
    assert getattr(store.batches.begin(1, "w2"), "deaths", None) == 1


def test_a_worker_that_stops_gives_its_work_back_and_nobody_died(store: Store) -> None:
    add_job(store)
    beat(store, "w1")
    store.batches.begin(1, "w1")
    store.workers.stop("w1")
    assert [worker.alive for worker in store.workers.all()] == [False]
    assert store.workers.alive() == 0
    assert hand_over(store) == [1, 2, 3]
    assert getattr(store.batches.begin(1, "w2"), "deaths", None) == 0


def test_workers_are_listed_with_what_they_hold(store: Store, url: str) -> None:
    add_job(store)
    beat(store, "w1")
    store.batches.begin(1, "w1")
    store.batches.begin(2, "w1")
    (worker,) = store.workers.all()
    assert (worker.name, worker.host, worker.pid, worker.device, worker.version) == ("w1", "host", 1, "cpu", "1.0")
    assert (worker.alive, worker.running, worker.stopped_at) == (True, 2, None)
    hearts_stop(url)
    assert [worker.alive for worker in store.workers.all()] == [False]
    beat(store, "w1")
    assert [worker.alive for worker in store.workers.all()] == [True]


def test_a_duty_is_taken_by_one_at_a_time(store: Store) -> None:
    assert store.workers.take_turn("reconcile", 60)
    assert not store.workers.take_turn("reconcile", 60)
    time.sleep(0.05)
    assert store.workers.take_turn("reconcile", 0.01)


def test_a_split_batch_is_two_halves_and_its_late_result_is_ignored(store: Store) -> None:
    job = NewJob("abcdef", ".", "/scans", "/r", OFFLINE, 5)
    store.submissions.add(job, SCANS)
    whole = store.batches.begin(1, "w1")
    assert whole is not None
    store.batches.split(whole)
    store.batches.split(whole)
    halves = [store.batches.begin(batch_id, "w1") for batch_id in store.batches.unfinished("abcdef")]
    assert [[scan.id for scan in half.scans] for half in halves if half] == [[1, 2], [3, 4, 5]]
    assert [half.deaths for half in halves if half] == [1, 1]
    store.batches.finish(whole, [ScanResult(scan.id, sha256="a" * 64) for scan in whole.scans], {})
    assert store.progress("abcdef").embedded == 0
    assert store.batches.begin(1, "w1") is None
    embed_all(store, "abcdef")
    assert store.progress("abcdef").embedded == 5


def test_a_batch_taken_from_a_worker_that_only_slept_is_written_once(store: Store, url: str) -> None:
    add_job(store)
    beat(store, "w1")
    slow = store.batches.begin(1, "w1")
    hearts_stop(url)
    store.workers.release_lost()
    beat(store, "w2")
    fast = store.batches.begin(1, "w2")
    for batch in (slow, fast):
        assert batch is not None
        results = [ScanResult(scan.id, sha256=f"{scan.id:064d}") for scan in batch.scans]
        store.batches.finish(batch, results, new({f"{scan.id:064d}": b"1234" for scan in batch.scans}))
    assert (store.progress("abcdef").embedded, store.progress("abcdef").encoded) == (2, 2)


def test_a_paused_job_gives_no_work_until_it_is_taken_up(store: Store) -> None:
    add_job(store)
    assert hand_over(store) == [1, 2, 3]
    running = store.batches.begin(1, "w1")
    store.pause("abcdef")
    assert store.find_job("abcdef").state == JobState.PAUSED
    assert hand_over(store) == []
    assert store.batches.begin(2, "w1") is None
    assert running is not None
    store.batches.finish(running, [ScanResult(scan.id, sha256="a" * 64) for scan in running.scans], {})
    assert not store.begin_scoring("abcdef")
    with pytest.raises(JobStateError, match="only a job that is being embedded"):
        store.pause("abcdef")
    with pytest.raises(JobStateError, match="resume"):
        store.reopen("abcdef", 2)
    assert store.unpause("abcdef")
    assert not store.unpause("abcdef")
    assert hand_over(store) == [2, 3]
    store.pause("abcdef")
    store.cancel("abcdef")


def test_one_living_worker_scores_a_job_and_too_many_deaths_end_it(store: Store, url: str) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    assert store.begin_aggregate("abcdef", "w1", 3) is None
    store.begin_scoring("abcdef")
    beat(store, "w1", "w2")
    assert store.begin_aggregate("abcdef", "w1", 3)
    assert store.begin_aggregate("abcdef", "w1", 3)
    assert store.begin_aggregate("abcdef", "w2", 3) is None
    assert not store.fail_job("abcdef", "not mine to fail", "w2")
    for death in (1, 2):
        store.workers.release("w1", died=True)
        assert bool(store.begin_aggregate("abcdef", "w1", 3)), death
    hearts_stop(url)
    assert store.begin_aggregate("abcdef", "w2", 3) is None
    job = store.find_job("abcdef")
    assert job.state == JobState.FAILED
    assert "3 workers died while they scored it" in str(job.error)
    store.reopen("abcdef", 2)
    assert store.begin_scoring("abcdef")
    assert store.begin_aggregate("abcdef", "w2", 3)


def test_a_scoring_whose_call_is_nowhere_is_missed_once(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    assert store.batches.open_jobs() == ([], ["abcdef"])
    store.begin_scoring("abcdef")
    assert store.batches.open_jobs() == ([], [])
    assert store.missed_scorings({"abcdef"}, older_than=0) == []
    assert [job.id for job in store.missed_scorings(set(), older_than=0)] == ["abcdef"]
    assert store.missed_scorings(set(), older_than=60) == []
    beat(store, "w1")
    store.begin_aggregate("abcdef", "w1", 3)
    assert store.missed_scorings(set(), older_than=0) == []
    store.workers.stop("w1")
    assert [job.id for job in store.missed_scorings(set(), older_than=60)] == ["abcdef"]


PARTS = NewJob("parts", ".", "/scans", "/r", OFFLINE, 2)
OTHERS = [IgnoredFile("notes.txt", "not an image by its ending")]


def submitter_stops(url: str) -> None:
    """As if all submitters had been silent for two minutes."""
    engine = create_engine(url)
    with engine.begin() as connection:
        late = update(JobRow).where(JobRow.submitter_beat_at.is_not(None))
        connection.execute(late.values(submitter_beat_at=datetime.now(UTC) - timedelta(seconds=120)))
    engine.dispose()


def test_a_job_that_comes_in_parts_is_embedded_meanwhile_and_scored_when_it_is_whole(store: Store) -> None:
    assert store.submissions.add(PARTS, SCANS[:2], OTHERS, whole=False)
    job = store.find_job("parts")
    assert (job.whole, job.scans, job.normal, job.anomaly, job.ignored) == (False, 2, 2, 0, 1)
    assert hand_over(store, "parts") == [1]
    embed_all(store, "parts")
    assert store.batches.open_jobs() == ([], [])
    assert not store.begin_scoring("parts")
    assert store.submissions.add(PARTS, SCANS[2:], after=3)
    job = store.find_job("parts")
    assert (job.whole, job.scans, job.normal, job.anomaly, job.ignored) == (True, 5, 2, 1, 1)
    assert not store.begin_scoring("parts")
    batches = [store.batches.begin(batch_id, "w1") for batch_id in store.batches.unfinished("parts")]
    assert [[scan.path for scan in batch.scans] for batch in batches if batch] == [
        ["yes/c.png", "d.png"],
        ["e\n'\".png"],
    ]
    embed_all(store, "parts")
    assert [id for page in store.scores.vectors("parts") for id in page.scan_ids] == [1, 2, 3, 4, 5]
    assert store.batches.open_jobs() == ([], ["parts"])
    assert store.begin_scoring("parts")


def test_a_part_is_written_once_however_often_it_is_sent(store: Store) -> None:
    for _ in range(2):
        assert store.submissions.add(PARTS, SCANS[:2], OTHERS, whole=False)
    for _ in range(2):
        assert store.submissions.add(PARTS, SCANS[2:], after=3)
    job = store.find_job("parts")
    assert (job.whole, job.scans, job.ignored, store.progress("parts").batches) == (True, 5, 1, 3)
    embed_all(store, "parts")
    store.begin_scoring("parts")
    store.finish_job("parts", {})
    assert store.submissions.add(PARTS, SCANS[2:], after=3)
    assert store.find_job("parts").scans == 5


def test_a_job_that_ended_takes_no_more_parts(store: Store) -> None:
    store.submissions.add(PARTS, SCANS[:2], whole=False)
    store.cancel("parts")
    assert not store.submissions.add(PARTS, SCANS[2:], after=2)
    job = store.find_job("parts")
    assert (job.state, job.whole, job.scans) == (JobState.CANCELLED, False, 2)
    assert not store.submissions.abandon("parts", "stopped")


@pytest.mark.parametrize("paused", [False, True])
def test_a_job_whose_submitter_died_fails_and_has_to_be_submitted_again(
    store: Store, url: str, paused: bool
) -> None:
    add_job(store)
    store.submissions.add(PARTS, SCANS[:2], whole=False)
    if paused:
        store.pause("parts")
    assert store.submissions.fail_abandoned() == []
    submitter_stops(url)
    store.submissions.beat("parts")
    store.submissions.beat("abcdef")
    store.submissions.beat("none")
    assert store.submissions.fail_abandoned() == []
    submitter_stops(url)
    assert store.submissions.fail_abandoned() == ["parts"]
    assert store.submissions.fail_abandoned() == []
    job = store.find_job("parts")
    assert (job.state, job.whole) == (JobState.FAILED, False)
    assert "submit it again" in str(job.error)
    assert job.finished_at is not None
    with pytest.raises(JobStateError, match="never whole: submit it again"):
        store.reopen("parts", 2)
    other = store.find_job("abcdef")
    assert (other.state, other.whole) == (JobState.EMBEDDING, True)


def test_a_submitter_gives_up_what_is_not_whole(store: Store) -> None:
    add_job(store)
    assert not store.submissions.abandon("abcdef", "stopped")
    assert not store.submissions.abandon("none", "stopped")
    store.submissions.add(PARTS, SCANS[:2], whole=False)
    assert store.submissions.abandon("parts", "stopped")
    assert store.find_job("parts").error == "stopped; submit it again: what is embedded is not embedded twice"
    assert store.find_job("abcdef").state == JobState.EMBEDDING


def migrate(url: str, version: str) -> None:
    from alembic import command
    from alembic.config import Config

    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
        (command.upgrade if version == "0001" else command.downgrade)(config, version)
    engine.dispose()


def test_a_store_with_rows_is_upgraded_when_it_is_asked_for(url: str) -> None:
    migrate(url, "0001")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, state, source, root, report_folder, encoder, encoder_key, notes, scans, "
                "normal, anomaly, ignored, created_at) VALUES ('old', 'embedding', '.', '/scans', '/r', :encoder, "
                ":key, '{}', 2, 1, 1, 0, :now)"
            ),
            {
                "encoder": json.dumps(dataclasses.asdict(OFFLINE)),
                "key": OFFLINE.key,
                "now": datetime.now(UTC).isoformat(),
            },
        )
        connection.execute(
            text(
                "INSERT INTO batches (job_id, state, attempts, scans, embedded, failed, encoded) VALUES "
                "('old', 'running', 2, 1, 0, 0, 0), ('old', 'done', 1, 1, 1, 0, 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO scans (job_id, batch_id, path, label, state, sha256, score, score_in_sample) VALUES "
                "('old', 1, 'a.png', 'normal', 'pending', NULL, NULL, NULL), "
                "('old', 2, 'b.png', 'anomaly', 'embedded', 'b', 0.75, 0.5)"
            )
        )
    engine.dispose()
    with pytest.raises(SchemaError, match="run `scanomaly store upgrade`"):
        Store(url)
    store = Store(url, upgrade=True)
    assert store.schema_before == "0001"
    job = store.find_job("old")
    assert (job.state, job.priority, job.follow_links) == (JobState.EMBEDDING, Priority.NORMAL, True)
    assert job.whole
    assert hand_over(store, "old") == [1]
    batch = store.batches.begin(1, "w1")
    assert batch is not None
    assert ([scan.path for scan in batch.scans], batch.deaths) == (["a.png"], 0)
    assert store.progress("old").embedded == 1
    assert (job.scorers, job.false_alarm_rate) == (("centroid",), 0.05)
    assert [(scan.score, scan.score_in_sample) for scan in store.scores.ranking("old")] == [(0.75, 0.5)]
    store.close()
    migrate(url, "base")


def test_the_migrations_make_the_tables_of_the_models(store: Store, url: str) -> None:
    engine = create_engine(url)
    found = inspect(engine)
    for table in Base.metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert set(columns) == set(table.columns.keys())
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, column
        assert {index["name"] for index in found.get_indexes(table.name)} == {index.name for index in table.indexes}
    engine.dispose()


def test_many_may_open_a_new_store_at_once(url: str) -> None:
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(Store(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 6
    for store in stores:
        store.close()


def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses to turn the journal over at once, whatever the busy timeout is."""
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, other.execute, ["COMMIT"])
        timer.start()
        Store(f"sqlite:///{path}").close()
        timer.join()


def test_a_store_of_another_version_is_refused(store: Store, url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SchemaError, match="schema 9999, newer than"):
        Store(url)


def test_schema_version_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == database.SCHEMA_VERSION


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("postgresql+psycopg://ann:secret@127.0.0.1:1/none", StoreUnreachableError, "cannot be used"),
        ("sqlite:////proc/no/store.sqlite", StoreUnreachableError, "cannot be made"),
        ("sqlite://", UsageError, "in memory"),
        ("mysql://x/y", UsageError, "not supported"),
        ("not a url", UsageError, "not a database URL"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        Store(url)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_text("a shopping list, long enough to be read as a header of a page " * 20)
    with pytest.raises(StoreUnreachableError, match="file is not a database"):
        Store(f"sqlite:///{tmp_path / 'store.sqlite'}")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}")
    add_job(store)
    batch = store.batches.begin(1, "w1")
    assert batch is not None
    pages = [0]

    @event.listens_for(store._database._engine, "begin")
    def full(connection: Connection) -> None:
        # What SQLite says when the disk is full, it says too when the file may not grow.
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages[0] or 10**9}")

    pages[0] = 1  # SQLite takes the pages that there are
    results = [ScanResult(scan.id, sha256=f"{scan.id:064d}") for scan in batch.scans]
    vectors = {f"{scan.id:064d}": bytes(10**6) for scan in batch.scans}
    with pytest.raises(StoreUnreachableError, match="disk is full"):
        store.batches.finish(batch, results, new(vectors))
    assert store.progress("abcdef").finished == 0
    pages[0] = 0
    store.batches.finish(batch, results, new(vectors))
    assert store.progress("abcdef").embedded == 2
    store.close()
