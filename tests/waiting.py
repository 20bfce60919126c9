"""Waiting for what a test is about, however busy the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

HANGS = 600.0
"""Seconds. Whatever takes longer hangs: no test is right or wrong by this number but one that would never end."""

_LOOK_SECONDS = 0.1

T = TypeVar("T")


def until(look: Callable[[], T], what: object = "", reached: Callable[[T], object] = bool) -> T:
    """Look again and again until what is seen is what was waited for.

    Args:
        look: what to look at.
        what: for whoever reads of a failure; may be a function that tells it then.
        reached: whether what is seen is it; by default, whether it is true.
    """
    deadline = time.monotonic() + HANGS
    while not reached(found := look()):
        assert time.monotonic() < deadline, f"{what() if callable(what) else what}: {found}"
        time.sleep(_LOOK_SECONDS)
    return found
