"""Engines: a store's URL is checked, and what SQLite and PostgreSQL need is set."""

import difflib
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, StaticPool, create_engine, event, exc, make_url
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from .errors import StoreUnreachableError, UsageError
from .settings import hide_password

BINARY = "scanomaly_binary"
"""Execution option: PostgreSQL sends the rows in its binary format. As text, a vector is twice as long."""

_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}
_NAMES = {"postgres": "postgresql"}
_EXAMPLES = {"sqlite": "sqlite:////data/store.sqlite", "postgresql": "postgresql://user@host/name"}
_CONNECTION = {
    "connect_timeout": 5,
    # A server that vanished without a word counts as lost after so long, and is not waited for for ever.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""libpq's own names; what a store's URL says goes before."""
_ALWAYS = {
    # In a database without an encoding (SQL_ASCII), text would come as bytes.
    "client_encoding": "utf8",
    # PgBouncer gives each transaction another server connection, which does not know what was prepared on the last.
    "prepare_threshold": None,
}
_BUSY_SECONDS = 30


def parse_store_url(text: str) -> URL:
    """A store's URL with the driver that is used.

    Raises:
        UsageError: it names no database that a store can be in.
    """
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: the port is not a number
        raise UsageError(
            f"SCANOMALY_STORE_URL is not a database URL such as {' or '.join(_EXAMPLES.values())}, without "
            "quotation marks; in a password, @ is written %40, / %2F, : %3A"
        ) from None
    kind, _, driver = url.drivername.lower().partition("+")
    kind = _NAMES.get(kind, kind)
    if kind not in _DRIVERS:
        raise UsageError(f"SCANOMALY_STORE_URL: {kind} is not supported; use sqlite or postgresql")
    if driver not in ("", _DRIVERS[kind]):
        raise UsageError(
            f"SCANOMALY_STORE_URL names the driver {driver}, which is not used here: write {_EXAMPLES[kind]}"
        )
    if kind == "postgresql" and text.count("@") > 1:
        raise UsageError("SCANOMALY_STORE_URL: in a password, @ is written %40, / %2F, : %3A")
    if kind == "sqlite":
        _check_sqlite(url)
    return url.set(drivername=f"{kind}+psycopg" if kind == "postgresql" else kind)


def _check_sqlite(url: URL) -> None:
    if url.host or url.username or url.port:
        raise UsageError(f"SCANOMALY_STORE_URL: a file's URL has three slashes and its path: {_EXAMPLES['sqlite']}")
    if not url.database or url.database == ":memory:":
        raise UsageError("SCANOMALY_STORE_URL: SQLite in memory is seen by one process only; name a file")
    if url.query:
        raise UsageError(
            "SCANOMALY_STORE_URL: SQLite takes no parameters after a ?; a ? in a path is written %3F, and % is %25"
        )


def name_of(url: URL) -> str:
    """A store's URL as a person may see it: without its password, and a file's path as it is."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}".encode(errors="replace").decode()
    return hide_password(url.render_as_string(hide_password=False))


def make_engine(url: URL, read_only: bool) -> Engine:
    """Connect to nothing yet, but know how.

    Args:
        url: of `parse_store_url`.
        read_only: neither make nor change anything.

    Raises:
        UsageError: the URL cannot be right, or its driver is not installed.
        StoreUnreachableError: the folder of SQLite's file cannot be made.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, Path(str(url.database)).absolute(), read_only)
    try:
        return _postgres_engine(url)
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'scanomaly[postgres]'") from None


def empty_engine() -> Engine:
    """A database in memory, for one process: what there is to see of a store that was not made yet."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    _begin_as_told(engine)
    return engine


def _postgres_engine(url: URL) -> Engine:
    _check_parameters(url)
    own = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, connect_args=own | _ALWAYS)

    @event.listens_for(engine, "before_cursor_execute")
    def _choose_format(_connection: Any, cursor: Any, _sql: str, _values: Any, context: Any, _many: bool) -> None:
        if context is not None and context.execution_options.get(BINARY):
            cursor.format = 1  # psycopg.pq.Format.BINARY

    return engine


def _check_parameters(url: URL) -> None:
    from psycopg import pq

    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    for name in url.query:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else "they are those of libpq, such as sslmode"
        if "schema" in name.lower() or "search" in name.lower():
            hint = "a schema is chosen with ?options=-csearch_path%3DNAME"
        raise UsageError(f"SCANOMALY_STORE_URL: PostgreSQL knows no parameter {name!r}: {hint}")


def _sqlite_engine(url: URL, file: Path, read_only: bool) -> Engine:
    try:
        if not read_only:
            _make_folder(file.parent)
        # Who may not write the file can only look, whatever they want.
        looks = read_only or (file.exists() and not os.access(file, os.W_OK))
        if looks and not file.exists():
            return empty_engine()
    except OSError as error:
        raise StoreUnreachableError(
            f"the store {file} cannot be looked at ({error.strerror}): ask its owner, or set SCANOMALY_HOME"
        ) from None
    if looks:
        engine = create_engine(url, poolclass=NullPool, creator=lambda: _connect_to_look(file))
    else:
        engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: the listener of "begin" does, in the right way.
        connection.isolation_level = None
        if not looks:
            _write_ahead(connection)
        connection.execute("PRAGMA foreign_keys=ON")

    _begin_as_told(engine)
    return engine


def _begin_as_told(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise StoreUnreachableError(
            f"the store's folder {folder} cannot be made (it is a file): set SCANOMALY_HOME to a folder"
        ) from None
    except OSError as error:
        raise StoreUnreachableError(
            f"the store's folder {folder} cannot be made ({error.strerror}): set SCANOMALY_HOME"
        ) from None


def _connect_to_look(file: Path) -> sqlite3.Connection:
    """Connect to a file that is there, and leave nothing beside it that its owner could not write.

    SQLite makes its log and the log's index (`-wal`, `-shm`) for whoever reads, too, and they belong to who
    made them. So anybody but the owner takes those that are there, or, where the log is empty, the file alone.
    """
    options: dict[str, Any] = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    if file.stat().st_uid == os.geteuid() and os.access(file.parent, os.W_OK):
        own: sqlite3.Connection = sqlite3.connect(file, **options)
        return own
    log = file.with_name(file.name + "-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    others: sqlite3.Connection = sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, **options)
    return others


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Keep SQLite's journal as a write-ahead log, so that readers and the writer do not wait for each other.

    Of processes that open a new file at once, one turns it over, and SQLite refuses the others at once, whatever
    the busy timeout is: each of them holds the lock for reading that another one waits for.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_busy),
        stop=stop_after_delay(_BUSY_SECONDS),
        wait=wait_random(max=0.1),
        reraise=True,
    )
    retrying(connection.execute, "PRAGMA journal_mode=WAL")


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
