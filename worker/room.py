"""Who may work in this process at the same time."""

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Room:
    """Lets in work of one kind at a time, as much of it as comes, in the order in which it comes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._inside = 0
        self._kind: Hashable = None

    @contextmanager
    def enter(self, kind: Hashable) -> Iterator[None]:
        """Wait until nothing of another kind is inside, and stay until the end of the block."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket and (not self._inside or self._kind == kind))
            self._queue.popleft()
            self._inside += 1
            self._kind = kind
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def alone(self) -> Hashable:
        """A kind that nothing else is of."""
        return object()
