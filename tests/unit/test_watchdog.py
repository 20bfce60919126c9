"""The watchdog, in a process that it may kill."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time, threading
from contextlib import suppress
from scanomaly.worker.watchdog import Watchdog
def hang(seconds):
    # Holds Python's lock, as a decoder that hangs in C may.
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
dog = Watchdog(1)
def stay(seconds):
    with dog.watch():
        time.sleep(seconds)
{body}
time.sleep(1.3)
print("alive")
"""


@pytest.mark.parametrize(
    ("body", "lives"),
    [
        ("with dog.watch(): hang(60)", False),
        ("with dog.watch(): time.sleep(60)", False),
        ("for _ in range(6):\n    with dog.watch(): hang(0.2)", True),
        ("hang(1.3)", True),
        ("with suppress(ValueError):\n    with dog.watch(): raise ValueError", True),
        # What others get done meanwhile does not save one that hangs.
        (
            "threading.Thread(target=stay, args=(60,)).start()\n"
            "for _ in range(600):\n    with dog.watch(): time.sleep(0.1)",
            False,
        ),
        ("threading.Thread(target=stay, args=(0.3,)).start()\nwith dog.watch(): time.sleep(0.1)", True),
    ],
)
def test_what_takes_too_long_ends_the_process(body: str, lives: bool) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if lives else -signal.SIGALRM), done.stderr
    assert (done.stdout == "alive\n") == lives
    assert lives or time.monotonic() - begun < 50
