"""What becomes of a command when one of its processes cannot start, is killed, or loses its terminal."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import COMMAND, LIGHT, OFFLINE, Scanomaly, nothing_is_left, write_image

_BROKEN = """
import os, sys
if "scanomaly.worker.consume" in sys.orig_argv:
    sys.stderr.write("OSError: libgomp.so.1: cannot open shared object file\\n")
    sys.stderr.flush()
    os._exit(1)
"""


def process_of(home: Path, module: str) -> int | None:
    """The process id of a module that runs for a user."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            ours = f"SCANOMALY_HOME={home}\0".encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if ours and module.encode() in command:
            return int(entry.name)
    return None


def until(is_so: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_computing_process_that_cannot_start_ends_the_run(home: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "scans" / "no" / "1.png")
    (tmp_path / "sitecustomize.py").write_text(_BROKEN)
    user = Scanomaly(home, PYTHONPATH=str(tmp_path))
    done = user("run", tmp_path / "scans", *OFFLINE, code=1)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("scanomaly: ")]
    assert "its last line: OSError: libgomp.so.1: cannot open shared object file" in line
    (log,) = (home / "logs").iterdir()
    assert str(log) in line
    (worker,) = user.json("workers")["workers"]
    assert worker["state"] == "stopped"
    assert worker["stop_reason"] in line
    assert "libgomp.so.1" in user("workers").stdout
    assert nothing_is_left(home)


def test_a_device_that_is_not_here_is_told_before_anything_is_stored(scanomaly: Scanomaly, drawn: Path) -> None:
    done = scanomaly("run", drawn, *OFFLINE, "--device", "cuda:99", code=1)
    assert done.stderr.splitlines()[-1].startswith("scanomaly: no device cuda:99: ")
    assert scanomaly.json("jobs")["jobs"] == []
    worker = scanomaly("worker", "--device", "cuda:99", code=1)
    assert "no device cuda:99: " in worker.stderr.splitlines()[-1]
    (row,) = scanomaly.json("workers")["workers"]
    assert row["state"] == "stopped"
    assert "no device cuda:99: " in row["stop_reason"]


def test_a_killed_worker_is_told_in_one_line(scanomaly: Scanomaly) -> None:
    with scanomaly.started("worker") as process:
        until(lambda: process_of(scanomaly.home, "scanomaly.worker.consume"))
        supervisor = process_of(scanomaly.home, "scanomaly.worker")
        assert supervisor is not None
        os.kill(supervisor, signal.SIGKILL)
        assert process.wait(60) == 128 + signal.SIGKILL
    last = (scanomaly.home / "started.log").read_text().splitlines()[-1]
    assert last.startswith("scanomaly: the worker was killed by SIGKILL, ")
    assert nothing_is_left(scanomaly.home)


@pytest.mark.parametrize("command", ["run", "worker", "serve"])
def test_a_closed_terminal_ends_a_command_and_all_that_it_started(
    scanomaly: Scanomaly, drawn: Path, command: str
) -> None:
    arguments = {"run": ["run", drawn, *OFFLINE], "worker": ["worker"], "serve": ["serve", "--port", "0"]}[command]
    with scanomaly.started(*arguments) as process:
        if command == "serve":
            until(lambda: "serving on" in (scanomaly.home / "started.log").read_text())
        else:
            until(lambda: process_of(scanomaly.home, "scanomaly.worker.consume"))
        os.killpg(process.pid, signal.SIGHUP)  # the terminal sends it to all in the foreground,
        process.send_signal(signal.SIGHUP)  # and the shell once more
        assert process.wait(60) == {"run": 130, "worker": 0, "serve": 0}[command]
    assert nothing_is_left(scanomaly.home)


def test_nohup_is_kept(light: Scanomaly, drawn: Path) -> None:
    log = light.home / "nohup.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            ["nohup", COMMAND, "worker"],
            env=light.environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            text=True,
        )
    try:
        until(lambda: " ready." in log.read_text())
        consumer = process_of(light.home, "scanomaly.worker.consume")
        os.killpg(process.pid, signal.SIGHUP)
        for module in ("scanomaly.worker", "scanomaly.worker.consume"):
            pid = process_of(light.home, module)
            assert pid is not None
            os.kill(pid, signal.SIGHUP)
        job = light("submit", drawn, *LIGHT).stdout.strip()
        light.wait(job, lambda status: status.scans.embedded > 0)
        assert process.poll() is None
        assert process_of(light.home, "scanomaly.worker.consume") == consumer
    finally:
        process.terminate()
        assert process.wait(60) == 0
