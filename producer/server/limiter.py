"""So many in a minute, and how long who is over it has to wait."""

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter


class Limiter:
    """Counts what each of several may do so many times in a minute."""

    def __init__(self, a_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(a_minute)
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    def hit(self, who: str = "") -> bool:
        """Count one. False, and not counted, where there were as many already."""
        return self._windows.hit(self._limit, who)

    def may(self, who: str = "") -> bool:
        """Whether one more would be counted."""
        return self._windows.test(self._limit, who)

    def seconds_left(self, who: str = "") -> float:
        """How long to wait until one more may be counted: a second or more."""
        return max(1.0, self._windows.get_window_stats(self._limit, who).reset_time - time.time())
