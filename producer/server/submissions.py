"""Submissions that the service takes: only of its roots, so many a minute, each in a process of its own."""

import asyncio
import json
import logging
import os
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ...models.errors import NotAllowedError, ScanomalyError, SourceError, UsageError
from ...models.processes import python_command
from ...models.settings import Settings
from ..remote import error_kind
from .limiter import Limiter

logger = logging.getLogger(__name__)

_AT_ONCE = 4
_PLACE_SECONDS = 10.0
"""How long a submission waits for one of the others to end."""
_SILENT_SECONDS = 120.0
"""How long one may neither find nor store anything. One folder of a million files is listed within it."""
_STOP_SECONDS = 5.0
_T = TypeVar("_T")
_PATHS = ("source", "labels_file", "weights")


class TooManySubmissionsError(ScanomalyError):
    """So many jobs were submitted in the last minute that this one has to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many jobs were submitted in the last minute: try again in {seconds:.0f} s")
        self.seconds = seconds


class NoPlaceError(ScanomalyError):
    """As many jobs as the service takes at a time are being submitted: try again in some seconds."""


class Submissions:
    """Takes submissions. Close it at the end: what was not whole by then has failed."""

    def __init__(self, settings: Settings) -> None:
        # What their names mean is asked once: one that becomes a link later opens nothing.
        self._roots = {str(root): os.path.realpath(root) for root in settings.api_roots}
        self._limiter = Limiter(settings.api_submits_per_minute)
        self._places = asyncio.Semaphore(_AT_ONCE)
        # Of a job's first part a person waits to hear; later ones outlast the store's absence.
        self._silent_later_seconds = _SILENT_SECONDS + settings.store_seconds
        self._processes: set[asyncio.subprocess.Process] = set()
        self._waiting: set[asyncio.Task[Any]] = set()

    async def submit(self, source: str, key: str | None, options: Mapping[str, Any]) -> str:
        """Put a job into the store. Returns its id as soon as its first part is there.

        It goes on where its caller goes away.

        Raises:
            TooManySubmissionsError, NoPlaceError: it has to wait.
            NotAllowedError: it names a file that is not below a root.
            ScanomalyError: what `StoreJobs.submit` raises.
        """
        if not self._limiter.hit():
            raise TooManySubmissionsError(self._limiter.seconds_left())
        resolved = {}
        for name in _PATHS:
            path = source if name == "source" else options.get(name)
            if path is not None:
                resolved[path] = resolve_below(self._roots, name, path)
        asked = {"source": source, "key": key, "options": dict(options), "resolved": resolved}
        return await asyncio.shield(self._kept(self._submit(asked)))

    def _kept(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A task that is waited for at the end. The event loop alone would not keep it."""
        task = asyncio.create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    async def _submit(self, asked: Mapping[str, Any]) -> str:
        try:
            async with asyncio.timeout(_PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise NoPlaceError() from None
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._kept(self._run(asked, answer))
        return await answer

    async def _run(self, asked: Mapping[str, Any], answer: asyncio.Future[str]) -> None:
        """Run a submission to its end. The rest of a large job is stored after the answer."""
        try:
            process = await asyncio.create_subprocess_exec(
                *python_command("producer.server.submitter"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            self._processes.add(process)
            try:
                await self._follow(process, asked, answer)
            except BaseException:
                with suppress(ProcessLookupError):
                    process.kill()
                raise
            finally:
                await process.wait()
                self._processes.discard(process)
        except Exception as error:  # whatever it is, one may wait for an answer
            logger.warning("a submission was ended: %s", error)
            if not answer.done():
                answer.set_exception(error)
        finally:
            self._places.release()
        if not answer.done():
            answer.set_exception(
                ScanomalyError("the submission ended without an answer: the service's log may say why")
            )

    async def _follow(
        self, process: asyncio.subprocess.Process, asked: Mapping[str, Any], answer: asyncio.Future[str]
    ) -> None:
        """Hear what a submission tells, and end it when it tells nothing for too long."""
        assert process.stdin is not None
        assert process.stdout is not None
        seconds = _SILENT_SECONDS
        try:
            process.stdin.write(json.dumps(asked).encode())
            process.stdin.close()
            while line := await asyncio.wait_for(process.stdout.readline(), seconds):
                told = json.loads(line)
                if not answer.done() and "job" in told:
                    answer.set_result(told["job"])
                    seconds = self._silent_later_seconds
                elif not answer.done() and "type" in told:
                    answer.set_exception(error_kind(told["type"])(told["detail"]))
        except TimeoutError:
            raise SourceError(
                f"the source gave no scan for {seconds:.0f} s, so its submission was ended: check that the disk or "
                "the network that it is on answers"
            ) from None

    async def close(self) -> None:
        """Stop what is under way; those who wait are told."""
        processes = list(self._processes)
        for process in processes:
            with suppress(ProcessLookupError):
                process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.gather(*(process.wait() for process in processes))
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*self._waiting, return_exceptions=True)


def resolve_below(roots: Mapping[str, str], name: str, path: str) -> str:
    """Where a path leads. That is what is to be opened: where the path leads later was not checked.

    Args:
        roots: the folders that it may lead to, by their names, and where those led when the service started.
        name: of the option that has the path.
        path: what a client wrote.

    Raises:
        NotAllowedError: it leads out of all roots, or there are none.
        UsageError: it is not absolute, or cannot be read.
    """
    if not roots:
        raise NotAllowedError(
            "this service takes no jobs: start it with `scanomaly serve --root FOLDER` or SCANOMALY_API_ROOTS"
        )
    if not Path(path).is_absolute() or "\0" in path:
        raise UsageError(f"{name} has to be an absolute path: {path!r} is not")
    try:
        # What follows a link with .. is one place to the system, and another to who shortens the path first.
        real = os.path.realpath(os.path.abspath(path))
        places = (Path(real), Path(os.path.realpath(path)))
    except OSError as error:  # of a link that is changed meanwhile
        raise UsageError(f"{name} {path!r} cannot be read ({error.strerror})") from None
    if not all(any(place.is_relative_to(root) for root in roots.values()) for place in places):
        named = ", ".join(roots)
        raise NotAllowedError(f"{name} {path!r} is not below a folder that this service takes scans from: {named}")
    return real
