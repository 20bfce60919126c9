"""`python -m scanomaly.worker.consume`: the process that computes, a Celery worker of threads.

The supervisor starts it, and names the worker and the descriptor for its signs.
"""

import argparse
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from celery.signals import worker_ready

from ..models.errors import ScanomalyError, StoreUnreachableError
from ..models.settings import Settings
from .hearing import give_signs
from .lifeline import stop_with_stdin
from .pulse import give_pulse

logger = logging.getLogger(__name__)

CANNOT_WORK = 78
"""The exit code that says: another start would end like this one (EX_CONFIG of sysexits.h)."""
NO_STORE = 69
"""The exit code that says: the store was away for longer than the settings allow."""
BROKEN = 70
"""The exit code that says: something went wrong that could not even be written into the store (EX_SOFTWARE)."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.consume")
    parser.add_argument("--name", required=True)
    parser.add_argument("--loglevel", default="INFO")
    parser.add_argument("--log", help="The file that this worker's log goes to, for messages that name it.")
    parser.add_argument("--signs", type=int, required=True, help="The descriptor to write signs of life to.")
    options, celery_options = parser.parse_known_args()
    stop_with_stdin()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the watchdog's
    worker_ready.connect(_ignore_hangup, weak=False)
    try:
        _check_device(Settings.from_environment())
        from . import tasks
        from .app import app

        tasks.open_process(options.log)
    except StoreUnreachableError as error:
        logger.error("%s", error)
        return NO_STORE
    except ScanomalyError as error:
        logger.error("%s", error)
        return CANNOT_WORK
    give_signs(options.signs)
    give_pulse()
    command = ["worker", "--hostname", f"scanomaly@{options.name}", "--loglevel", options.loglevel]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    _run_celery(app, [*command, *celery_options])
    gc.freeze()  # or the interpreter, before it ends, would look for garbage in all that scoring has loaded
    return 0


def _run_celery(app: Any, arguments: Sequence[str]) -> None:
    """Be a Celery worker until a signal says stop. What Celery's command line would take from variables with such
    names as APP, LOADER or BROKER_URL is not meant for it."""
    from celery.bin.celery import celery as command_line

    for option in command_line.params:
        option.envvar = None
    app.worker_main(arguments)


def _ignore_hangup(**_: object) -> None:
    """The terminal's hang-up is for the supervisor, which then stops this process in order. Celery would have
    restarted itself."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


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
