"""PostgreSQL as a deployment has it: a role with a password, and a database of its own."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from ..waiting import until

ROLE = "scanomaly"


@dataclass(frozen=True)
class Postgres:
    """Who connects as `scanomaly`, and to the database `scanomaly`, needs the password."""

    socket: Path
    admin_url: str

    def new_database(self, password: str) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {ROLE} WITH (FORCE)")
            admin.execute(f"DROP ROLE IF EXISTS {ROLE}")
            admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'")
            admin.execute(f"CREATE DATABASE {ROLE} OWNER {ROLE}")

    def url(self, port: int, password: str, options: str = "", host: str = "localhost") -> str:
        return f"postgresql://{ROLE}:{quote(password, safe='')}@{host}:{port}/{ROLE}{options}"


@pytest.fixture(scope="session")
def postgres(postgres_url: str) -> Postgres:
    """The server of `postgres_url`, which trusts everybody else who has its socket."""
    folder = re.search(r"host=([^&]+)", postgres_url)
    assert folder is not None
    server = Postgres(Path(folder[1]) / ".s.PGSQL.5432", postgres_url)
    server.new_database("first")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        rules = Path(admin.execute("SHOW hba_file").fetchone()[0])  # type: ignore[index]
        rules.write_text(f"local all {ROLE} scram-sha-256\n{rules.read_text()}")
        admin.execute("SELECT pg_reload_conf()")

    def asks_for_a_password() -> bool:
        try:
            psycopg.connect(postgres_url, user=ROLE, dbname=ROLE, password="wrong").close()
        except psycopg.OperationalError:
            return True
        return False

    until(asks_for_a_password, "PostgreSQL has read its rules")
    return server


@pytest.fixture
def database(postgres: Postgres) -> Postgres:
    """Empty, with the password `p@ss/w:rd`, which has to be written otherwise in a URL."""
    postgres.new_database("p@ss/w:rd")
    return postgres
