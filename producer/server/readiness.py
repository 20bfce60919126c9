"""Whether jobs that are submitted now would be done: store, broker, a live worker."""

from collections.abc import Callable
from dataclasses import dataclass

from ...models.errors import ScanomalyError
from ...models.settings import Settings
from ...models.store import Store
from ..local import queue_depths


@dataclass(frozen=True)
class Readiness:
    """What was found, in words that give nothing away: anybody may ask."""

    store: str | None
    """Why not; None where it is ready."""
    broker: str | None
    worker: str | None

    @property
    def ready(self) -> bool:
        return not any(vars(self).values())

    def to_json(self) -> dict[str, object]:
        checks = {name: {"ok": why is None, "detail": why or "ready"} for name, why in vars(self).items()}
        return {"ready": self.ready, "checks": checks}


def check_readiness(settings: Settings, store: Store) -> Readiness:
    """Ask everything once. Takes seconds where something does not answer."""
    alive = 0

    def count_workers() -> None:
        nonlocal alive
        alive = store.workers.alive()

    no_store = _why(count_workers, "the store does not answer")
    no_broker = _why(lambda: queue_depths(settings), "the broker does not answer")
    return Readiness(no_store, no_broker, None if alive else "no worker is running")


def _why(check: Callable[[], object], words: str) -> str | None:
    try:
        check()
    except ScanomalyError:
        return words
    return None
