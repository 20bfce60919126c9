"""How an error is told: one line on standard error that says what is wrong and what to do, and an exit code."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from ...models.errors import ScanomalyError
from .output import print_json
from .terminal import is_coloured, plain

_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def print_error(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error and return the exit code. The options are looked for in the words themselves, because an
    error in the command line comes before they are parsed."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.message, err=True, color=None if is_coloured(sys.stderr) else False)
        return error.exit_code
    if isinstance(error, OSError) and _is_about_output(error):
        return _forget_output(error)
    code, message = _describe(error)
    if "--debug" in arguments:
        traceback.print_exception(error)
    name = click.style("scanomaly:", fg="red", bold=True)
    click.echo(f"{name} {plain(message)}", err=True, color=None if is_coloured(sys.stderr) else False)
    documented = isinstance(error, ScanomalyError) and error.exit_code in (4, 5)
    if "--json" in arguments and not documented:  # those two have printed the job's status
        try:
            print_json({"error": message, "exit_code": code})
        except OSError as unwritable:
            return _forget_output(unwritable)
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
        # Click writes choices below one another; other control characters are the user's.
        message = re.sub(r"\n\t", " ", error.format_message())
        return error.exit_code, message.rstrip(".") + hint
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return 2, f"{error.object!r} is not text in UTF-8, as names, paths and ids have to be"
    return 1, f"internal error: {type(error).__name__}: {error}; run it again with --debug and report it"


def _is_about_output(error: OSError) -> bool:
    """Whether standard output is what cannot be written: an error of a file or of a service has a name."""
    return error.filename is None and error.errno in _OUTPUT_ERRORS


def _forget_output(error: OSError) -> int:
    """What is still to be written cannot be: Python would say so once more, at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # else whoever read it has enough
        reason = error.strerror or type(error).__name__
        click.echo(f"scanomaly: standard output cannot be written ({reason}): write it elsewhere", err=True)
    return 1
