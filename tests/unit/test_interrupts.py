"""Ctrl-C in the midst of what has to be whole."""

import itertools
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import text

from scanomaly.models.database import Database
from scanomaly.models.interrupts import interrupts_held, stop_signals_as_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end(number: signal.Signals) -> None:
    steps: list[str] = []

    def work() -> None:
        with interrupts_held():
            signal.raise_signal(number)
            steps.append("went on")
        steps.append("and on")

    with stop_signals_as_interrupt(), pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]


def test_a_second_interrupt_does_not_wait() -> None:
    steps: list[str] = []

    def work() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")
            signal.raise_signal(signal.SIGINT)
            steps.append("and on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]


def test_handlers_are_as_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupts_held():
        assert signal.getsignal(signal.SIGINT) is not before[0]
        assert signal.getsignal(signal.SIGTERM) is before[1]  # the default, which ends the process
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_the_handlers_alone() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with interrupts_held():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def test_a_transaction_that_is_interrupted_is_whole(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
    with database.write() as session:
        session.execute(text("CREATE TABLE numbers (number INTEGER)"))

    def insert() -> None:
        with database.write() as session:
            session.execute(text("INSERT INTO numbers VALUES (1)"))
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        insert()
    with database.write() as session:
        assert session.scalars(text("SELECT number FROM numbers")).all() == [1]


def test_an_interrupt_between_two_steps_of_a_session_is_still_one(tmp_path: Path) -> None:
    """SQLAlchemy then says that it cannot close a session in such a state, and no more of why."""
    database = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")

    def read_interrupted(step: int) -> bool:
        try:
            with interrupted_at(step), database.read() as session:
                session.execute(text("SELECT 1"))
        except KeyboardInterrupt:
            return True
        return False

    steps = 0
    while read_interrupted(steps):
        steps += 1
    assert steps > 20


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """KeyboardInterrupt at one of the lines that keep account of a session's state."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        state = frame.f_code.co_filename.endswith("sqlalchemy/orm/state_changes.py")
        if state and event == "line" and next(lines) == step:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)
