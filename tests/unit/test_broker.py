"""The broker's URL: what is taken, what kombu makes of it, and the embedded one's in an odd home."""

import tempfile
from pathlib import Path

import pytest

from scanomaly.models.broker_url import parse_broker_url
from scanomaly.models.errors import BrokerUnreachableError, UsageError
from scanomaly.models.queue import Queue, make_celery
from scanomaly.models.settings import Settings
from scanomaly.producer.broker import EmbeddedBroker


@pytest.mark.parametrize(
    ("url", "host", "port", "database", "password"),
    [
        ("redis://host", "host", None, None, None),
        (" redis://host:6380/3 ", "host", 6380, "3", None),
        ("REDIS://host:6380/3", "host", 6380, "3", None),
        ("redis://:p%40ss%2Fw%3Ard%23%3F%25@host/0", "host", None, "0", "p@ss/w:rd#?%"),
        ("redis://ann:secret@10.0.0.1:6379/0", "10.0.0.1", 6379, "0", "secret"),
        ("redis://[::1]:6379/0", "::1", 6379, "0", None),
        (
            "Rediss://:secret@redis.example.org:6379/0?ssl_ca_certs=/etc/ca.pem",
            "redis.example.org",
            6379,
            "0",
            "secret",
        ),
    ],
)
def test_what_kombu_makes_of_it(
    url: str, host: str, port: int | None, database: str | None, password: str | None
) -> None:
    settings = Settings.from_environment({"SCANOMALY_BROKER_URL": url})
    connection = make_celery(settings).connection_for_write()
    assert connection.transport_cls in ("redis", "rediss")
    assert (connection.hostname, connection.port, connection.password) == (host, port, password)
    assert connection.virtual_host.strip("/") == (database or "")
    assert bool(connection.ssl) == url.lower().startswith("rediss")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "redis+sentinel://:secr3t@host:26379/0",
            "sentinel://:secr3t@host:26379",
            "memory://",
            "http://host:6379",
        ),
        *(
            "amqp://ann:secr3t@host",
            "filesystem://",
            "localhost:6379",
            "host",
            "redis",
            "redis:host",
            "redis:/host",
        ),
        *(
            '"redis://:secr3t@host:6379/0"',
            "'redis://host'",
            '"redis://host',
            "redis://ho st/0",
            "redis://:se cr3t@h",
        ),
        *("redis://", "redis:///0", "redis://:secr3t@/0", "redis://:secr3t@:6379/0"),
        *("redis://host:abc/0", "redis://host:0/0", "redis://host:65536/0", "redis://host:/0", "redis://host:-1/0"),
        *("redis://host/abc", "redis://host/-1", "redis://host/0/1", "redis://host/1.5", "redis://host/0x"),
        *("redis://a:6379;redis://b:6379", "redis://a,b:6379/0"),
        *(
            "redis://:x@secr3t@host/0",
            "redis://:secr3t/x@host/0",
            "redis://:secr3t#x@host/0",
            "redis://:secr3t?x@host/0",
        ),
        *("redis+socket://", "redis+socket:///", "redis+socket://run/x.sock", "redis+socket:///run/a#b.sock"),
    ],
)
def test_what_cannot_be_right_is_a_sentence_without_a_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({"SCANOMALY_BROKER_URL": url})
    message = str(caught.value)
    assert message.startswith("the broker's URL (SCANOMALY_BROKER_URL) ")
    assert "secr3t" not in message
    assert "\n" not in message


def test_the_three_kinds_are_named() -> None:
    with pytest.raises(UsageError, match=r"begins with memory://.*redis://.*rediss://.*redis\+socket:///"):
        parse_broker_url("memory://")


@pytest.mark.parametrize("name", ['what? 100% #1; it\'s "a" + b@c:d', "ü", "a%20b", "-x", "a\\b"])
def test_the_embedded_broker_in_an_odd_home(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        settings = Settings(home=Path(folder, name))
        with EmbeddedBroker(settings):
            assert settings.broker_socket.exists()
            Queue(settings).check()
            assert set(Queue(settings).depths().values()) == {0}
        assert [path.name for path in Path(folder).iterdir()] == [name]


def test_a_broker_that_does_not_start_is_told_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho 'libssl.so.3: cannot open shared object file' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setattr("scanomaly.producer.broker.get_binary_path", lambda: program)
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        log = Path(folder, "broker", "valkey.log")
        with pytest.raises(BrokerUnreachableError) as caught, EmbeddedBroker(Settings(home=Path(folder))):
            pass
        assert str(caught.value) == (
            f"the embedded broker does not start: libssl.so.3: cannot open shared object file ({log} has more)"
        )
        assert log.exists()
