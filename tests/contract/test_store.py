"""What every store does: the same tests over SQLite and PostgreSQL."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from scanomaly.models import database
from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import JobNotFoundError, JobStateError, StoreUnreachableError, UsageError
from scanomaly.models.records import FoundScan, IgnoredFile, NewJob, ScanResult, ScanScore
from scanomaly.models.settings import Settings
from scanomaly.models.states import FailureKind, JobState, Label
from scanomaly.models.store import Store
from scanomaly.models.tables import Base

OFFLINE = parse_encoder("efficientnet_lite0")
SCANS = [
    FoundScan("no/a b.png", Label.NORMAL),
    FoundScan("no/ü.png", Label.NORMAL),
    FoundScan("yes/c.png", Label.ANOMALY),
    FoundScan("d.png"),
    FoundScan("e\n'\".png"),
]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.sqlite'}"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"test_{abs(hash(tmp_path))}"
    admin = create_engine(server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield Settings(store_url=server.replace("/postgres?", f"/{name}?")).resolved_store_url
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def add_job(store: Store, job_id: str = "abcdef", batch_size: int = 2) -> str:
    job = NewJob(job_id, "./scans", "/scans", "/reports/abcdef", OFFLINE, batch_size, {"labels": "by folder"})
    store.add_job(job, SCANS, [IgnoredFile("notes.txt", "not an image by its ending")])
    return job_id


def embed_all(store: Store, job_id: str, fail: tuple[int, ...] = ()) -> None:
    """Do a job's batches; scan n gets the digest nnn… and a vector of one n."""
    for batch_id in store.unfinished_batches(job_id):
        batch = store.begin_batch(batch_id)
        assert batch is not None
        results = [
            ScanResult(scan.id, failure=FailureKind.EMPTY, detail="empty")
            if scan.id in fail
            else ScanResult(scan.id, sha256=f"{scan.id:064d}")
            for scan in batch.scans
        ]
        vectors = {result.sha256: bytes([result.scan_id] * 4) for result in results if result.sha256}
        store.finish_batch(batch, results, vectors)


def test_a_job_comes_back_as_it_was_stored(store: Store) -> None:
    add_job(store)
    job = store.find_job("abcdef")
    assert (job.state, job.source, job.root, job.encoder) == (JobState.EMBEDDING, "./scans", "/scans", OFFLINE)
    assert (job.scans, job.normal, job.anomaly, job.ignored) == (5, 2, 1, 1)
    assert job.notes == {"labels": "by folder"}
    assert job.created_at.tzinfo is not None
    assert store.ignored("abcdef") == [IgnoredFile("notes.txt", "not an image by its ending")]


def test_a_job_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    add_job(store, "abcdef")
    add_job(store, "abxxxx")
    assert store.find_job("abc").id == "abcdef"
    for prefix in ("ab", "zzz", "", "%", "a_c"):
        with pytest.raises(JobNotFoundError):
            store.find_job(prefix)


def test_batches_hold_all_scans_once_and_in_order(store: Store) -> None:
    add_job(store)
    batches = [store.begin_batch(batch_id) for batch_id in store.unfinished_batches("abcdef")]
    assert [len(batch.scans) for batch in batches if batch] == [2, 2, 1]
    assert [scan.path for batch in batches if batch for scan in batch.scans] == [scan.path for scan in SCANS]


def test_progress_follows_the_batches(store: Store) -> None:
    add_job(store)
    assert store.progress("abcdef").started_at is None
    first = store.unfinished_batches("abcdef")[0]
    store.begin_batch(first)
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
    assert store.begin_batch(1) is None
    assert store.begin_batch(999) is None


def test_attempts_are_counted(store: Store) -> None:
    add_job(store)
    attempts = [store.begin_batch(1) for _ in range(3)]
    assert [batch.attempts for batch in attempts if batch] == [1, 2, 3]


def test_a_batch_delivered_twice_is_written_once(store: Store) -> None:
    add_job(store)
    mine, yours = store.begin_batch(1), store.begin_batch(1)
    assert mine is not None
    assert yours is not None
    results = [ScanResult(scan.id, sha256=f"{scan.id:064d}") for scan in mine.scans]
    store.finish_batch(mine, results, {f"{1:064d}": b"1111"})
    failed = [ScanResult(scan.id, failure=FailureKind.EMPTY, detail="") for scan in yours.scans]
    store.finish_batch(yours, failed, {f"{1:064d}": b"9999"})
    assert store.failures("abcdef") == []
    assert store.progress("abcdef").encoded == 1
    assert [scan.vector for page in store.vectors("abcdef") for scan in page] == [b"1111"]


