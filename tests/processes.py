"""What the tests start and do not stop."""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_ADOPT_ORPHANS = 36
"""PR_SET_CHILD_SUBREAPER of Linux's <sys/prctl.h>."""
_PYTHONS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python ends them when it ends itself."""
_STOP_SECONDS = 60.0


def adopt_orphans() -> None:
    """Have every process whose parent dies become a child of this one, and not of the system's first process.

    A mark in the environment would not do: Valkey and PostgreSQL write their titles over theirs.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


def descendants() -> dict[int, str]:
    """The command lines of all processes that this one and its children have started, by process id.

    Those that have ended are not among them; nor those whose parent was not yet adopted.
    """
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name of the program, in parentheses, may itself hold any character.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    family = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    found = {}
    for pid in family - {os.getpid()}:
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if not any(name in command for name in _PYTHONS_OWN):
                found[pid] = command.strip()
    return found


def end_what_is_left() -> list[str]:
    """Kill all descendants that do not end by themselves. Returns their command lines."""
    deadline = time.monotonic() + _STOP_SECONDS
    while (left := descendants()) and time.monotonic() < deadline:
        time.sleep(0.1)  # one that was told to stop may be about to
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid}: {command}" for pid, command in left.items()]
