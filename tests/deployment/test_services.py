"""The services' commands with the services' environment, as processes, on real servers."""

import csv
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scanomaly.producer.sample import draw_sample
from tests.acceptance.conftest import COMMAND, OFFLINE, Scanomaly

from ..waiting import HANGS, until
from .conftest import Postgres
from .files import compose, stages
from .servers import PostgresFront, RedisServer

VARIABLES = {
    "POSTGRES_PASSWORD": "pg-secret",
    "REDIS_PASSWORD": "redis-secret",
    # As the compose file's comment has it.
    "SCANOMALY_ROOTS": "/data/scans=/scans:/data/reports=/var/lib/scanomaly/reports",
}


class Deployment:
    """`docker compose up` on this machine: folders stand for the mounts, and ports for the services' names."""

    def __init__(self, folder: Path, redis_port: int, postgres_port: int) -> None:
        self.host = folder / "host"
        self.mounts = folder / "mounts"
        for part in ("data/scans", "data/reports"):
            (self.host / part).mkdir(parents=True)
        for part in ("scans", "reports"):
            (self.mounts / part).mkdir(parents=True)
        self._folder = folder
        self._ports = {"@redis:6379": f"@127.0.0.1:{redis_port}", "@postgres:5432": f"@127.0.0.1:{postgres_port}"}

    def container(self, service: str, name: str) -> Scanomaly:
        """Whoever runs commands in a container of a service."""
        home = self._folder / name
        home.mkdir()
        definition = compose(VARIABLES)["services"][service]
        declared = stages()[definition["build"]["target"]].environment | definition["environment"]
        given = {key: VARIABLES.get(key, "") if value is None else value for key, value in declared.items()}
        places = {
            **self._ports,
            "/data/": f"{self.host}/data/",
            "=/scans": f"={self.mounts}/scans",
            "/var/lib/scanomaly/reports": str(self.mounts / "reports"),
            "/var/lib/scanomaly": str(home),
        }
        for written, here in places.items():
            given = {key: value.replace(written, here) for key, value in given.items()}
        given |= {"SCANOMALY_SCAN_SECONDS": "120", "TMPDIR": "/tmp"}
        assert "/var/lib/" not in str(given)
        return Scanomaly(home, **{key: value for key, value in given.items() if value})


@pytest.fixture
def deployment(tmp_path: Path, postgres: Postgres) -> Iterator[Deployment]:
    postgres.new_database(VARIABLES["POSTGRES_PASSWORD"])
    command = compose(VARIABLES)["services"]["redis"]["command"]
    with RedisServer(*command[1:]) as redis, PostgresFront(postgres.socket) as front:
        yield Deployment(tmp_path, redis.port, front.port)


def healthy(user: Scanomaly) -> int:
    """Ask a worker how it is, as Docker does. Returns the exit code."""
    command = [COMMAND, *stages()["worker"].healthcheck[1:]]
    return subprocess.run(command, env=user.environment, capture_output=True, check=False).returncode


def test_a_job_from_the_host_goes_through_two_workers_in_containers(deployment: Deployment) -> None:
    producer = deployment.container("producer", "producer")
    workers = [deployment.container("worker", name) for name in ("worker-1", "worker-2")]
    command = compose()["services"]["worker"]["command"]
    scans, report = deployment.host / "data" / "scans", deployment.host / "data" / "reports" / "first"
    draw_sample(scans / "brain", normals=12, anomalies=12)

    # Submitted and stopped before any worker is there; so both are ready when it begins, and both take part.
    options = (*OFFLINE, "--batch-size", "2", "--out", report)
    job = producer("submit", scans / "brain", *options).stdout.strip()
    producer("pause", job)
    # What the containers have is a mount of it; here they must not find it by the submitter's path.
    (scans / "brain").rename(deployment.mounts / "scans" / "brain")
    assert healthy(workers[0]) == 1

    with ExitStack() as stack:
        processes = [stack.enter_context(user.started(*command)) for user in workers]
        logs = [user.home / "started.log" for user in workers]
        until(lambda: all("ready." in log.read_text() for log in logs), "the workers do not begin")
        assert [worker["state"] for worker in producer.json("workers")["workers"]] == ["alive", "alive"]
        assert [healthy(user) for user in workers] == [0, 0]
        producer("resume", job)
        status = producer.json("watch", job)
        assert (status["state"], status["scans"]["embedded"]) == ("done", 24)
        assert all(f"job {job}, batch" in log.read_text() for log in logs)

        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(HANGS) for process in processes] == [0, 0]
    assert [healthy(user) for user in workers] == [1, 1]

    written = deployment.mounts / "reports" / "first"
    assert {"report.html", "scores.csv", "report.json"} <= {file.name for file in written.iterdir()}
    assert list((deployment.host / "data" / "reports").iterdir()) == []
    with open(written / "scores.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    said = "".join(log.read_text() for log in logs) + json.dumps(status)
    assert "pg-secret" not in said
    assert "redis-secret" not in said


def test_a_worker_that_is_told_to_stop_while_it_starts_stops(deployment: Deployment) -> None:
    worker = deployment.container("worker", "worker")
    with worker.started(*compose()["services"]["worker"]["command"]) as process:
        until(lambda: "is ready" in (worker.home / "started.log").read_text(), "the worker does not begin")
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANGS) == 0
