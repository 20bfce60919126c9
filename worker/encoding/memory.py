"""How many bytes the scans of a batch may take at one time."""

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ...models.states import FailureKind
from .images import ImageFailure, readable_bytes

_M_ARENA_MAX = -8  # of glibc's malloc.h


class NoRoomError(Exception):
    """A scan that is being prepared needs more than is free now: `need` bytes in all, to be waited for anew."""

    def __init__(self, need: int) -> None:
        super().__init__(need)
        self.need = need


class MemoryBudget:
    """Bytes that threads share: first come, first served. Who waits holds nothing, so there is no deadlock."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator["Share"]:
        """Wait until `size` bytes are free; hold them, and what the share grows to, until the end of the block."""
        self._wait_for(size)
        share = Share(self, size)
        try:
            yield share
        finally:
            self._give_back(share.size)

    def grow(self, share: "Share", need: int) -> None:
        """Make a share `need` bytes large, without waiting.

        Raises:
            NoRoomError: so much is not free now, or others came first.
            ImageFailure: TOO_LARGE, so much is never free.
        """
        if need > self._total:
            raise ImageFailure(
                FailureKind.TOO_LARGE,
                f"The scan takes up to {readable_bytes(need)} of memory; "
                f"the limit is {readable_bytes(self._total)} (SCANOMALY_BATCH_MEMORY).",
            )
        with self._changed:
            # A share that holds something may pass those who wait: it came before them, and soon gives all back.
            if need - share.size > self._free or (self._queue and not share.size):
                raise NoRoomError(need)
            self._free -= need - share.size
            share.size = need

    def shrink(self, share: "Share", size: int) -> None:
        """Make a share no larger than `size` bytes."""
        rest = max(0, share.size - size)
        share.size -= rest
        self._give_back(rest)

    def _wait_for(self, size: int) -> None:
        if not size:
            return
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket and self._free >= size)
            self._queue.popleft()
            self._free -= size
            self._changed.notify_all()

    def _give_back(self, size: int) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()


class Share:
    """What one scan holds of a budget: `size` bytes, of which it has said what a part is for."""

    def __init__(self, budget: MemoryBudget, size: int) -> None:
        self.size = size
        self.used = 0
        """How many bytes it has said a purpose of."""
        self._budget = budget

    def reserve(self, size: int) -> None:
        """Take `size` bytes more for something; the share grows when it is too small.

        Raises as `grow` does, and has then taken nothing.
        """
        used = self.used + size
        if used > self.size:
            self._budget.grow(self, used)
        self.used = used

    def go_back(self, used: int) -> None:
        """Undo what was reserved after so many bytes were used: what they were for is gone."""
        self.used = used
        self._budget.shrink(self, used)


def unbounded() -> Share:
    """A share of as much as there is, for who does not count."""
    return Share(MemoryBudget(sys.maxsize), 0)


def give_freed_memory_back() -> None:
    """Have glibc keep one heap for all threads. Each has its own by default, and keeps tens of MiB freed in it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
