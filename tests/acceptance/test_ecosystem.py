"""Celery's own tools see an ordinary worker: `celery inspect`, `celery status`, Flower."""

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from ..waiting import HANGS, until
from .conftest import COMMAND, LIGHT, PLUGIN, Scanomaly

CELERY = str(Path(COMMAND).with_name("celery"))
APP = ("-A", "scanomaly.worker.app")
TASKS = {"scanomaly.aggregate", "scanomaly.embed"}


@pytest.fixture(scope="module")
def user(redis_url: str) -> Iterator[Scanomaly]:
    """A user whose worker takes its calls from Redis itself."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        user = Scanomaly(Path(folder), SCANOMALY_BROKER_URL=redis_url, **PLUGIN)
        with user.started("worker"):
            yield user


@pytest.fixture(scope="module")
def name(user: Scanomaly) -> str:
    """What Celery calls the worker, which answers."""
    (worker,) = until(lambda: user.look("workers")["workers"], "a worker")
    name = f"scanomaly@{worker['name']}"
    until(lambda: celery(user, *APP, "inspect", "ping"), "an answer", lambda found: name in found)
    return name


def celery(user: Scanomaly, *arguments: str) -> dict[str, Any]:
    """What Celery's command line prints as JSON; nothing when no worker answers."""
    command = [CELERY, *arguments, "--json"]
    done = subprocess.run(command, env=user.environment, capture_output=True, text=True, timeout=HANGS, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


@contextmanager
def flower(user: Scanomaly) -> Iterator[str]:
    """Flower's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(user.home / "flower.log", "w") as log:
        process = subprocess.Popen(
            [CELERY, *APP, "flower", "--address=127.0.0.1", f"--port={port}"],
            env=user.environment | {"FLOWER_UNAUTHENTICATED_API": "true"},
            cwd=user.home,
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(HANGS)


def get(url: str) -> Any:
    """What Flower answers; nothing before it listens."""
    try:
        answer = requests.get(url, timeout=HANGS)
    except requests.ConnectionError:
        return {}
    answer.raise_for_status()
    return answer.json()


def test_celery_inspect_answers(user: Scanomaly, name: str, drawn: Path, redis_url: str) -> None:
    user("watch", user("submit", drawn, *LIGHT).stdout.strip())
    # From this one, however long it takes: of all, an answer would have to come within a second.
    this = ("--destination", name, "--timeout", str(HANGS))
    assert celery(user, "--broker", redis_url, "inspect", "ping", *this) == {name: {"ok": "pong"}}
    assert celery(user, *APP, "inspect", "active", *this) == {name: []}
    assert celery(user, *APP, "inspect", "stats", *this)[name]["total"].keys() == TASKS


def test_flower_shows_the_worker_and_its_tasks(user: Scanomaly, name: str, drawn: Path) -> None:
    with flower(user) as address:
        until(lambda: get(f"{address}/api/workers?status=true"), "the worker", lambda found: found == {name: True})
        job = user("submit", drawn, *LIGHT).stdout.strip()
        tasks = until(
            lambda: get(f"{address}/api/tasks").values(),
            "both tasks",
            lambda found: {task["name"] for task in found if task["state"] == "SUCCESS"} == TASKS,
        )
        assert f"['{job}']" in {task["args"] for task in tasks}
        queues = get(f"{address}/api/workers?refresh=true")[name]["active_queues"]
        assert {queue["name"] for queue in queues} == TASKS


def test_a_worker_that_is_shut_down_from_afar_loses_nothing(user: Scanomaly, name: str, drawn: Path) -> None:
    stats = ("inspect", "stats", "--destination", name)
    before = celery(user, *APP, *stats, "--timeout", str(HANGS))[name]["pid"]
    job = user("submit", drawn, *LIGHT, "--batch-size", "1").stdout.strip()
    celery(user, *APP, "control", "shutdown")
    assert user.json("watch", job)["scans"]["embedded"] == 24
    until(
        lambda: celery(user, *APP, *stats).get(name, {"pid": before})["pid"],
        "another process",
        lambda found: found != before,
    )
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
