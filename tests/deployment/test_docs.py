"""docs/deployment.md: what it tells an operator to type or to write into a file can be right."""

import configparser
import re
import shlex

import click
import pytest
import yaml

from scanomaly.models.settings import Settings
from scanomaly.producer.cli import cli

from .files import ROOT, compose

TEXT = (ROOT / "docs" / "deployment.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [block for name, block in BLOCKS if name == language]


def commands() -> list[list[str]]:
    """All calls of `scanomaly`, in blocks and in lines, by itself or in a container."""
    lines = "\n".join(blocks("")).replace("\\\n", " ").splitlines() + re.findall(r"`([^`\n]+)`", TEXT)
    found = []
    for line in lines:
        call = re.search(r"(?:^(?:\S+/)?scanomaly|run --rm (?:producer|worker)|scanomaly-worker) (\w.*)", line)
        if call and call[1].split()[0].isalpha() and " -t " not in line:
            found.append(shlex.split(call[1]))
    return found


def test_there_is_something_to_look_at() -> None:
    assert {"submit", "watch", "workers", "store", "worker", "doctor", "report"} <= {
        words[0] for words in commands()
    }


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_understood(words: list[str]) -> None:
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    options = {word for word in words if word.startswith("-")}
    assert options <= known


def test_overrides_fit_the_compose_file() -> None:
    services = compose()["services"]
    for block in blocks("yaml"):
        for name, service in yaml.safe_load(block)["services"].items():
            base = service.get("extends", {"file": "docker-compose.yml", "service": name})
            assert base["file"] == "docker-compose.yml"
            assert base["service"] in services
            for port in service.get("ports", []):
                assert port.startswith("127.0.0.1:")


def test_the_unit_lets_a_batch_end_and_survives_a_scan_that_eats_all_memory() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(blocks("ini")[0])
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) >= Settings().grace_seconds + 15
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")
    assert service["ExecStart"].endswith("scanomaly worker --device %i")


def test_the_environment_is_understood() -> None:
    lines = [line.removeprefix("export ") for block in blocks("") for line in block.splitlines()]
    settings = [line.split("=", 1) for line in lines if re.match(r"SCANOMALY_\w+=\S+$", line)]
    assert {name for name, _ in settings} >= {"SCANOMALY_ROOTS", "SCANOMALY_BROKER_URL", "SCANOMALY_STORE_URL"}
    for name, value in settings:
        assert name.removeprefix("SCANOMALY_").lower() in Settings.__dataclass_fields__
        Settings.from_environment({name: value})


def test_variables_of_the_compose_file_are_in_the_table() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert used == set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE)) - {"SCANOMALY_BATCH_MEMORY"} - {
        "SCANOMALY_SCAN_SECONDS"
    }
