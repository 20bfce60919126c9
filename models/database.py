"""Connections, transactions and the schema's version: what differs between SQLite and PostgreSQL."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Update, exc, func, select, text
from sqlalchemy.orm import DeclarativeBase, Session

from .engines import empty_engine, make_engine, name_of, parse_store_url
from .errors import SchemaError
from .interrupts import interrupts_held
from .sql_errors import explain
from .tables import Base

SCHEMA_VERSION = "0011"
"""The newest migration. A test compares it with Alembic's own head; importing Alembic to ask takes too long."""

_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number, as long as every Scanomaly uses the same one.
_POSTGRES_LOCK = 7_226_662_559


class Database:
    """Opens transactions, and makes the tables when they are not there.

    Attributes:
        schema_before: the schema's version when it was opened; None for a new store.
    """

    def __init__(self, url: str | URL, upgrade: bool = False, read_only: bool = False) -> None:
        """Connect.

        Args:
            url: SQLAlchemy's URL. A file whose path has a `?` in it is in no text, but in a `URL`.
            upgrade: bring an older schema to this program's version, instead of refusing it.
            read_only: make no store where there is none, but see an empty one; and leave nothing beside another
                user's file.

        Raises:
            StoreUnreachableError: nothing answers at the URL.
            StoreRefusedError: a right is missing there.
            SchemaError: the schema is older or newer than this program's.
            UsageError: the URL cannot be right.
        """
        self._url = parse_store_url(url) if isinstance(url, str) else url
        self._read_only = read_only
        self.name = name_of(self._url)
        self._engine = make_engine(self._url, read_only)
        # BEGIN IMMEDIATE takes SQLite's write lock at the start. With a plain BEGIN a transaction that reads and
        # then writes fails at once when another has written in between, whatever the busy timeout is.
        self._writing_engine = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        try:
            with self._errors():
                self.schema_before = self._ensure_schema(upgrade)
        except BaseException:
            self.close()
            raise

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
            explained = explain(error, self._url)
            if explained is None:
                raise
            raise explained from error
        except exc.IllegalStateChangeError as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # it came between two steps of a session
            raise

    def _ensure_schema(self, upgrade: bool) -> str | None:
        with self._engine.connect() as connection:
            version = _schema_version(connection)
        if version is None and self._read_only:
            self._see_nothing()
        elif version is not None and not version.isdigit():
            raise SchemaError(
                f"the store {self.name} has tables of another program (its schema is called {version}): name a "
                "database of its own in SCANOMALY_STORE_URL"
            )
        elif version is None or (upgrade and version < SCHEMA_VERSION):
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

    def _see_nothing(self) -> None:
        """Have an empty store in memory in the place of one that was not made yet."""
        self._engine.dispose()
        self._engine = empty_engine()
        self._writing_engine = self._engine.execution_options()
        Base.metadata.create_all(self._engine)

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
