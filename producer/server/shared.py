"""Reads that many clients share: however many ask, the store is asked now and then."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

_MOST_KEPT = 1000


class Shared(Generic[_Key, _Value]):
    """What a function finds, by its argument. Who asks while it is being read waits for that reading."""

    def __init__(self, read: Callable[[_Key], _Value], seconds: float, threads: ThreadPoolExecutor) -> None:
        """Args:
        read: called in a thread; what it raises is raised to all who wait, and not kept.
        seconds: for how long what it found is given out.
        threads: where it is called.
        """
        self._read = read
        self._seconds = seconds
        self._threads = threads
        self._kept: OrderedDict[_Key, tuple[float, _Value]] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Future[_Value]] = {}

    async def get(self, key: _Key) -> _Value:
        """What there is for a key, read at most so many seconds ago."""
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        future = self._under_way.get(key)
        if future is None:
            future = asyncio.ensure_future(self._renew(key))
            self._under_way[key] = future
            future.add_done_callback(lambda done: self._done(key, done))
        # One that goes away must not take the reading from the others.
        return await asyncio.shield(future)

    def forget(self) -> None:
        """Read again what is asked for from now on: something was changed."""
        self._kept.clear()
        self._under_way.clear()

    async def _renew(self, key: _Key) -> _Value:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, key)

    def _done(self, key: _Key, future: "asyncio.Future[_Value]") -> None:
        if self._under_way.get(key) is not future:
            return  # it was forgotten meanwhile, and may be of the time before
        del self._under_way[key]
        if not future.cancelled() and future.exception() is None:
            self._kept[key] = (time.monotonic() + self._seconds, future.result())
            self._kept.move_to_end(key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
