"""`python -m scanomaly.worker.consume --name NAME`: the process that computes, a Celery worker without a pool."""

import argparse
import logging
import sys

from ..models.errors import ScanomalyError
from ..models.settings import Settings
from .lifeline import stop_with_stdin

CANNOT_WORK = 78
"""The exit code that says: another start would end like this one (EX_CONFIG of sysexits.h)."""
NO_STORE = 69
"""The exit code that says: the store was away for longer than the settings allow."""
NO_BROKER = 75
"""The exit code that says: the broker went away in the middle of a message (EX_TEMPFAIL)."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.consume")
    parser.add_argument("--name", required=True)
    parser.add_argument("--loglevel", default="INFO")
    options, celery_options = parser.parse_known_args()
    stop_with_stdin()
    try:
        _check_device(Settings.from_environment())
    except ScanomalyError as error:
        logging.getLogger(__name__).error("%s", error)
        return CANNOT_WORK
    from .app import app

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
