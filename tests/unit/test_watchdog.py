"""The watchdog, in a process that it may kill."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time, threading
from scanomaly.worker.watchdog import Watchdog
def hang(seconds):
    # Holds Python's lock, as a decoder that hangs in C may.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
with Watchdog(0.5) as dog:
    {body}
time.sleep(0.8)
print("alive")
"""


@pytest.mark.parametrize(
    ("body", "lives"),
    [
        ("hang(5)", False),
        ("threading.Thread(target=time.sleep, args=(5,)).start(); time.sleep(5)", False),
        ("[(hang(0.2), dog.progress()) for _ in range(5)]", True),
        ("hang(0.1)", True),
        ("s = dog.suspend(); s.__enter__(); dog.progress(); hang(1); s.__exit__(None, None, None)", True),
        ("s = dog.suspend(); s.__enter__(); s.__exit__(None, None, None); hang(5)", False),
    ],
)
def test_nothing_done_for_too_long_ends_the_process(body: str, lives: bool) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == (0 if lives else -signal.SIGALRM), done.stderr
    assert (done.stdout == "alive\n") == lives
    assert lives or time.monotonic() - begun < 4
