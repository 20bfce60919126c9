"""The command line: thin, and the only place that prints an error."""

import sys
import traceback
from collections.abc import Sequence

import click

from ...models.errors import ScanomalyError
from ...models.interrupts import stop_signals_as_interrupt
from . import follow, make, operate, results
from .options import DEBUG
from .output import plain, print_json


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="scanomaly")
@DEBUG
def cli() -> None:
    """Find the scans in a folder that do not look normal.

    \b
    scanomaly run ./scans          one job on this machine, from the folder to the report
    scanomaly submit, worker       the same on many machines, through Redis
    """


_COMMANDS: tuple[click.Command, ...] = (
    make.run,
    make.demo,
    make.submit,
    follow.status,
    follow.watch,
    follow.list_jobs,
    follow.cancel,
    follow.retry,
    follow.pause,
    follow.resume,
    follow.workers,
    results.report,
    results.score,
    results.export,
    operate.worker,
    operate.serve,
    operate.store,
    operate.doctor,
)
for _command in _COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Every error ends here, as one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with stop_signals_as_interrupt():  # or a command that is told to stop leaves behind what it has started
            code = cli.main(arguments, prog_name="scanomaly", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Exception as error:
        sys.exit(_print_error(error, arguments))
    except KeyboardInterrupt:
        sys.exit(_print_error(click.Abort(), arguments))


def _print_error(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error and return the exit code. The options are looked for in the words themselves, because an
    error in the command line comes before they are parsed."""
    code, message = _describe(error)
    if "--debug" in arguments:
        traceback.print_exception(error)
    click.echo(plain(f"scanomaly: {message}"), err=True)
    documented = isinstance(error, ScanomalyError) and error.exit_code in (4, 5)
    if "--json" in arguments and not documented:  # those two have printed the job's status
        print_json({"error": message, "exit_code": code})
    return code


def _describe(error: Exception) -> tuple[int, str]:
    if isinstance(error, ScanomalyError):
        return error.exit_code, str(error)
    if isinstance(error, click.Abort):
        return 130, "stopped"
    if isinstance(error, click.ClickException):
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see `{error.ctx.command_path} --help`)"
        return error.exit_code, error.format_message().rstrip(".") + hint
    return 1, f"internal error: {type(error).__name__}: {error}; run it again with --debug and report it"
