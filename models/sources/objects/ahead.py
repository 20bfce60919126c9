"""Reads objects before they are wanted."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from .answers import Fetched, Version
from .failures import TryError
from .reading import Claim
from .urls import path_reason

if TYPE_CHECKING:
    from .folder import ObjectFolder

AHEAD_BYTES = 64 * 1024**2
"""What is read ahead of a batch may take so many bytes, beside the batch's own memory."""


class ReadAhead:
    """Reads the objects of a batch in the background, so that the server's delay is not waited for one by one.

    Objects are begun in the order of their paths, and their bytes are kept until they are taken, or the block ends.
    `max_ahead_bytes` bounds what is kept, whatever else the batch holds. Who wants an object that there is no room
    for, or that was not begun, reads it itself, so nobody ever waits for room: there is no deadlock.

    A context manager; `read` and `fetch` are safe to use from several threads.
    """

    def __init__(self, folder: "ObjectFolder", paths: Sequence[str], at_once: int, max_ahead_bytes: int) -> None:
        """Args:
        folder: where the objects are.
        paths: of the objects, in the order that they will be wanted in. One that is there twice is read ahead once.
        at_once: how many are read at one time.
        max_ahead_bytes: how many bytes may be kept; a larger object is never read ahead.
        """
        self._folder = folder
        self._connection = folder.connection
        self._paths = [path for path in dict.fromkeys(paths) if path_reason(path) is None]
        self._at_once = at_once
        self._room = _Room(max_ahead_bytes)
        self._items: dict[str, _Item] = {}

    def __enter__(self) -> "ReadAhead":
        self._connection.run(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.run(self._end())

    def read(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> bytes:
        """As `ObjectFolder.read`, from what was read ahead if it was."""
        return self.fetch(path, reserve, max_bytes).data

    def fetch(
        self, path: str, reserve: Callable[[int], None] = lambda size: None, max_bytes: int | None = None
    ) -> Fetched:
        """As `ObjectFolder.fetch`, from what was read ahead if it was.

        When `reserve` raises, the bytes stay, and can be asked for again. Afterwards they are the caller's alone.
        """
        item = self._items.get(path)
        fetched = None if item is None else self._wait_for(item)
        if item is None or fetched is None:
            return self._folder.fetch(path, reserve, max_bytes)
        Claim(reserve, max_bytes).up_to(len(fetched.data))
        self._connection.run(self._take(path, item))
        return fetched

    def version(self, path: str) -> Version:
        """As `ObjectFolder.version`, from what was read ahead if it was: that costs no request."""
        item = self._items.get(path)
        fetched = None if item is None else self._wait_for(item)
        return self._folder.version(path) if fetched is None else fetched.version

    def _wait_for(self, item: "_Item") -> Fetched | None:
        try:
            return self._connection.run(self._result(item))
        except TryError as error:
            failed = error
        raise failed.error

    # All below runs in the driver's thread, one at a time: there are no locks.

    async def _begin(self) -> None:
        turns = asyncio.Semaphore(self._at_once)
        for path in self._paths:
            item = _Item()
            item.task = asyncio.create_task(self._one(path, item, turns))
            self._items[path] = item

    async def _end(self) -> None:
        tasks = [item.task for item in self._items.values() if item.task]
        self._items.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _result(self, item: "_Item") -> Fetched | None:
        """What was read; or None if it must be read by who wants it."""
        item.wanted = True
        task = item.task
        if task is None:
            return None
        if item.idle:
            task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _take(self, path: str, item: "_Item") -> None:
        if self._items.get(path) is item:
            del self._items[path]
            self._room.give_back(item)
        item.task = None

    async def _one(self, path: str, item: "_Item", turns: asyncio.Semaphore) -> Fetched | None:
        try:
            async with turns:
                item.idle = False
                return await self._connection.retry_in_loop(lambda: self._attempt(path, item))
        except BaseException:
            self._room.give_back(item)
            raise

    async def _attempt(self, path: str, item: "_Item") -> Fetched | None:
        while True:
            answer = await self._connection.driver.get(path)
            try:
                size = answer.length
                if size is None or size > self._room.total:
                    return None
                if self._room.take(item, size):
                    return Fetched(await answer.whole(), answer.found.version())
            finally:
                # A server would not wait with the rest of its answer until there is room.
                await answer.close()
            if item.wanted:
                return None
            item.idle = True
            await self._room.wait_for(item, size)
            item.idle = False


@dataclass(eq=False)
class _Item:
    """An object that is read ahead."""

    task: asyncio.Task[Fetched | None] | None = None
    idle: bool = True
    """It waits for its turn or for room: nothing of it is there."""
    wanted: bool = False
    """Somebody waits for it."""
    held: int = 0
    """Bytes of the room that are its own."""


class _Room:
    """Bytes that objects read ahead may take: first come, first served. Used in one thread."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._queue: deque[tuple[_Item, int, asyncio.Future[None]]] = deque()

    def take(self, item: _Item, size: int) -> bool:
        """Have an item hold `size` bytes, if so many are free and nobody was there before."""
        if size - item.held > self._free or (self._queue and not item.held):
            return False
        self._free -= size - item.held
        item.held = size
        return True

    async def wait_for(self, item: _Item, size: int) -> None:
        self.give_back(item)
        entry = (item, size, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._serve()
        try:
            await entry[2]
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
                self._serve()

    def give_back(self, item: _Item) -> None:
        self._free += item.held
        item.held = 0
        self._serve()

    def _serve(self) -> None:
        while self._queue and self._queue[0][1] <= self._free:
            item, size, turn = self._queue.popleft()
            self._free -= size
            item.held = size
            if not turn.done():
                turn.set_result(None)
            else:  # it was cancelled, and would never give back
                self._free += size
                item.held = 0
