"""Several workers on one machine, through one command."""

import os
import signal
from pathlib import Path

import pytest

from ..waiting import until
from .conftest import LIGHT, Scanomaly, nothing_is_left


def log(scanomaly: Scanomaly) -> str:
    return (scanomaly.home / "started.log").read_text()


def test_one_command_is_a_worker_on_each_device(light: Scanomaly, drawn: Path) -> None:
    with light.started("worker", "--devices", "cpu,cpu") as command:
        until(lambda: sorted(light.alive().values()) == ["cpu", "cpu"])
        killed, other = light.alive()
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(light.alive().keys() - {killed}) == 2)
        assert other in light.alive()
        assert "the worker on cpu was killed by SIGKILL: another is started in 1 s" in log(light)
        job = light("submit", drawn, *LIGHT, "--batch-size", "3").stdout.strip()
        assert light.json("watch", job)["scans"]["embedded"] == 24
    assert command.returncode == 0
    assert log(light).count("has stopped") == 2
    assert nothing_is_left(light.home)


def test_a_device_that_is_not_there_leaves_the_others_to_work(scanomaly: Scanomaly) -> None:
    with scanomaly.started("worker", "--devices", "cuda:99,cpu") as command:
        until(lambda: "the worker on cuda:99 ended with code 1: the lines above say why" in log(scanomaly))
        assert "no device cuda:99" in log(scanomaly)
        until(lambda: "cpu" in scanomaly.alive().values())
    assert command.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["--devices", ","], 2, "names none"), (["--devices", "cpu", "--device", "cpu"], 2, "exclude each other")],
)
def test_devices_that_cannot_be_meant(scanomaly: Scanomaly, arguments: list[str], code: int, words: str) -> None:
    assert words in scanomaly("worker", *arguments, code=code).stderr


def test_the_death_of_the_command_ends_all_workers(scanomaly: Scanomaly) -> None:
    with scanomaly.started("worker", "--devices", "cpu,cpu") as command:
        until(lambda: len(scanomaly.alive()) == 2)
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        until(lambda: not scanomaly.alive())
    assert nothing_is_left(scanomaly.home)  # not even the broker, which it used alone
