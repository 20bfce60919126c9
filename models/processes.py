"""How this program starts processes of its own, and what it says of their ends."""

import os
import re
import signal
import stat
import sys
from pathlib import Path

_LOG_PREFIX = re.compile(r"\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+:? [A-Z]+(/[\w-]+\])? ")


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this program, such as `worker.doctor`, in another process.

    With `-P`: a person types commands in a folder of scans, which `-m` alone would have Python import from first. A
    file `json.py` there, of whoever may write into it, would be run.
    """
    return [sys.executable, "-P", "-m", f"scanomaly.{module}", *arguments]


def script_command(script: Path, *arguments: str) -> list[str]:
    """The command that runs a file of this program that takes the standard library alone. Neither the folder nor
    the environment has a part in what it imports."""
    return [sys.executable, "-I", "-S", str(script), *arguments]


def describe_end(code: int) -> str:
    """How a process ended, as `subprocess` tells it: a negative code is a signal's number."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal, of which only the first has a name
        return f"was killed by signal {-code}"


def message_of(line: str) -> str:
    """A line of a log, without the time and the level before it."""
    return _LOG_PREFIX.sub("", line.strip())


def last_message(log: Path) -> str:
    """The last line of a log, as `message_of` has it; empty where there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((message_of(line) for line in reversed(lines) if line.strip()), "")


def log_file() -> str | None:
    """The file that this process's standard error goes to. None for a terminal or a pipe, and where the system
    cannot say."""
    try:
        return str(Path("/proc/self/fd/2").readlink()) if stat.S_ISREG(os.fstat(2).st_mode) else None
    except OSError:
        return None
