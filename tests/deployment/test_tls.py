"""Passwords and TLS by URL, as docs/deployment.md writes them; and that no password gets out."""

import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import trustme

from scanomaly.models.database import Database
from scanomaly.models.errors import BrokerUnreachableError, StoreUnreachableError
from scanomaly.models.queue import Queue
from scanomaly.models.records import Call
from scanomaly.models.settings import Settings
from scanomaly.models.states import Priority
from scanomaly.producer.sample import draw_sample
from tests.acceptance.conftest import COMMAND, OFFLINE, Scanomaly

from ..waiting import HANGS, until
from .conftest import Postgres
from .servers import PostgresFront, RedisServer

PASSWORD = "p@ss/w:rd"
QUOTED = "p%40ss%2Fw%3Ard"


@dataclass(frozen=True)
class Certificates:
    """Of the authority that signed the servers' certificates, and of another one."""

    folder: Path

    @property
    def ours(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def another(self) -> Path:
        return self.folder / "another.pem"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("tls"))
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(made.ours))
    trustme.CA().cert_pem.write_to_path(str(made.another))
    server.private_key_and_cert_chain_pem.write_to_path(str(made.folder / "server.pem"))
    return made


@pytest.fixture(scope="module")
def redis_port(certificates: Certificates) -> Iterator[int]:
    server, authority = str(certificates.folder / "server.pem"), str(certificates.ours)
    files = ["--tls-cert-file", server, "--tls-key-file", server, "--tls-ca-cert-file", authority]
    with RedisServer(
        *files, "--tls-auth-clients", "no", "--requirepass", PASSWORD, "--save", "", tls=True
    ) as redis:
        yield redis.port


@pytest.fixture
def postgres_port(database: Postgres, certificates: Certificates) -> Iterator[int]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.folder / "server.pem")
    with PostgresFront(database.socket, tls) as front:
        yield front.port


def broker_url(port: int, authority: Path, password: str = QUOTED, host: str = "localhost") -> str:
    return f"rediss://:{password}@{host}:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={authority}"


def refused(url: str) -> str:
    """The one line with which a broker is refused."""
    with pytest.raises(BrokerUnreachableError) as caught:
        Queue(Settings(broker_url=url)).check()
    return str(caught.value)


def without_secrets(text: str) -> bool:
    return not any(secret in text for secret in (PASSWORD, QUOTED, "wr0ng", "ss/w", "ss%2Fw"))


def test_redis_with_tls_and_a_password(redis_port: int, certificates: Certificates) -> None:
    queue = Queue(Settings(broker_url=broker_url(redis_port, certificates.ours)))
    queue.check()
    queue.embed([Call(7, Priority.NORMAL)])
    assert queue.alive().batches == {7}
    assert without_secrets(queue.name)


def test_redis_is_refused_in_one_line(redis_port: int, certificates: Certificates) -> None:
    messages = [
        refused(broker_url(redis_port, certificates.another)),
        refused(broker_url(redis_port, certificates.ours, host="127.0.0.1")),
        refused(broker_url(redis_port, certificates.ours, password="wr0ng")),
        refused(broker_url(redis_port, certificates.ours).replace("rediss:", "redis:").partition("?")[0]),
    ]
    parts = ("certificate verify failed", "not valid for '127.0.0.1'", "invalid username-password", "broker")
    for message, part in zip(messages, parts, strict=True):
        assert part in message
        assert "\n" not in message
        assert without_secrets(message)


def test_tls_without_options_checks_the_certificate(redis_port: int) -> None:
    """kombu's own default does not, and whoever stands in between reads the password."""
    assert "certificate verify failed" in refused(f"rediss://:{QUOTED}@localhost:{redis_port}/0")


def test_postgresql_with_tls_and_a_password(
    database: Postgres, postgres_port: int, certificates: Certificates
) -> None:
    options = f"?sslmode=verify-full&sslrootcert={certificates.ours}"
    url = database.url(postgres_port, PASSWORD, options)
    assert QUOTED in url
    with psycopg.connect(url) as connection:
        assert connection.pgconn.ssl_in_use
    opened = Database(Settings(store_url=url).resolved_store_url)
    assert without_secrets(opened.name)
    opened.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("ca.pem", "another.pem"), "certificate verify failed"),
        (("localhost", "127.0.0.1"), "does not match host name"),
        ((QUOTED, "wr0ng"), "password authentication failed"),
    ],
)
def test_postgresql_is_refused_in_one_line(
    database: Postgres, postgres_port: int, certificates: Certificates, change: tuple[str, str], reason: str
) -> None:
    url = database.url(postgres_port, PASSWORD, f"?sslmode=verify-full&sslrootcert={certificates.ours}")
    with pytest.raises(StoreUnreachableError) as caught:
        Database(Settings(store_url=url.replace(*change)).resolved_store_url)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert without_secrets(str(caught.value))


def test_postgresql_without_tls_is_refused_where_tls_is_asked_for(database: Postgres) -> None:
    with PostgresFront(database.socket) as front:
        url = database.url(front.port, PASSWORD)
        Database(Settings(store_url=url).resolved_store_url).close()
        with pytest.raises(StoreUnreachableError, match="server does not support SSL") as caught:
            Database(Settings(store_url=f"{url}?sslmode=require").resolved_store_url)
    assert "\n" not in str(caught.value)
    assert without_secrets(str(caught.value))


def test_a_job_by_tls_whose_worker_logs_no_password(
    tmp_path: Path, database: Postgres, postgres_port: int, redis_port: int, certificates: Certificates
) -> None:
    store = database.url(postgres_port, PASSWORD, f"?sslmode=verify-full&sslrootcert={certificates.ours}")
    broker = broker_url(redis_port, certificates.ours)
    user = Scanomaly(tmp_path, SCANOMALY_STORE_URL=store, SCANOMALY_BROKER_URL=broker)
    draw_sample(tmp_path / "scans", normals=4, anomalies=2)
    log = tmp_path / "started.log"
    with user.started("worker", "--device", "cpu", "--loglevel", "DEBUG") as worker:
        until(lambda: " ready." in log.read_text(), "the worker does not begin")
        said = user("submit", tmp_path / "scans", *OFFLINE)
        assert user.json("watch", said.stdout.strip())["state"] == "done"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(HANGS) == 0
    assert without_secrets(log.read_text() + said.stdout + said.stderr)


@pytest.mark.parametrize("part", ["broker", "store"])
def test_a_worker_with_a_wrong_password_ends_with_69(
    tmp_path: Path, database: Postgres, postgres_port: int, redis_port: int, certificates: Certificates, part: str
) -> None:
    store = database.url(postgres_port, "wr0ng" if part == "store" else PASSWORD)
    broker = broker_url(redis_port, certificates.ours, "wr0ng" if part == "broker" else QUOTED)
    user = Scanomaly(tmp_path, SCANOMALY_STORE_URL=store, SCANOMALY_BROKER_URL=broker)
    done = user("worker", code=69)
    assert done.stderr.count("\n") == 1
    assert without_secrets(done.stdout + done.stderr)
    # The whole traceback, for whoever asks for it.
    debug = [COMMAND, "workers" if part == "store" else "worker", "--debug"]
    shown = subprocess.run(debug, env=user.environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 69
    assert without_secrets(shown.stdout + shown.stderr)
