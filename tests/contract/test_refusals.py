"""What a store's URL, its server and its rights can lack: a sentence each, and what it says to give helps."""

import re
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from scanomaly.models.errors import StoreRefusedError, StoreUnreachableError, UsageError
from scanomaly.models.records import FoundScan, NewJob
from scanomaly.models.settings import Settings
from scanomaly.models.store import Store

from .test_store import OFFLINE, add_job, embed_all

ROLE = "Ann-1"  # which SQL takes in quotation marks only


class Server:
    """A database of its own, as its administrator sees it."""

    def __init__(self, admin_url: str, name: str) -> None:
        self._admin_url = admin_url
        self.name = name

    def admin(self, *statements: str, database: str | None = None) -> None:
        url = self._admin_url.replace("/postgres?", f"/{database or self.name}?")
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]

    def make(self, options: str = "") -> None:
        self.admin(f"CREATE DATABASE {self.name} {options}", database="postgres")

    def url(self, role: str | None = ROLE, options: str = "") -> str:
        url = self._admin_url.replace("/postgres?", f"/{self.name}?") + options
        return url if role is None else re.sub("//[^@]*@", f"//{role}@", url)

    def open(self, role: str | None = ROLE, options: str = "") -> Store:
        return Store.open(Settings(store_url=self.url(role, options)))


