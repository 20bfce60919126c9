"""A user of Redis with the rights that the docs name, and with one of them less."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from scanomaly.models.broker_rights import RIGHTS
from scanomaly.models.errors import BrokerRightsError
from scanomaly.models.queue import Queue
from scanomaly.models.settings import Settings

from ..acceptance.conftest import OFFLINE, Scanomaly
from .servers import RedisServer

_DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer("--save", "") as server:
        yield server


def user_with(server: RedisServer, rights: str) -> str:
    """The URL of a user with these rights."""
    with Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "scanomaly", "reset", "on", ">secret", *rights.split())
    return f"redis://scanomaly:secret@127.0.0.1:{server.port}/0"


def test_the_docs_name_the_rights() -> None:
    assert f"ACL SETUSER scanomaly on >PASSWORD {RIGHTS}" in _DOCS.read_text()


def test_the_rights_are_enough(server: RedisServer, home: Path, drawn: Path) -> None:
    user = Scanomaly(home, SCANOMALY_BROKER_URL=user_with(server, RIGHTS))
    with user.started("worker"):
        assert user.job(drawn, *OFFLINE)["state"] == "done"
    assert "NOPERM" not in (log := (home / "started.log").read_text()), log
    assert "permission" not in log, log


@pytest.mark.parametrize("right", [right for right in RIGHTS.split() if right[0] in "~&+"])
def test_a_right_that_is_missing_is_told(server: RedisServer, right: str) -> None:
    """Told before anything is sent: the queues are as they were."""
    url = user_with(server, re.sub(re.escape(right) + r"(?!\S)", "", RIGHTS))
    with pytest.raises(BrokerRightsError, match=r"does not let its user .*: ACL SETUSER USER ~"):
        Queue(Settings(broker_url=url)).check()
    with Redis(port=server.port) as admin:
        assert not admin.exists("scanomaly.embed", "scanomaly.aggregate", "unacked_mutex")


@pytest.mark.parametrize("command", ["doctor", "worker", "submit", "run"])
def test_a_new_user_without_channels_is_told_at_the_start(
    server: RedisServer, home: Path, drawn: Path, command: str
) -> None:
    user = Scanomaly(home, SCANOMALY_BROKER_URL=user_with(server, "~* +@all"))
    arguments = [drawn, *OFFLINE] if command in ("submit", "run") else []
    done = user(command, *arguments, code=1 if command == "doctor" else 69)
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "does not let its user" in line]
    assert "celery.pidbox" in line or "channel" in line
    assert user.json("jobs")["jobs"] == []