def test_two_workers_with_the_same_content_keep_the_first_vector(store: Store) -> None:
    batches = [store.begin_batch(store.unfinished_batches(add_job(store, job))[0]) for job in ("one", "two")]
    for number, batch in enumerate(batches):
        assert batch is not None
        results = [ScanResult(scan.id, sha256="a" * 64) for scan in batch.scans]
        store.finish_batch(batch, results, {"a" * 64: bytes([number])})
    vectors = {scan.vector for job in ("one", "two") for page in store.vectors(job) for scan in page}
    assert vectors == {b"\0"}


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
    scans = [scan for page in store.vectors("abcdef") for scan in page]
    assert [(scan.scan_id, scan.label, scan.vector[0]) for scan in scans] == [
        (1, Label.NORMAL, 1),
        (3, Label.ANOMALY, 3),
        (4, None, 4),
        (5, None, 5),
    ]
    normals = [scan.scan_id for page in store.vectors("abcdef", Label.NORMAL) for scan in page]
    assert normals == [1]


def test_vectors_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanomaly.models.store._PAGE", 2)
    add_job(store)
    embed_all(store, "abcdef")
    assert [len(page) for page in store.vectors("abcdef")] == [2, 2, 1]


def test_an_embedding_belongs_to_a_content_and_an_encoder(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef")
    assert store.has_embedding(f"{1:064d}", OFFLINE.key)
    assert not store.has_embedding(f"{1:064d}", parse_encoder().key)
    assert not store.has_embedding(f"{9:064d}", OFFLINE.key)


def test_ranking_is_by_score_and_then_by_submission(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef", fail=(5,))
    store.save_scores(
        [ScanScore(1, 0.1, 0.05), ScanScore(2, 0.9, 0.8), ScanScore(3, 0.9, 0.9), ScanScore(4, 0.2, 0.2)]
    )
    ranking = list(store.ranking("abcdef"))
    assert [scan.path for scan in ranking] == ["no/ü.png", "yes/c.png", "d.png", "no/a b.png"]
    assert (ranking[0].score, ranking[0].score_in_sample) == (0.9, 0.8)
    assert [failure.path for failure in store.failures("abcdef")] == ["e\n'\".png"]


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
    assert store.begin_batch(1) is None
    assert store.find_job("abcdef").state == JobState.CANCELLED
    with pytest.raises(JobStateError, match="nothing to cancel"):
        store.cancel("abcdef")
    with pytest.raises(JobStateError, match="submit it again"):
        store.reopen("abcdef", 2)


def test_retry_takes_up_the_failed_scans_only(store: Store) -> None:
    add_job(store)
    embed_all(store, "abcdef", fail=(1, 3, 4))
    store.begin_scoring("abcdef")
    store.finish_job("abcdef", {})
    assert store.reopen("abcdef", 2) == 3
    assert store.find_job("abcdef").state == JobState.EMBEDDING
    assert (store.progress("abcdef").embedded, store.progress("abcdef").failed) == (2, 0)
    batches = [store.begin_batch(batch_id) for batch_id in store.unfinished_batches("abcdef")]
    assert [[scan.id for scan in batch.scans] for batch in batches if batch] == [[1, 3], [4]]
    embed_all(store, "abcdef")
    assert store.progress("abcdef").embedded == 5
    assert store.failures("abcdef") == []


def test_a_failed_job_can_be_taken_up_again(store: Store) -> None:
    add_job(store)
    store.fail_job("abcdef", "no encoder")
    assert store.find_job("abcdef").error == "no encoder"
    assert store.reopen("abcdef", 2) == 0
    job = store.find_job("abcdef")
    assert (job.state, job.error, job.finished_at) == (JobState.EMBEDDING, None, None)
    assert store.unfinished_jobs() == ["abcdef"]


def test_nothing_to_retry_is_said(store: Store) -> None:
    add_job(store)
    with pytest.raises(JobStateError, match="still running"):
        store.reopen("abcdef", 2)
    embed_all(store, "abcdef")
    store.begin_scoring("abcdef")
    store.finish_job("abcdef", {})
    with pytest.raises(JobStateError, match="nothing to retry"):
        store.reopen("abcdef", 2)


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


def test_many_processes_may_open_a_new_store_at_once(url: str) -> None:
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(Store(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 6
    for store in stores:
        store.close()


def test_a_store_of_another_version_is_refused(store: Store, url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreUnreachableError, match="schema 9999"):
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
