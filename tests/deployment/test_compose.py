"""What docker-compose.yml promises. Without a container engine: `test_services.py` starts its commands."""

from typing import Any

import pytest
from redis import Redis

from scanomaly.models.settings import Settings

from .files import compose, stages
from .servers import RedisServer

OURS = ("worker", "worker-gpu", "producer", "api")
WORKERS = ("worker", "worker-gpu")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose()["services"]


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text.removesuffix("s"))


def test_one_command_starts_the_servers_and_a_worker_on_the_processor(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if not service.get("profiles")} == {
        "redis",
        "postgres",
        "worker",
    }
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert services["producer"]["profiles"] == ["cli"]
    assert services["api"]["profiles"] == ["api"]
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert services["worker-gpu"]["command"] == ["worker", "--device", "cuda:0"]
    assert services["worker"]["command"] == ["worker", "--device", "cpu"]
    assert "deploy" not in services["worker"]


def test_a_service_can_be_scaled_and_opens_no_port(services: dict[str, Any]) -> None:
    # But for HTTP's, and that to this machine alone.
    services = {name: dict(service) for name, service in services.items()}
    assert services["api"].pop("ports") == ["127.0.0.1:8321:8321"]
    for service in services.values():
        assert not {"container_name", "hostname", "ports", "network_mode"} & service.keys()


def test_the_targets_are_those_of_the_dockerfile(services: dict[str, Any]) -> None:
    for name, target in zip(OURS, ("worker", "worker", "producer", "producer"), strict=True):
        assert services[name]["build"]["target"] == target
        assert target in stages()
        assert services[name]["image"] == f"scanomaly-{target}"


def test_a_worker_may_end_its_batch_before_it_is_killed(services: dict[str, Any]) -> None:
    for name in WORKERS:
        assert "SCANOMALY_GRACE_SECONDS" not in services[name]["environment"]
        assert seconds(services[name]["stop_grace_period"]) >= Settings().grace_seconds + 15


def test_all_that_runs_for_long_starts_again_and_says_how_it_is(services: dict[str, Any]) -> None:
    for name in ("redis", "postgres", "api", *WORKERS):
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["logging"]["options"]["max-size"]
    for name in ("redis", "postgres", "api"):
        assert services[name]["healthcheck"]["test"]
    for name in OURS:
        assert services[name]["depends_on"] == {
            "redis": {"condition": "service_healthy"},
            "postgres": {"condition": "service_healthy"},
        }
    for name in WORKERS:  # theirs is the image's
        assert "healthcheck" not in services[name]
        assert services[name]["mem_limit"] == "8g"


def test_scans_cannot_be_changed_and_reports_are_outside() -> None:
    services = compose({"SCANS": "/data/scans", "REPORTS": "/data/reports"})["services"]
    home = stages()["worker"].environment["SCANOMALY_HOME"]
    for name in OURS:
        volumes = services[name]["volumes"]
        assert volumes == ["/data/scans:/scans:ro", f"/data/reports:{home}/reports", f"cache:{home}/.cache"]
    assert compose()["services"]["worker"]["volumes"][1].startswith("./reports:")


def test_every_mounted_volume_is_declared() -> None:
    document = compose()
    mounts = [volume for service in document["services"].values() for volume in service["volumes"]]
    named = {mount.partition(":")[0] for mount in mounts if mount[0] not in "./"}
    assert named == document["volumes"].keys() == {"redis", "postgres", "cache"}


def test_every_setting_of_a_container_is_one_of_the_programs(services: dict[str, Any]) -> None:
    known = {f"SCANOMALY_{name.upper()}" for name in Settings.__dataclass_fields__}
    for name in OURS:
        ours = {variable for variable in services[name]["environment"] if variable.startswith("SCANOMALY_")}
        assert ours <= known
    for name in WORKERS:
        assert "SCANOMALY_ROOTS" in services[name]["environment"]


def test_passwords_are_taken_from_the_environment() -> None:
    services = compose({"POSTGRES_PASSWORD": "pg-secret", "REDIS_PASSWORD": "redis-secret"})["services"]
    for name in OURS:
        environment = services[name]["environment"]
        assert environment["SCANOMALY_STORE_URL"] == "postgresql://scanomaly:pg-secret@postgres:5432/scanomaly"
        assert environment["SCANOMALY_BROKER_URL"] == "redis://:redis-secret@redis:6379/0"
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "pg-secret"
    assert services["redis"]["environment"]["REDISCLI_AUTH"] == "redis-secret"
    assert services["redis"]["command"][-2:] == ["--requirepass", "redis-secret"]


@pytest.mark.parametrize("password", ["", "secret"])
def test_redis_keeps_what_the_file_promises(password: str) -> None:
    service = compose({"REDIS_PASSWORD": password})["services"]["redis"]
    with RedisServer(*service["command"][1:]) as server:
        client = Redis.from_url(
            f"redis://127.0.0.1:{server.port}", password=password or None, decode_responses=True
        )
        promised = {
            "maxmemory-policy": "noeviction",
            "maxmemory": str(256 * 1024**2),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "requirepass": password,
        }
        assert {name: client.config_get(name)[name] for name in promised} == promised
        assert server.healthy(service["healthcheck"]["test"], service["environment"])
        client.config_set("requirepass", "another")
        assert not server.healthy(service["healthcheck"]["test"], service["environment"])


def test_redis_has_its_calls_after_a_restart() -> None:
    command = compose()["services"]["redis"]["command"][1:]
    with RedisServer(*command) as server:
        Redis(port=server.port).lpush("calls", "1")
        server.stop()
        server.start()
        assert Redis(port=server.port).lrange("calls", 0, -1) == [b"1"]
