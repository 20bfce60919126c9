"""Connections, transactions and the schema's version: what differs between SQLite and PostgreSQL."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Update,
    create_engine,
    event,
    exc,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Session
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from .errors import SchemaError, StoreUnreachableError, UsageError
from .interrupts import interrupts_held
from .settings import hide_password

SCHEMA_VERSION = "0011"
"""The newest migration. A test compares it with Alembic's own head; importing Alembic to ask takes too long."""

BINARY = "scanomaly_binary"
"""Execution option: PostgreSQL sends the rows in its binary format. As text, a vector is twice as long."""

_CONNECTION = {
    "connect_timeout": 5,
    # A server that vanished without a word counts as lost after so long, and is not waited for for ever.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""libpq's own names; what a store's URL says goes before."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 30
# Any number, as long as every Scanomaly uses the same one.
_POSTGRES_LOCK = 7_226_662_559


class Database:
    """Opens transactions, and makes the tables when they are not there.

    Attributes:
        schema_before: the schema's version when it was opened; None for a new store.
    """

    def __init__(self, url: str, upgrade: bool = False) -> None:
        """Connect.

        Args:
            url: SQLAlchemy's URL.
            upgrade: bring an older schema to this program's version, instead of refusing it.

        Raises:
            StoreUnreachableError: nothing answers at the URL.
            SchemaError: the schema is older or newer than this program's.
            UsageError: the URL cannot be right.
        """
        self._engine = _engine(url)
        self.name = hide_password(self._engine.url.render_as_string(hide_password=False))
        # BEGIN IMMEDIATE takes SQLite's write lock at the start. With a plain BEGIN a transaction that reads and
        # then writes fails at once when another has written in between, whatever the busy timeout is.
        self._writing_engine = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        with self._errors():
            self.schema_before = self._ensure_schema(upgrade)

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    def now(self, session: Session) -> datetime:
        """The database's clock: the same for all machines that use it. SQLite's is this machine's."""
        if self.dialect == "sqlite":
            return datetime.now(UTC)
        now: datetime = session.scalars(select(func.clock_timestamp())).one()
        return now

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for queries."""
        with self._errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at its end, or rolls back when the block raises. Ctrl-C waits for it."""
        with self._errors(), interrupts_held(), Session(self._writing_engine) as session, session.begin():
            yield session

    def insert_many(
        self, session: Session, table: str, columns: Sequence[str], rows: Iterable[tuple[str | int | None, ...]]
    ) -> None:
        """Insert rows in their order, in the fastest way that the database has."""
        driver: Any = session.connection().connection.driver_connection
        names = ", ".join(columns)
        if self.dialect == "postgresql":
            with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join("?" for _ in columns)
            driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        driver = self._engine.dialect.loaded_dbapi
        try:
            yield
        except (exc.DBAPIError, driver.Error) as error:
            cause = error.orig if isinstance(error, exc.DBAPIError) else error
            if isinstance(cause, driver.IntegrityError | driver.ProgrammingError | driver.DataError):
                raise  # not the database's fault, but ours
            reason = str(cause).strip().splitlines()[0]
            raise StoreUnreachableError(
                f"the store {self.name} cannot be used ({reason}): check SCANOMALY_STORE_URL or unset it for SQLite"
            ) from error
        except exc.IllegalStateChangeError as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # it came between two steps of a session
            raise

    def _ensure_schema(self, upgrade: bool) -> str | None:
        with self._engine.connect() as connection:
            version = _schema_version(connection)
        if version is None or (upgrade and version < SCHEMA_VERSION):
            self._migrate()
        elif version < SCHEMA_VERSION:
            raise SchemaError(
                f"the store {self.name} has schema {version}, older than this program's {SCHEMA_VERSION}: stop the "
                "workers of the older version and run `scanomaly store upgrade`"
            )
        elif version > SCHEMA_VERSION:
            raise SchemaError(
                f"the store {self.name} has schema {version}, newer than this program's {SCHEMA_VERSION}: install "
                "the newer Scanomaly here"
            )
        return version

    def _migrate(self) -> None:
        """Bring the schema to this program's version, in one transaction; nothing happens where it is there."""
        from alembic import command
        from alembic.config import Config

        with self._writing_engine.begin() as connection:
            if self.dialect == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRES_LOCK})"))
            # Where another process was faster, Alembic finds its tables, and does nothing.
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
            command.upgrade(config, "head")


def upsert(session: Session, table: type[DeclarativeBase]) -> Any:
    """SQLAlchemy's INSERT with ON CONFLICT, which both databases have, each in a module that takes long to load."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def changed_rows(session: Session, statement: Update) -> int:
    """Execute an update, and say how many rows it changed."""
    return session.connection().execute(statement).rowcount


def _schema_version(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise UsageError(
                f"SCANOMALY_STORE_URL: {parsed.get_backend_name()} is not supported; use sqlite or postgresql"
            )
        if url.startswith("postgresql") and url.count("@") > 1:
            raise UsageError("SCANOMALY_STORE_URL: in a password, @ is written %40, / %2F, : %3A")
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(url, parsed.database)
        return _postgres_engine(parsed)
    except exc.ArgumentError:
        raise UsageError("SCANOMALY_STORE_URL is not a database URL such as postgresql://user@host/name") from None
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'scanomaly[postgres]'") from None


def _postgres_engine(url: URL) -> Engine:
    own = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, connect_args=own)

    @event.listens_for(engine, "before_cursor_execute")
    def _choose_format(_connection: Any, cursor: Any, _sql: str, _values: Any, context: Any, _many: bool) -> None:
        if context is not None and context.execution_options.get(BINARY):
            cursor.format = 1  # psycopg.pq.Format.BINARY

    return engine


def _sqlite_engine(url: str, database: str | None) -> Engine:
    if not database or database == ":memory:":
        raise UsageError("SCANOMALY_STORE_URL: SQLite in memory is seen by one process only; name a file")
    try:
        Path(database).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnreachableError(
            f"the store's folder {Path(database).parent} cannot be made ({error.strerror}): set SCANOMALY_HOME"
        ) from None
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: the listener below does, in the right way.
        connection.isolation_level = None
        _write_ahead(connection)
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine


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
