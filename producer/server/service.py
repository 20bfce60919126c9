"""What the routes share: the jobs, threads to ask the store in, readings that many share, and the end."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

from starlette.requests import HTTPConnection

from ...models.settings import Settings
from ...models.store import Store
from ..jobs import StoreJobs
from ..status import JobStatus
from .access import Access
from .metrics import make_registry
from .readiness import Readiness, check_readiness
from .shared import Shared
from .submissions import Submissions

_K = TypeVar("_K")
_T = TypeVar("_T")

_STATUS_SECONDS = 1.0
_READY_SECONDS = 2.0
_THREADS = 8
"""SQLAlchemy gives a process so many connections, and some more."""


class Snapshot(NamedTuple):
    """A status as it is sent, whoever asks."""

    job: str
    body: bytes
    etag: str
    ended: bool

    @classmethod
    def of(cls, status: JobStatus) -> "Snapshot":
        body = json.dumps(status.to_json(), ensure_ascii=False).encode()
        digest = hashlib.blake2b(body, digest_size=12).hexdigest()
        return cls(status.job, body, f'"{digest}"', status.state.ended)


class Service:
    """One for each app. Close it at the end."""

    def __init__(self, settings: Settings, access: Access, store: Store) -> None:
        self.settings = settings
        self.access = access
        self.store = store
        self.jobs = StoreJobs(settings, store)
        self.submissions = Submissions(settings)
        self._threads = ThreadPoolExecutor(_THREADS, "store")
        # Of their own: whoever polls does not wait for whoever lists a million scans.
        self._pollers = ThreadPoolExecutor(2, "status")
        self.statuses: Shared[str, Snapshot] = self.shared(
            lambda job: Snapshot.of(self.jobs.status(job)), _STATUS_SECONDS
        )
        self.readiness: Shared[None, Readiness] = Shared(
            lambda _: check_readiness(settings, store), _READY_SECONDS, ThreadPoolExecutor(1, "ready")
        )
        self.registry = make_registry(settings, store)
        self.views: Shared[Any, str] | None = None
        self._stopping = asyncio.Event()

    def shared(self, read: Callable[[_K], _T], seconds: float) -> Shared[_K, _T]:
        """Readings that all share who ask for the same within so many seconds."""
        return Shared(read, seconds, self._pollers)

    async def do(self, action: Callable[[], _T]) -> _T:
        """Ask the store, or change what it has, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, action)

    async def stopping_within(self, seconds: float) -> bool:
        """Wait; True as soon as the service is to stop, so that streams end."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Have the streams end."""
        self._stopping.set()

    async def close(self) -> None:
        self.stop()
        await self.submissions.close()
        for threads in (self._threads, self._pollers):
            threads.shutdown(wait=False, cancel_futures=True)
        self.store.close()


def service_of(connection: HTTPConnection) -> Service:
    """The service of the app that got a request."""
    return cast(Service, connection.app.state.service)
