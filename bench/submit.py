"""A job's way into the store, against walking the tree and inserting the rows by hand; and what it costs there."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.servers import DATABASES, Broker, Postgres, Sqlite

from .table import Row, row_of_rounds
from .world import Scanomaly

_A_FOLDER = 1000
_SMALL = 1000
_BATCH = 32
_ROUNDS = 5
_MEMORY_MB = 300
_ENCODER = ("--encoder", "efficientnet_lite0")


def rows(files: int, database: str) -> Iterator[Row]:
    """Submit so many empty files.

    Args:
        files: how many, in folders of 1,000.
        database: `sqlite` or `postgres`.
    """
    with _world(database) as (here, broker, server):
        folder = here.home.parent
        one, small, large = (_make_files(folder / str(count), count) for count in (1, _SMALL, files))
        other, connect = _hand(here, server, folder / "hand")
        job_by_hand = _submit(other, one)[0]
        empty = _used(broker)
        job, seconds, megabytes = _submit(here, large)
        yield from _costs(files, database, broker, empty, megabytes)
        by_hand = _time(lambda: _by_hand(large, connect(), job_by_hand))
        what = f"submit {files:,} files, {database}"
        yield Row(what, "walking the tree and inserting the rows by hand", "s", seconds, by_hand, "≤ 2")
        times = _status_times(here, job, _submit(here, small)[0])
        yield row_of_rounds(f"status --json of {files:,} files, {database}", f"of {_SMALL:,} files", "s", *times)


def _costs(files: int, database: str, broker: Broker, empty: int, megabytes: float) -> Iterator[Row]:
    used = (_used(broker) - empty) / files
    (queue,) = broker.queues()
    message: Any = broker.client.memory_usage(queue, samples=0)
    one = message / broker.contents()[queue]
    yield Row(f"peak memory of submit, {database}", "the goal", "MB", megabytes, _MEMORY_MB, "≤ 1")
    yield Row(
        f"Redis, {database}", f"a call for each batch of {_BATCH}", "bytes an image", used, one / _BATCH, "≤ 1"
    )


@contextmanager
def _world(database: str) -> Iterator[tuple[Scanomaly, Broker, Sqlite | Postgres]]:
    """A broker and a store of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user
        broker, server = Broker(folder), DATABASES[database](folder)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SCANOMALY_")}
        own = {"SCANOMALY_HOME": str(folder / "home"), "SCANOMALY_BROKER_URL": broker.url}
        broker.start()
        server.start()
        try:
            yield Scanomaly(folder / "home", inherited | own | server.environment), broker, server
        finally:
            broker.kill()
            server.kill()


def _make_files(folder: Path, count: int) -> Path:
    """Empty files in folders of 1,000, half of them below `no/`, half below `yes/`."""
    for number in range(count):
        below = folder / ("no" if number < count / 2 else "yes") / f"{number // _A_FOLDER:05}"
        if number % _A_FOLDER == 0 or number == (count + 1) // 2:
            below.mkdir(parents=True)
        open(f"{below}/{number:07}.jpg", "x").close()  # `Path.touch` takes several times as long
    return folder


def _submit(here: Scanomaly, folder: Path) -> tuple[str, float, float]:
    """Returns the job's id, the seconds that the command took, and its peak memory in MB."""
    command = [sys.executable, "-P", "-m", "scanomaly.producer.cli", "submit", str(folder), "--json", *_ENCODER]
    command += ["--batch-size", str(_BATCH)]
    begun = time.perf_counter()
    with subprocess.Popen(command, env=here.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"submit ended with {process.returncode}: {output.decode()}")
    return json.loads(output)["job"], seconds, usage.ru_maxrss * 1024 / 1e6


def _status_times(here: Scanomaly, large: str, small: str) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for job, seconds in zip((large, small), times, strict=True):
            seconds.append(_time(lambda job=job: here.status(job)))  # type: ignore[misc]
    return times


def _time(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _used(broker: Broker) -> int:
    info: Any = broker.client.info("memory")
    return int(info["used_memory"])


def _hand(here: Scanomaly, server: Sqlite | Postgres, home: Path) -> tuple[Scanomaly, Callable[[], Any]]:
    """Another store, with the same tables and indexes, and how to connect to it."""
    if isinstance(server, Sqlite):
        return Scanomaly(home, here.environment | {"SCANOMALY_HOME": str(home)}), partial(
            sqlite3.connect, home / "store.sqlite"
        )
    with server.connect() as admin:
        admin.autocommit = True
        admin.execute("CREATE DATABASE hand")
    url = server.environment["SCANOMALY_STORE_URL"].replace("/postgres?", "/hand?")
    return Scanomaly(home, here.environment | {"SCANOMALY_STORE_URL": url}), partial(psycopg.connect, url)


def _by_hand(folder: Path, connection: Any, job: str) -> None:
    """Walk a folder, and add its files to a job that has one batch, in one transaction."""
    paths = [
        f"{label}/{below.name}/{file.name}"
        for label in ("no", "yes")
        for below in os.scandir(folder / label)
        for file in os.scandir(below)
    ]
    batches = [
        (2 + begin // _BATCH, job, "pending", 0, min(_BATCH, len(paths) - begin), 0, 0, 0)
        for begin in range(0, len(paths), _BATCH)
    ]
    labels = {"n": "normal", "y": "anomaly"}
    _insert(connection, "batches", "id, job_id, state, deaths, scans, embedded, failed, encoded", batches)
    scans = ((job, 2 + number // _BATCH, path, labels[path[0]], "pending") for number, path in enumerate(paths))
    _insert(connection, "scans", "job_id, batch_id, path, label, state", scans)
    connection.commit()
    connection.close()


def _insert(connection: Any, table: str, columns: str, values: Iterable[tuple[str | int, ...]]) -> None:
    if isinstance(connection, sqlite3.Connection):
        marks = ", ".join("?" for _ in columns.split(","))
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)
        return
    with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)
