"""PgBouncer in transaction mode: each transaction has another connection to the server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.records import FoundScan, NewJob, ScanResult
from scanomaly.models.settings import Settings
from scanomaly.models.states import FailureKind
from scanomaly.models.store import Store
from scanomaly.worker.aggregate import Aggregator
from tests.filled import fill

from .conftest import ROLE, Postgres
from .servers import PgBouncer


@pytest.fixture
def settings(database: Postgres, tmp_path: Path) -> Iterator[Settings]:
    with PgBouncer(database.socket, "postgres") as bouncer:
        url = f"postgresql://postgres@127.0.0.1:{bouncer.port}/{ROLE}"
        yield Settings(home=tmp_path, store_url=url)


def test_a_job_is_scored_through_it(settings: Settings, database: Postgres, tmp_path: Path) -> None:
    """Tables are made, rows copied in, vectors read in a cursor and as binary, and scores written."""
    Store.open(settings).close()
    direct = database.admin_url.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", f"/{ROLE}?")
    fill(direct, tmp_path / "report", scans=96, dimension=16, failed=2, job_id="job")
    store = Store.open(settings)
    Aggregator(store, settings).aggregate("job", "w1")
    job = store.find_job("job")
    assert (job.state, job.error) == ("done", None)
    assert (tmp_path / "report" / "scores.csv").read_text().count("\n") == 1 + 94
    store.close()


def test_workers_of_several_connections_take_and_finish_batches(settings: Settings) -> None:
    """So many times that psycopg would prepare the statements, which the next server connection would not know."""
    store = Store.open(settings)
    scans = [FoundScan(f"{number}.png") for number in range(80)]
    store.submissions.add(NewJob("job", ".", "/scans", "/report", parse_encoder(), 2), scans, [])
    batches = iter(list(store.batches.unfinished("job")))
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for batch_id in batches:
                store.workers.beat(name, "host", 1, "cpu", "1")
                batch = store.batches.begin(batch_id, name)
                assert batch is not None
                results = [ScanResult(scan.id, failure=FailureKind.EMPTY, detail="empty") for scan in batch.scans]
                store.batches.finish(batch, results, {})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[name]) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.progress("job").failed == 80
    store.close()
