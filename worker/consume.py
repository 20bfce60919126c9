"""`python -m scanomaly.worker.consume`: the process that computes, a Celery worker of threads.

The supervisor starts it, and names the worker and the descriptor for its signs.
"""

import argparse
import logging
import signal
import sys

from ..models.errors import ScanomalyError
from ..models.settings import Settings
from .hearing import give_signs
from .lifeline import stop_with_stdin
from .pulse import give_pulse

CANNOT_WORK = 78
"""The exit code that says: another start would end like this one (EX_CONFIG of sysexits.h)."""
NO_STORE = 69
"""The exit code that says: the store was away for longer than the settings allow."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.consume")
    parser.add_argument("--name", required=True)
    parser.add_argument("--loglevel", default="INFO")
    parser.add_argument("--signs", type=int, required=True, help="The descriptor to write signs of life to.")
    options, celery_options = parser.parse_known_args()
    stop_with_stdin()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the watchdog's
    try:
        _check_device(Settings.from_environment())
    except ScanomalyError as error:
        logging.getLogger(__name__).error("%s", error)
        return CANNOT_WORK
    from .app import app

    give_signs(options.signs)
    give_pulse()
    command = ["worker", "--hostname", f"scanomaly@{options.name}", "--loglevel", options.loglevel]
    app.worker_main([*command, "--without-gossip", "--without-mingle", "--without-heartbeat", *celery_options])
    return 0


def _check_device(settings: Settings) -> None:
    """A device that was asked for by name is there, or no job is touched.

    Raises:
        EncoderError: it is not.
    """
    if settings.device not in ("auto", "cpu"):
        from .encoding.encoder import describe_device

        describe_device(settings.device)


if __name__ == "__main__":
    sys.exit(main())
