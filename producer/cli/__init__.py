"""The command line: thin, and the only place that prints an error."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click
import cloup

from ...models.errors import UsageError
from ...models.interrupts import stop_signals_as_interrupt
from ...models.settings import Settings, give_home_to_libraries
from . import follow, make, operate, results
from .errors import print_error
from .options import CONTEXT, DEBUG, examples
from .terminal import is_coloured


@cloup.group(
    context_settings=CONTEXT,
    epilog=examples(
        "scanomaly run ./scans             from the folder to the report, all here",
        "scanomaly submit ./scans          queue it for workers, and print the job's id",
        "scanomaly worker                  on as many machines as you like",
    ),
)
@click.version_option(package_name="scanomaly")
@DEBUG
def cli() -> None:
    """Find the scans in a folder that do not look normal."""
    with suppress(UsageError):  # of a setting that cannot be right: the command itself tells it, and --help works
        give_home_to_libraries(Settings.from_environment())


_SECTIONS: tuple[tuple[str, tuple[click.Command, ...]], ...] = (
    ("Start a job", (make.run, make.submit, make.demo)),
    ("Follow jobs", (follow.status, follow.watch, follow.list_jobs)),
    ("Steer a job", (follow.cancel, follow.pause, follow.resume, follow.retry)),
    ("Use its results", (results.report, results.score, results.export)),
    ("Operate", (operate.worker, follow.workers, operate.serve, operate.store, operate.doctor)),
)
for _name, _commands in _SECTIONS:
    cli.section(_name, *_commands)


def _open_closed_streams() -> None:
    """Where a shell has closed standard input or output (`>&-`), have it lead nowhere: the next file that is opened
    would get its number, and what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Every error ends here, as one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_closed_streams()
    try:
        color = None if is_coloured(sys.stdout) else False
        with stop_signals_as_interrupt():  # or a command that is told to stop leaves behind what it has started
            code = cli.main(arguments, prog_name="scanomaly", standalone_mode=False, color=color)
        sys.stdout.flush()  # now, where an error can still be told
        sys.exit(code if isinstance(code, int) else 0)
    except Exception as error:
        sys.exit(print_error(error, arguments))
    except KeyboardInterrupt:
        sys.exit(print_error(click.Abort(), arguments))