@pytest.fixture
def server(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(postgres_url, f"refusals_{abs(hash(request.node.name))}")
    with suppress(psycopg.errors.DuplicateObject):
        server.admin(f'CREATE ROLE "{ROLE}" LOGIN', database="postgres")
    yield server
    server.admin(f"DROP DATABASE IF EXISTS {server.name} WITH (FORCE)", database="postgres")


def advice(server: Server, error: type[Exception], reason: str, options: str = "") -> str:
    """What the sentence says to type."""
    with pytest.raises(error, match=reason) as caught:
        use(server, options)
    assert "\n" not in str(caught.value)
    typed = re.search("`(.*)`", str(caught.value))
    assert typed is not None, str(caught.value)
    return typed[1]


def use(server: Server, options: str = "") -> None:
    store = server.open(options=options)
    try:
        add_job(store, "job")
        embed_all(store, "job")
        store.cancel("job")
        assert store.find_job("job").scans == 5
    finally:
        store.close()


@pytest.mark.parametrize(
    ("before", "reason", "options"),
    [
        ("SELECT 1", "permission denied for schema public", ""),  # as PostgreSQL 15 and newer are
        ("REVOKE ALL ON SCHEMA public FROM PUBLIC", "no schema has been selected", ""),
        ("SELECT 1", "no schema has been selected", "&options=-csearch_path%3Dscans"),
    ],
)
def test_no_right_to_make_tables(server: Server, before: str, reason: str, options: str) -> None:
    server.make()
    server.admin("REVOKE CREATE ON SCHEMA public FROM PUBLIC", before)
    server.admin(advice(server, StoreRefusedError, reason, options))
    use(server, options)


def test_no_rights_on_the_tables(server: Server) -> None:
    server.make()
    server.open(role=None).close()
    server.admin(advice(server, StoreRefusedError, "permission denied for table"))
    use(server)


def test_a_right_that_is_taken_away_while_it_is_used(server: Server) -> None:
    server.make()
    server.open(role=None).close()
    server.admin(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{ROLE}"')
    store = server.open()
    assert store.lists.jobs() == []  # which needs no more
    with pytest.raises(StoreRefusedError, match="permission denied for table") as caught:
        store.submissions.add(NewJob("job", ".", "/s", "/r", OFFLINE, 2), [FoundScan("a.png")], [])
    assert caught.value.exit_code == 1
    store.close()


def test_no_right_to_connect(server: Server) -> None:
    server.make()
    server.admin(f"REVOKE CONNECT ON DATABASE {server.name} FROM PUBLIC")
    server.admin(advice(server, StoreUnreachableError, "permission denied for database"))
    server.admin(f'GRANT CREATE ON SCHEMA public TO "{ROLE}"')
    use(server)


def test_no_such_database(server: Server) -> None:
    statement = advice(server, StoreUnreachableError, "does not exist")
    server.admin(statement, database="postgres")
    use(server)


def test_no_such_user(server: Server) -> None:
    server.make()
    with pytest.raises(StoreUnreachableError, match="check the user and the password"):
        server.open("nobody_at_all")


def test_tables_of_another_program(server: Server) -> None:
    server.make()
    server.admin("CREATE TABLE jobs (id int)")
    with pytest.raises(StoreRefusedError, match=r"already exists.*another program"):
        server.open(role=None)


def test_a_server_that_may_only_be_read(server: Server) -> None:
    server.make()
    server.admin(f"ALTER DATABASE {server.name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnreachableError, match=r"read-only transaction.*primary"):
        server.open(role=None)


def test_a_database_without_an_encoding_holds_every_name(server: Server) -> None:
    server.make("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    store = server.open(role=None)
    job = NewJob("job", "/süß/漢", "/scans", "/r", OFFLINE, 2)
    store.submissions.add(job, [FoundScan("ü/漢.png")], [])
    batch = store.batches.begin(next(iter(store.batches.unfinished("job"))), "w1")
    assert batch is not None
    assert [scan.path for scan in batch.scans] == ["ü/漢.png"]
    assert store.find_job("job").source == "/süß/漢"
    store.close()


def test_a_name_that_the_encoding_has_not_is_told_and_nothing_is_stored(server: Server) -> None:
    server.make("ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    store = server.open(role=None, options="&client_encoding=latin1")
    with pytest.raises(StoreRefusedError, match=r"LATIN1.*ENCODING 'UTF8'") as caught:
        store.submissions.add(NewJob("job", ".", "/s", "/r", OFFLINE, 2), [FoundScan("漢.png")], [])
    assert "\n" not in str(caught.value)
    assert store.lists.jobs() == []
    store.submissions.add(NewJob("job", ".", "/s", "/r", OFFLINE, 2), [FoundScan("ü.png")], [])
    assert store.find_job("job").scans == 1
    store.close()


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("schema=scans", "no parameter 'schema'.*search_path"),
        ("currentSchema=scans", "no parameter 'currentSchema'.*search_path"),
        ("sslmod=require", "did you mean sslmode"),
        ("prepare_threshold=0", "no parameter 'prepare_threshold'"),
        ("pool_size=5", "no parameter 'pool_size'"),
        ("sslmode=maybe", "invalid sslmode value"),
        ("connect_timeout=soon", "connect_timeout"),
        ("port=99999", "invalid port"),
        ("options=-cno.such%20x", "SCANOMALY_STORE_URL cannot be right"),
        ("options=-cnosuch%3D1", "unrecognized configuration parameter"),
    ],
)
def test_a_parameter_that_cannot_be(postgres_url: str, parameter: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Store.open(Settings(store_url=f"{postgres_url}&{parameter}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg2://ann@host/scans", "driver psycopg2.*write postgresql://"),
        ("postgresql+asyncpg://ann@host/scans", "driver asyncpg.*write postgresql://"),
        ("sqlite+aiosqlite:////x/y.sqlite", "driver aiosqlite.*write sqlite:///"),
        ("'postgresql://ann@host/scans'", "not a database URL.*without quotation marks"),
        ("mysql://ann@host/scans", "mysql is not supported"),
        ("redis://host/0", "redis is not supported"),
        ("postgresql://ann@host:port/scans", "not a database URL"),
        ("postgresql://ann:a@b@host/scans", "in a password"),
        ("postgres://ann:a@b@host/scans", "in a password"),
        ("sqlite://x/y.sqlite", "three slashes"),
        ("sqlite:////x/y.sqlite?mode=ro", "no parameters"),
        ("/x/y.sqlite", "not a database URL such as sqlite:///"),
    ],
)
def test_a_url_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Store.open(Settings(store_url=url))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "POSTGRESQL"])
def test_every_name_of_the_scheme_is_taken(server: Server, scheme: str) -> None:
    server.make()
    Store.open(Settings(store_url=server.url(None).replace("postgresql", scheme, 1))).close()
