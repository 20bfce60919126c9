"""The options that several commands have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import cloup
from cloup import HelpFormatter, HelpTheme, Style

from ...models.encoders import AUTO, DEFAULT_ENCODER, OFFLINE_ENCODER, PRECISIONS
from ...models.intensity import parse_intensity
from ...models.records import AUTO_INTENSITY, DEFAULT_FALSE_ALARM_RATE
from ...models.scorers import DEFAULT_SCORERS, SCORERS, parse_scorers
from ...models.states import Priority

CONTEXT: dict[str, Any] = cloup.Context.settings(
    help_option_names=["-h", "--help"],
    formatter_settings=HelpFormatter.settings(
        max_width=110,
        theme=HelpTheme(invoked_command=Style(bold=True), heading=Style(bold=True), col1=Style(fg="cyan")),
    ),
)
"""Cloup shows commands and options in groups, and on a narrow terminal what an option does below its name."""

Function = TypeVar("Function", bound=Callable[..., Any])
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="On an error, print the traceback too.")
DEVICE = click.option(
    "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps; by default a GPU when there is one."
)
SERVER = click.option(
    "--server",
    metavar="URL",
    help="Ask this service (`scanomaly serve`) instead of the store: SCANOMALY_SERVER_URL.",
)
OPEN = click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")


_ENCODER_OPTIONS = (
    cloup.option_group(
        "Encoder",
        click.option(
            "--encoder",
            default=DEFAULT_ENCODER,
            show_default=True,
            metavar="NAME",
            help=f"An open_clip model, MODEL or MODEL/TAG; or {OFFLINE_ENCODER}, which needs no internet.",
        ),
        click.option(
            "--weights",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A checkpoint on this disk, instead of the model hub's.",
        ),
        click.option("--precision", type=click.Choice([*PRECISIONS, AUTO]), default="fp32", show_default=True),
    ),
)
_JOB_OPTIONS = (
    cloup.option_group(
        "Labels",
        click.option(
            "--normal", multiple=True, metavar="GLOB", help="Scans known to be normal: a folder, or a glob."
        ),
        click.option(
            "--anomaly", multiple=True, metavar="GLOB", help="Scans known to be anomalies: a glob or a sub-folder."
        ),
        click.option(
            "--labels",
            "labels_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A CSV file with the columns path,label.",
        ),
        click.option(
            "--group",
            metavar="COLUMN|REGEX",
            help="What scans of a patient share: a column of --labels, or a regular expression on the path. "
            "DICOM headers tell it without.",
        ),
    ),
    *_ENCODER_OPTIONS,
    cloup.option_group(
        "Scans",
        click.option(
            "--slices",
            default="all",
            show_default=True,
            metavar="WHICH",
            help="Which slices of volumes are scans: all, middle:K or every:K.",
        ),
        click.option(
            "--plane",
            type=click.Choice(["axial", "coronal", "sagittal"]),
            default="axial",
            show_default=True,
            help="In which volumes of voxels are cut.",
        ),
        click.option(
            "--intensity",
            default=AUTO_INTENSITY,
            show_default=True,
            metavar="HOW",
            callback=lambda _context, _option, text: parse_intensity(text) and text.strip(),
            help="How values of more than 8 bits become grey: auto, minmax, window:CENTRE,WIDTH or "
            "percentile:LOW,HIGH.",
        ),
        click.option(
            "--follow-links", is_flag=True, help="Take scans behind links that lead out of the folder too."
        ),
        click.option(
            "--rehash", is_flag=True, help="Read files too whose size and time did not change since they were read."
        ),
    ),
    cloup.option_group(
        "Scores and report",
        click.option(
            "--scorer",
            "scorers",
            default=",".join(DEFAULT_SCORERS),
            show_default=True,
            metavar="NAMES",
            callback=lambda _context, _option, names: parse_scorers(names),
            help=f"Of {', '.join(SCORERS)}, with commas between them: the first ranks, the report compares all.",
        ),
        click.option(
            "--false-alarm-rate",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=DEFAULT_FALSE_ALARM_RATE,
            show_default=True,
            metavar="SHARE",
            help="The share of normal scans that the report may call anomalies.",
        ),
        click.option("--out", type=click.Path(path_type=Path), help="The folder to write the report into."),
        click.option(
            "--hide-paths", is_flag=True, help="Have ids for paths in the report, in the status and in the service."
        ),
    ),
    cloup.option_group(
        "Queue",
        click.option(
            "--priority",
            type=click.Choice([priority.value for priority in Priority]),
            default=Priority.NORMAL.value,
            show_default=True,
            help="Whose scans the workers take first.",
        ),
        click.option("--batch-size", type=click.IntRange(1, 10_000), help="Scans in one queue message."),
    ),
)


def encoder_options(function: Function) -> Function:
    """What embeds the scans."""
    return _with(_ENCODER_OPTIONS, function)


def job_options(function: Function) -> Function:
    """What a job is made of: the same for `run` and `submit`."""
    return _with(_JOB_OPTIONS, function)


def _with(groups: Sequence[Callable[[Any], Any]], function: Function) -> Function:
    for group in reversed(groups):
        function = group(function)
    return function


def examples(*lines: str, more: str = "README.md") -> str:
    """The end of a command's help: what one may type, and which of the project's pages tells more."""
    typed = "\n".join(f"  {line}" for line in lines)
    return f"\b\nExamples:\n{typed}\n\nMore: {more}"
