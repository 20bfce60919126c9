"""Waiting for a store, or a service before it, that is away for a while."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from .errors import ServiceUnreachableError, StoreUnreachableError

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def patiently(seconds: float, function: Callable[[], _T], stop: threading.Event | None = None) -> _T:
    """Call a function, again and again while the store, or the service, cannot be used.

    Args:
        seconds: for how long; the waits in between double, up to 10 seconds.
        function: may be called several times.
        stop: ends the patience when it is set.

    Raises:
        StoreUnreachableError, ServiceUnreachableError: it could not be used for all this time.
    """
    event = stop or threading.Event()
    retrying = Retrying(
        retry=retry_if_exception_type((StoreUnreachableError, ServiceUnreachableError)),
        stop=stop_after_delay(seconds) | stop_when_event_set(event),
        sleep=sleep_using_event(event),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(function)


def _tell(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        logger.warning("%s; trying again", state.outcome.exception())
