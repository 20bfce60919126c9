"""Celery's own tools see an ordinary worker: `celery inspect`, `celery status`, Flower."""

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from .conftest import COMMAND, OFFLINE, Scanomaly

CELERY = str(Path(COMMAND).with_name("celery"))
APP = ("-A", "scanomaly.worker.app")
TASKS = {"scanomaly.aggregate", "scanomaly.embed"}
SECONDS = 60

T = TypeVar("T")


def until(look: Callable[[], T], reached: Callable[[T], object]) -> T:
    deadline = time.monotonic() + SECONDS
    while not reached(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def user(redis_url: str) -> Iterator[Scanomaly]:
    """A user whose worker takes its calls from Redis itself."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        user = Scanomaly(Path(folder), SCANOMALY_BROKER_URL=redis_url)
        with user.started("worker"):
            yield user


@pytest.fixture(scope="module")
def name(user: Scanomaly) -> str:
    """What Celery calls the worker, which answers."""
    (worker,) = until(lambda: user.json("workers")["workers"], len)
    name = f"scanomaly@{worker['name']}"
    until(lambda: celery(user, *APP, "inspect", "ping"), lambda found: name in found)
    return name


def celery(user: Scanomaly, *arguments: str) -> dict[str, Any]:
    """What Celery's command line prints as JSON; nothing when no worker answers."""
    command = [CELERY, *arguments, "--json"]
    done = subprocess.run(command, env=user.environment, capture_output=True, text=True, timeout=60, check=False)
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
        process.wait(timeout=30)


def get(url: str) -> Any:
    """What Flower answers; nothing before it listens."""
    try:
        answer = requests.get(url, timeout=10)
    except requests.ConnectionError:
        return {}
    answer.raise_for_status()
    return answer.json()


def test_celery_inspect_answers(user: Scanomaly, name: str, drawn: Path, redis_url: str) -> None:
    user.job(drawn, *OFFLINE)
    assert celery(user, "--broker", redis_url, "inspect", "ping") == {name: {"ok": "pong"}}
    assert celery(user, *APP, "inspect", "active") == {name: []}
    assert celery(user, *APP, "inspect", "stats")[name]["total"].keys() == TASKS


def test_flower_shows_the_worker_and_its_tasks(user: Scanomaly, name: str, drawn: Path) -> None:
    with flower(user) as address:
        until(lambda: get(f"{address}/api/workers?status=true"), lambda found: found == {name: True})
        job = user.job(drawn, *OFFLINE)["job"]
        tasks = until(
            lambda: get(f"{address}/api/tasks").values(),
            lambda found: {task["name"] for task in found if task["state"] == "SUCCESS"} == TASKS,
        )
        assert f"['{job}']" in {task["args"] for task in tasks}
        queues = get(f"{address}/api/workers?refresh=true")[name]["active_queues"]
        assert {queue["name"] for queue in queues} == TASKS


def test_a_worker_that_is_shut_down_from_afar_loses_nothing(user: Scanomaly, name: str, drawn: Path) -> None:
    before = celery(user, *APP, "inspect", "stats")[name]["pid"]
    job = user("submit", drawn, *OFFLINE, "--batch-size", "1").stdout.strip()
    celery(user, *APP, "control", "shutdown")
    assert user.json("watch", job)["scans"]["embedded"] == 24
    until(
        lambda: celery(user, *APP, "inspect", "stats").get(name, {"pid": before})["pid"],
        lambda found: found != before,
    )
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
