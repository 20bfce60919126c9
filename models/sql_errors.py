"""What a database's errors mean for a person: the right error of ours, with what to do about it."""

import re
import sqlite3
from typing import Any

from sqlalchemy import URL, exc

from .engines import name_of
from .errors import ScanomalyError, StoreRefusedError, StoreUnreachableError, UsageError

_HINT = "check SCANOMALY_STORE_URL or unset it for SQLite"

#: Where PostgreSQL was not connected to there is no code, but a sentence, in English unless the server has another
#: language. What is not known here keeps the general hint.
_NOT_CONNECTED = {
    r"permission denied for database": "as its owner, `GRANT CONNECT ON DATABASE {database} TO {role}`",
    r"database .* does not exist|no such database": "check its name in SCANOMALY_STORE_URL, or make it with "
    "`CREATE DATABASE {database} OWNER {role} ENCODING 'UTF8' TEMPLATE template0`",
    r"authentication failed|no password supplied|role .* does not exist|no such user|no pg_hba.conf entry|SASL": (
        "check the user and the password in SCANOMALY_STORE_URL, and the server's pg_hba.conf"
    ),
    r"too many clients|remaining connection slots|query_wait_timeout|no more connections": (
        "raise the server's limit of connections, or run fewer workers"
    ),
}
#: What libpq, the server or PgBouncer say of a parameter of the URL that cannot be.
_BAD_PARAMETER = re.compile(
    r"invalid (\w+ )?value|invalid port number|invalid integer|unrecognized configuration parameter"
    r"|unsupported startup parameter|bad value for|requires a value|certificate file .* does not exist"
    r"|invalid connection option|invalid command-line argument"
)
_OF_ANOTHER = "it has tables of another program: name a database of its own, or a schema with " + (
    "?options=-csearch_path%3DNAME"
)
_NOT_UTF8 = "it cannot hold every name: move it to a database made with ENCODING 'UTF8' TEMPLATE template0"
#: PostgreSQL's codes: insufficient privilege, duplicate table, duplicate object, untranslatable character,
#: character not in repertoire, read-only transaction.
_BY_CODE: dict[str, tuple[type[ScanomalyError], str]] = {
    "42501": (StoreRefusedError, "run `scanomaly store upgrade` as the role that owns its tables"),
    "42P07": (StoreRefusedError, _OF_ANOTHER),
    "42710": (StoreRefusedError, _OF_ANOTHER),
    "22P05": (StoreRefusedError, _NOT_UTF8),
    "22021": (StoreRefusedError, _NOT_UTF8),
    "25006": (
        StoreUnreachableError,
        "name the primary server in SCANOMALY_STORE_URL, or several with ?target_session_attrs=read-write",
    ),
}
_SQLITE_HINTS = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "make room on its disk, and see whether that is sound",
    sqlite3.SQLITE_NOTADB: "another file lies in the store's place: move it away",
    sqlite3.SQLITE_CORRUPT: "it is damaged: bring back a copy, or move it away",
    sqlite3.SQLITE_BUSY: "another program holds it",
}
_SQLITE_PLACE = "set SCANOMALY_HOME to a folder whose files you may read and write"


def explain(error: exc.DBAPIError | Exception, url: URL) -> ScanomalyError | None:
    """The error for a person; None where it is not the database's fault, but ours.

    Args:
        error: SQLAlchemy's, or the driver's own.
        url: the store's.
    """
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    name = name_of(url)
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause, reason, name)
    if getattr(cause, "sqlstate", None) is None:
        return _of_connecting(error, reason, name, url)
    return _of_server(cause, reason, name, url)


def _of_sqlite(cause: sqlite3.Error, reason: str, name: str) -> ScanomalyError | None:
    if isinstance(cause, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError):
        return None
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreRefusedError(f"the store {name} may only be read here ({reason}): {_SQLITE_PLACE}")
    return StoreUnreachableError(
        f"the store {name} cannot be used ({reason}): {_SQLITE_HINTS.get(code, _SQLITE_PLACE)}"
    )


def _of_connecting(error: Exception, reason: str, name: str, url: URL) -> ScanomalyError | None:
    while_connecting = isinstance(error, exc.DBAPIError) and error.statement is None
    if while_connecting and _BAD_PARAMETER.search(reason):
        hint = "what comes after its ? goes to libpq"
        if "unsupported startup parameter" in reason:
            hint = "PgBouncer passes no options: leave them out, and `ALTER ROLE … SET` them at the server"
        return UsageError(f"SCANOMALY_STORE_URL cannot be right ({reason}): {hint}")
    if not isinstance(error, exc.OperationalError | exc.InternalError) and not _is_operational(error):
        return None
    hint = next((hint for words, hint in _NOT_CONNECTED.items() if re.search(words, reason)), _HINT)
    hint = hint.format(role=_role(url), database=_quoted(url.database or "NAME"))
    return StoreUnreachableError(f"the store {name} cannot be used ({reason}): {hint}")


def _is_operational(error: Exception) -> bool:
    return type(error).__name__ in ("OperationalError", "InternalError", "InterfaceError")


def _of_server(cause: Any, reason: str, name: str, url: URL) -> ScanomalyError | None:
    """By the code, which is the same in whatever language the server speaks."""
    state: str = cause.sqlstate
    if state in ("42501", "3F000") and "must be owner" not in reason:
        return StoreRefusedError(
            f"the store {name} refuses that ({reason}): as its owner, `{_grant(state, reason, url)}`"
        )
    if state in _BY_CODE:
        kind, hint = _BY_CODE[state]
    elif state[:2] in ("22", "23", "42"):  # data, constraints, syntax
        return None
    else:
        kind, hint = StoreUnreachableError, _HINT
    return kind(f"the store {name} cannot be used ({reason}): {hint}")


def _grant(state: str, reason: str, url: URL) -> str:
    """What gives the role the rights that it needs: of making tables, or of using them."""
    role, chosen = _role(url), _schema(url)
    if state == "3F000":
        return f"CREATE SCHEMA IF NOT EXISTS {chosen}; GRANT USAGE, CREATE ON SCHEMA {chosen} TO {role}"
    if schema := re.search(r"for schema (\S+)", reason):
        return f"GRANT USAGE, CREATE ON SCHEMA {schema[1]} TO {role}"
    return (
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {chosen} TO {role}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {chosen} TO {role}"
    )


def _schema(url: URL) -> str:
    chosen = re.search(r"search_path=([^\s,]+)", str(url.query.get("options", "")))
    return chosen[1] if chosen else "public"


def _role(url: URL) -> str:
    return _quoted(url.username or str(url.query.get("user", "ROLE")))


def _quoted(name: str) -> str:
    """An identifier as SQL takes it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'
