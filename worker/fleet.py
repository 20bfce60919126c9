"""Several workers on one machine, one for each device: started, watched and stopped together."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from ..models.errors import UsageError
from ..models.interrupts import when_told_to_stop
from ..models.processes import describe_end, python_command
from ..models.settings import MOST_DECODE_THREADS, PREFIX, usable_cores
from .lifeline import stop_with_stdin

logger = logging.getLogger(__name__)

ALL = "all"
_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 30.0


class Fleet:
    """Workers that are each a process as if it had been started by hand, with a name and a heart of its own."""

    def __init__(self, devices: Sequence[str], arguments: Sequence[str]) -> None:
        """Args:
        devices: torch's name of each worker's device; the same one may come more than once.
        arguments: for `python -m scanomaly.worker`.
        """
        self._stop = threading.Event()
        command = python_command("worker", "--until-stdin-ends", *arguments)
        self._members = [_Member(device, command, _environment(device, devices)) for device in devices]

    def run(self, until_stdin_ends: bool = False) -> int:
        """Work until SIGTERM, SIGINT or SIGHUP, or until all workers have ended.

        Returns:
            The first exit code but 0.
        """
        when_told_to_stop(lambda _number, _frame: self._stop.set())
        if until_stdin_ends:
            stop_with_stdin()
        while not self._stop.is_set() and self._goes_on():
            self._stop.wait(_LOOK_SECONDS)
        for member in self._members:
            member.tell_to_stop()
        codes = [member.wait() for member in self._members]
        return next((code for code in codes if code), 0)

    def _goes_on(self) -> bool:
        """Look after every worker. False when none is left."""
        going = [member.goes_on() for member in self._members]
        return any(going)


class _Member:
    def __init__(self, device: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._device = device
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = 0.0
        self._due = 0.0
        self._code: int | None = None
        """How it ended for good."""

    def goes_on(self) -> bool:
        """Start it when it is time, and see how it is. False once it has ended by itself."""
        if self._code is not None:
            return False
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start()
            return True
        code = self._process.poll()
        if code is None:
            return True
        if code < 0:  # nobody told it to: another takes its place, as systemd or Docker would see to
            self._bury(code)
            return True
        self._code = code
        if code:
            logger.error("the worker on %s ended with code %d: the lines above say why", self._device, code)
        else:
            logger.info("the worker on %s was stopped", self._device)
        return False

    def _start(self) -> None:
        # Its standard input is a pipe that only this process holds: it ends with this one, however this one dies.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, env=self._environment, start_new_session=True
        )
        self._started_at = time.monotonic()
        logger.info("worker on %s: process %d", self._device, self._process.pid)

    def _bury(self, code: int) -> None:
        short_lived = time.monotonic() - self._started_at < _LONGEST_PAUSE
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause + 1) if short_lived else 1.0
        self._due = time.monotonic() + self._pause
        self._process = None
        logger.warning(
            "the worker on %s %s: another is started in %.0f s",
            *(self._device, describe_end(code), self._pause),
        )

    def tell_to_stop(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> int:
        """Wait for its end, which comes after its grace time at the latest. Returns its exit code."""
        if self._process is None:
            return self._code or 0
        return self._process.wait()


def find_devices(text: str) -> list[str]:
    """The devices that `--devices` names: a list with commas, or `all` of CUDA's, else the CPU.

    Raises:
        UsageError: the list is empty.
    """
    if text == ALL:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:  # not here: torch would stay
            return process.submit(_cuda_devices).result() or ["cpu"]
    devices = [name.strip() for name in text.split(",") if name.strip()]
    if not devices:
        raise UsageError("--devices names none: give all, or a list such as cuda:0,cuda:1")
    return devices


def _cuda_devices() -> list[str]:
    from .encoding.encoder import cuda_devices

    return cuda_devices()


def _environment(device: str, devices: Sequence[str]) -> dict[str, str]:
    """A worker's environment: its device, and its share of the cores where nobody says otherwise."""
    share = {f"{PREFIX}DECODE_THREADS": min(MOST_DECODE_THREADS, usable_cores() // len(devices))}
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        share[f"{PREFIX}ENCODER_THREADS"] = usable_cores() // devices.count("cpu")
    threads = {name: str(max(1, number)) for name, number in share.items()}
    return threads | os.environ | {f"{PREFIX}DEVICE": device}
