"""`python -m scanomaly.worker`: one worker, a supervisor and the process that computes; or one for each device.

With --until-stdin-ends it stops when its standard input does: whoever started it holds the other end, so it
never outlives them, however they die.
"""

import argparse
import logging
import sys

from ..models.errors import ScanomalyError
from ..models.settings import Settings
from .consume import BROKEN
from .fleet import Fleet, find_devices
from .supervisor import Supervisor

logger = logging.getLogger(__name__)


def main() -> int:
    """Returns the exit code: 0 when the worker was told to stop."""
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker")
    parser.add_argument("--until-stdin-ends", action="store_true")
    parser.add_argument("--devices", help="one worker for each: all, or a list such as cuda:0,cuda:1")
    parser.add_argument("--loglevel", default="INFO")
    options, celery_options = parser.parse_known_args()
    logging.basicConfig(level=options.loglevel.upper(), format="%(asctime)s %(levelname)s %(message)s")
    try:
        if options.devices is not None:
            arguments = ["--loglevel", options.loglevel, *celery_options]
            return Fleet(find_devices(options.devices), arguments).run(options.until_stdin_ends)
        supervisor = Supervisor(Settings.from_environment(), options.loglevel, celery_options)
        supervisor.run(until_stdin_ends=options.until_stdin_ends)
    except ScanomalyError as error:
        logger.error("%s", error)
        return error.exit_code
    except Exception as error:
        logger.exception("internal error")
        logger.error("internal error: %s: %s", type(error).__name__, error)
        return BROKEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
