"""Asks a server by the driver of this process, and tries again what may pass."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
)

from .answers import Driver
from .failures import TryError, failure, wait
from .gs import Gs
from .http import Http
from .s3 import S3
from .urls import Place

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Connection:
    """One server, asked by a driver that each process makes when it first asks.

    Safe to use from several threads, and after a fork. Not to be called from fsspec's own thread: `run`, `retry`.
    """

    def __init__(self, place: Place, seconds: float, answer_seconds: float) -> None:
        """See `ObjectFolder`."""
        self._place = place
        self._seconds = seconds
        self._answer_seconds = answer_seconds
        self._drivers: dict[int, Driver] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_drivers": {}}

    @property
    def driver(self) -> Driver:
        """The driver of this process. One that a fork brought along stays unused: its loop's thread is not here.

        Without a lock, which a fork could find locked for ever: a driver that loses a race was never connected.
        """
        process = os.getpid()
        if process not in self._drivers:
            makers: dict[str, type[S3] | type[Gs] | type[Http]] = {"s3": S3, "gs": Gs, "http": Http}
            make = makers[self._place.driver]
            self._drivers.setdefault(process, make(self._place, self._answer_seconds))
        return self._drivers[process]

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have the driver's own thread do a piece of work; errors of drivers come out as `TryError`."""
        future: Future[_T] = asyncio.run_coroutine_threadsafe(work, self.driver.loop)
        try:
            return future.result()
        except Exception as error:
            failed = failure(error)
        except BaseException:
            future.cancel()
            raise
        raise failed  # outside of the handler: nothing of the driver's text hangs on it

    def retry(self, attempt: Callable[[], _T], seconds: float | None = None) -> _T:
        """What an attempt gives; one that fails is made again, with growing waits, where that may do better."""
        try:
            return Retrying(**self._retrying(seconds or self._seconds))(attempt)
        except TryError as error:
            failed = error
        raise failed.error

    async def retry_in_loop(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """As `retry`, in the driver's thread; what it raises is still a `TryError`."""

        async def clean() -> _T:
            try:
                return await attempt()
            except Exception as error:
                failed = failure(error)
            raise failed

        return await AsyncRetrying(**self._retrying(self._seconds))(clean)

    def _retrying(self, seconds: float) -> dict[str, Any]:
        return {
            "retry": retry_if_exception(lambda error: isinstance(error, TryError) and error.passing),
            "stop": stop_before_delay(seconds) & stop_after_attempt(2),
            "wait": lambda state: min(wait(state), seconds / 3),
            "before_sleep": self._tell,
            "reraise": True,
        }

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1 and isinstance(error, TryError):
            logger.info("%s: %s; trying again", self._place.url, error.error.strerror)
