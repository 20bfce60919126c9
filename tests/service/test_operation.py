"""What an operator asks the service: what it counts, whether it is ready, and what it does when others are away."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.server.metrics import make_registry

from ..acceptance.conftest import COMMAND, LIGHT, OFFLINE, PLUGIN, Scanomaly, nothing_is_left
from ..chaos.servers import Postgres
from ..contract.test_lists import add, embed
from ..deployment.servers import RedisServer
from ..waiting import HANGS, until
from .conftest import Service, serving

ROOT = Path(__file__).parents[2]


def samples(text: str) -> dict[str, float]:
    """Values by name and labels, as they are written."""
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def readiness(service: Service) -> tuple[int, dict[str, bool]]:
    answer = service.session.get(f"{service.url}/readyz")
    document = answer.json()
    assert document["ready"] is (answer.status_code == 200)
    return answer.status_code, {name: check["ok"] for name, check in document["checks"].items()}


def test_the_metrics_are_sums_of_the_store(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = Store.open(settings)
    registry = make_registry(settings, store)

    def scraped() -> dict[str, float]:
        return samples(generate_latest(registry).decode())

    add(store, "one")
    add(store, "two")
    store.workers.beat("w1", "here", 1, "cpu", "1")
    found = scraped()
    assert (found["scanomaly_jobs{state=embedding}"], found["scanomaly_scans_embedded_total"]) == (2, 0)
    assert (found["scanomaly_workers{state=alive}"], found["scanomaly_jobs_stalled"]) == (1, 0)
    assert found["scanomaly_broker_up"] == 0

    embed(store, "one")
    found = scraped()
    assert (found["scanomaly_scans_embedded_total"], found["scanomaly_scans_encoded_total"]) == (4, 4)
    assert found["scanomaly_scans_failed{kind=empty}"] == 1
    assert (found["scanomaly_batch_seconds_count"], found["scanomaly_batch_seconds_bucket{le=+Inf}"]) == (3, 3)

    # Of a job that has ended the sums are kept, until it is taken up again.
    store.cancel("two")
    store.begin_scoring("one")
    store.fail_job("one", "for the test")
    assert scraped()["scanomaly_scans_embedded_total"] == 4
    store.workers.stop("w1")
    store.reopen("one", 2)
    embed(store, "one", failing=())
    found = scraped()
    assert (found["scanomaly_scans_embedded_total"], found["scanomaly_scans_failed{kind=empty}"]) == (5, 0)
    assert (found["scanomaly_batch_seconds_count"], found["scanomaly_jobs_stalled"]) == (4, 1)
    store.close()


def test_the_rules_in_the_docs_are_about_metrics_that_there_are(service: Service) -> None:
    text = (ROOT / "docs" / "service.md").read_text()
    families = {family.name for family in text_string_to_metric_families(service.ask("GET", "/metrics", 200).text)}
    named_so = families | {f"{family}_total" for family in families}
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rules = [
        rule for block in blocks for group in yaml.safe_load(block).get("groups", []) for rule in group["rules"]
    ]
    assert len(rules) == 4
    named = set(re.findall(r"\bscanomaly_\w+", "".join(rule["expr"] for rule in rules)))
    assert named <= named_so
    assert set(re.findall(r"`(scanomaly_\w+)", text)) <= named_so


def test_it_is_ready_when_store_broker_and_a_worker_are_there(home: Path) -> None:
    with RedisServer() as redis:
        with serving(home, SCANOMALY_BROKER_URL=f"redis://127.0.0.1:{redis.port}/0") as service:
            alone = {"store": True, "broker": True, "worker": False}
            assert readiness(service) == (503, alone)
            store = Store.open(Settings(home=home))
            store.workers.beat("w1", "here", 1, "cpu", "1")
            until(lambda: readiness(service)[0] == 200, "it does not get ready")
            store.workers.stop("w1")
            until(
                lambda: readiness(service) == (503, {"store": True, "broker": True, "worker": False}), "no worker"
            )
            redis.stop()
            until(lambda: not readiness(service)[1]["broker"], "nobody misses the broker")
            assert service.ask("GET", "/healthz", 200).json() == {"status": "ok"}
            redis.start()
        store.close()


def test_a_store_that_is_away_is_a_problem_and_no_more(home: Path) -> None:
    home.chmod(0o711)  # PostgreSQL may run as another user
    server = Postgres(home)
    server.start()
    try:
        with serving(home, **server.environment) as service:
            service.ask("GET", "/api/v1/jobs", 200)
            server.kill()
            for path in ("/api/v1/jobs", "/metrics", "/"):
                problem = service.ask("GET", path, 503)
                assert problem.json()["type"] == "urn:scanomaly:store-unreachable"
                assert problem.headers["Retry-After"]
            assert not readiness(service)[1]["store"]
            server.start()
            until(lambda: service.session.get(f"{service.url}/api/v1/jobs").ok, "it stays away")
    finally:
        server.kill()


def test_a_job_that_is_submitted_while_the_broker_is_away_is_done_when_it_is_back(home: Path, drawn: Path) -> None:
    with RedisServer() as redis:
        url = f"redis://127.0.0.1:{redis.port}/0"
        redis.stop()
        with serving(home, drawn.parent, SCANOMALY_BROKER_URL=url, **PLUGIN) as service:
            job = service.submit(drawn, 201, encoder=LIGHT[1])["job"]
            assert service.ask("GET", f"/api/v1/jobs/{job}", 200).json()["stalled"]
            redis.start()
            user = Scanomaly(home, SCANOMALY_BROKER_URL=url, **PLUGIN)
            with user.started("worker"):
                assert user.json("watch", job, "--server", service.url)["state"] == "done"


@pytest.mark.parametrize("options", [["--host", "0.0.0.0"], ["--host", "::"], ["--host", "192.0.2.1"]])
def test_it_does_not_start_beyond_this_machine_without_a_token(home: Path, options: list[str]) -> None:
    done = Scanomaly(home)("serve", *options, code=2)
    assert "needs a token: set SCANOMALY_API_TOKEN" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_says_where_it_serves_and_ends_well(home: Path) -> None:
    with serving(home) as service:
        assert service.url.startswith("http://127.0.0.1:")
        assert "it takes no jobs: name folders with --root" in service.log
    assert service.log.endswith("stopped\n")
    taken = Scanomaly(home)
    with serving(home) as service:
        port = service.url.rpartition(":")[2]
        line = taken("serve", "--port", port, code=2).stderr
        assert line.endswith("(Address already in use): name another --host or --port\n")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many files that they come in parts, and take a second or two."""
    folder = tmp_path_factory.mktemp("many") / "no"
    for number in range(100_000):
        if number % 1000 == 0:
            (folder / f"{number}").mkdir(parents=True)
        open(f"{folder}/{number // 1000 * 1000}/{number}.png", "x").close()  # `Path.touch` takes twice as long
    return folder.parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_submission_outlives_a_service_that_is_killed_and_ends_with_one_that_is_stopped(
    home: Path, many: Path, number: signal.Signals
) -> None:
    user = Scanomaly(home)
    log = home / "serve.log"
    command = [COMMAND, "serve", "--port", "0", "--root", str(many)]
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=user.environment, stdin=subprocess.DEVNULL, stderr=file)
    until(lambda: "serving on" in log.read_text(), "it does not start")
    (url,) = re.findall(r"serving on (\S+)", log.read_text())
    body = {"source": str(many), "encoder": OFFLINE[1]}
    document = requests.post(f"{url}/api/v1/jobs", json=body, timeout=HANGS).json()
    assert document["submitting"]
    process.send_signal(number)
    process.wait(HANGS)
    status = user.wait(document["job"], lambda status: not status.submitting)
    if number == signal.SIGKILL:
        assert (status["state"], status["scans"]["total"]) == ("embedding", 100_000)
    else:
        assert (status["state"], status["scans"]["total"] < 100_000) == ("failed", True)
        assert "its submission was stopped before it was whole; submit it again" in status["error"]
    assert nothing_is_left(home)
