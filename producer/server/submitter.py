"""`python -m scanomaly.producer.server.submitter`: puts one job into the store for the service, and ends.

Looking through a million files, or for a pattern that takes for ever, is not done in the process that answers all.
A JSON object comes on standard input; on standard output goes a line {"job": ID} as soon as there is a job, or
{"type": …, "detail": …} of the error that ended it. A line {"files": N} a second, while files are found or
stored, says that it gets on.
"""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from typing import Any

from ...models.errors import ScanomalyError, UsageError
from ...models.settings import Settings
from ..jobs import StoreJobs
from ..named_files import NamedFiles
from ..remote import problem_type

_MOST_CPU_SECONDS = 600
_MOST_BYTES = 2 * 2**30
"""A million scans with labels and groups, by paths of 100 letters, take 0.6 GiB."""
_TELL_SECONDS = 1.0


def main() -> int:
    # A million files take ten seconds. Whatever needs so much more never ends.
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_SECONDS, _MOST_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    asked: dict[str, Any] = json.load(sys.stdin)
    progress = _Progress()
    try:
        jobs = StoreJobs(Settings.from_environment())
        files = NamedFiles(asked["resolved"])
        status = jobs.submit(
            asked["source"], asked["key"], progress.stored, files, progress.found, **asked["options"]
        )
        progress.stored(status.job)
    except MemoryError:
        detail = f"looking through it takes more than {_MOST_BYTES // 2**30} GiB of memory: submit it in parts"
        _write({"type": problem_type(UsageError), "detail": detail})
        return UsageError.exit_code
    except ScanomalyError as error:
        _write({"type": problem_type(type(error)), "detail": str(error)})
        return error.exit_code
    except (OSError, OverflowError, ValueError) as error:
        # A name that is too long for a file, a number too large for a pattern: the system's own words say it.
        _write({"type": problem_type(UsageError), "detail": f"what is asked for cannot be right: {error}"})
        return UsageError.exit_code
    return 0


class _Progress:
    """Tells the service what it has to know: the job as soon as there is one, and that it gets on."""

    _told_job = False
    _told_at = 0.0

    def stored(self, job_id: str, files: int = 0) -> None:
        if not self._told_job:
            _write({"job": job_id})
        self._told_job = True
        self.found(files)

    def found(self, files: int) -> None:
        now = time.monotonic()
        if now >= self._told_at + _TELL_SECONDS:
            self._told_at = now
            _write({"files": files})


def _write(document: dict[str, Any]) -> None:
    # Where the service is gone, nobody hears it, and the job is submitted to its end.
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), (json.dumps(document) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
