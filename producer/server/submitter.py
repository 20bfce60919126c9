"""`python -m scanomaly.producer.server.submitter`: puts one job into the store for the service, and ends.

Looking through a million files, or for a pattern that takes for ever, is not done in the process that answers all.
A JSON object comes on standard input; on standard output goes a line {"job": ID} as soon as there is a job, or
{"type": …, "detail": …} of the error that ended it.
"""

import json
import resource
import sys
from typing import Any

from ...models.errors import ScanomalyError, UsageError
from ...models.settings import Settings
from ..jobs import StoreJobs
from ..named_files import NamedFiles
from ..remote import problem_type

_MOST_CPU_SECONDS = 600


def main() -> int:
    # A million files take ten seconds. Whatever needs so much more never ends.
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_SECONDS, _MOST_CPU_SECONDS))
    asked: dict[str, Any] = json.load(sys.stdin)
    told = False

    def tell(job_id: str, _files: int = 0) -> None:
        nonlocal told
        if not told:
            _write({"job": job_id})
        told = True

    try:
        jobs = StoreJobs(Settings.from_environment())
        status = jobs.submit(asked["source"], asked["key"], tell, NamedFiles(asked["resolved"]), **asked["options"])
        tell(status.job)
    except ScanomalyError as error:
        _write({"type": problem_type(type(error)), "detail": str(error)})
        return error.exit_code
    except (OSError, OverflowError, ValueError) as error:
        # A name that is too long for a file, a number too large for a pattern: the system's own words say it.
        _write({"type": problem_type(UsageError), "detail": f"what is asked for cannot be right: {error}"})
        return UsageError.exit_code
    return 0


def _write(document: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
