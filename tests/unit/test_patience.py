"""Waiting for a store that is away."""

import threading
import time

import pytest

from scanomaly.models.errors import SchemaError, StoreUnreachableError
from scanomaly.models.patience import patiently


class Store:
    """Cannot be used the first few times."""

    def __init__(self, failures: int, error: type[Exception] = StoreUnreachableError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error("away")
        return "rows"


def test_a_store_that_comes_back_is_waited_for() -> None:
    store = Store(failures=3)
    assert patiently(30, store) == "rows"
    assert store.calls == 4


def test_one_that_does_not_is_an_error_in_the_end() -> None:
    with pytest.raises(StoreUnreachableError, match="away"):
        patiently(0.5, Store(failures=10**9))


def test_no_other_error_is_waited_for() -> None:
    store = Store(failures=1, error=SchemaError)
    with pytest.raises(SchemaError):
        patiently(30, store)
    assert store.calls == 1


def test_who_is_told_to_stop_waits_no_longer() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(StoreUnreachableError):
        patiently(300, Store(failures=10**9), stop)
    assert time.monotonic() - begun < 200
