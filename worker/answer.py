"""How a process of the worker's side answers the command line that started it."""

import sys
from collections.abc import Callable

from ..models.errors import ScanomalyError


def say(stage: str) -> None:
    """Tell the command line what is begun, in a line on standard output."""
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


def answer(work: Callable[[], object]) -> int:
    """Do the work; an error goes to standard error in one line, for the caller to print. Returns the exit code."""
    try:
        work()
    except ScanomalyError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
