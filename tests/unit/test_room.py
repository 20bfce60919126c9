"""Who works beside whom in one process."""

import threading
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from scanomaly.worker.room import Room

SECONDS = 5


class Guest:
    """Enters a room in a thread of its own, and stays until it is told to leave."""

    def __init__(self, room: Room, kind: Hashable) -> None:
        self.inside = threading.Event()
        self._leave = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._done: Future[None] = self._pool.submit(self._stay, room, kind)

    def _stay(self, room: Room, kind: Hashable) -> None:
        with room.enter(kind):
            self.inside.set()
            assert self._leave.wait(SECONDS)

    def waits(self) -> bool:
        return not self.inside.wait(0.05)

    def enters(self) -> bool:
        return self.inside.wait(SECONDS)

    def leave(self) -> None:
        self._leave.set()
        self._done.result(SECONDS)


def test_one_kind_works_side_by_side_and_another_waits() -> None:
    room = Room()
    first, second = Guest(room, "a"), Guest(room, "a")
    assert first.enters()
    assert second.enters()
    other = Guest(room, "b")
    assert other.waits()
    first.leave()
    assert other.waits()
    second.leave()
    assert other.enters()
    other.leave()


def test_who_is_alone_is_alone() -> None:
    room = Room()
    first = Guest(room, room.alone())
    assert first.enters()
    others = [Guest(room, room.alone()), Guest(room, "a")]
    assert all(other.waits() for other in others)
    first.leave()
    assert others[0].enters()
    assert others[1].waits()
    others[0].leave()
    assert others[1].enters()
    others[1].leave()


def test_who_comes_later_does_not_overtake() -> None:
    """Or one kind could keep another waiting for ever."""
    room = Room()
    first = Guest(room, "a")
    assert first.enters()
    other = Guest(room, "b")
    assert other.waits()
    late = Guest(room, "a")
    assert late.waits()
    first.leave()
    assert other.enters()
    assert late.waits()
    other.leave()
    assert late.enters()
    late.leave()


def test_an_error_leaves_the_room() -> None:
    room = Room()
    with pytest.raises(ValueError, match="mine"), room.enter("a"):
        raise ValueError("mine")
    with room.enter("b"):
        pass
