"""Text for a person: on a terminal with colour and links, elsewhere the same words and nothing else.

Rich is loaded where there is a table or a terminal, so that no other command waits for it.
"""

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

import click

from ..streams import is_terminal

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
_LEAST_LAST = 12
"""Columns that the last one, which may be broken, has at least."""
_UNBOUNDED = 100_000
_FIELD_WIDTH = 16


class Field(NamedTuple):
    """A line of a person's text: what it is, and what is to be said of it."""

    name: str
    text: str
    path: Path | None = None
    """What the text names on this machine: a terminal can open it."""
    style: str = ""


def plain(text: str) -> str:
    r"""In one line and without control characters: the name of a file must not steer the terminal.

    What cannot be printed is written as Python writes it: `\n`, `\x1b`; bytes of a name that are no UTF-8 too.
    """
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # os.fsdecode: a byte that could not be decoded
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def is_coloured(stream: IO[str] | None) -> bool:
    """Whether colours and links are wanted there (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def console(stream: IO[str]) -> "Console":
    """Rich's, for a stream. Elsewhere than on a terminal no line is broken."""
    from rich.console import Console

    coloured = is_coloured(stream)
    return Console(
        file=stream,
        width=None if stream.isatty() else _UNBOUNDED,
        color_system="auto" if coloured else None,
        no_color=not coloured,
        force_terminal=coloured,
        emoji=False,
        markup=False,
        highlight=False,
    )


def print_fields(fields: Sequence[Field], err: bool = False) -> None:
    """Print lines that begin with what they are."""
    stream = sys.stderr if err else sys.stdout
    lines = [(plain(field.name).ljust(_FIELD_WIDTH) if field.name else "", plain(field.text)) for field in fields]
    if not is_coloured(stream):
        for name, text in lines:
            click.echo(name + text, err=err)
        return
    from rich.style import Style
    from rich.text import Text

    out = console(stream)
    for field, (name, text) in zip(fields, lines, strict=True):
        link = field.path.absolute().as_uri() if field.path is not None else None
        style = Style.parse(field.style) + Style(link=link)
        out.print(Text.assemble((name, "bold"), (text, style)), soft_wrap=True)


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = (), spared: Sequence[str] = ()
) -> None:
    """Print rows below their headers; on a terminal too narrow for that, a block of lines for each.

    Args:
        headers: one for each column, the longest texts in the last.
        rows: the cells.
        numbers: the headers of columns that are aligned on the right.
        spared: the headers of columns that are left out, the first one first, where the terminal is too narrow.
    """
    from rich.cells import cell_len
    from rich.table import Table

    columns = {name: [plain(row[number]) for row in rows] for number, name in enumerate(headers)}
    widths = {name: max(map(cell_len, [name, *cells])) for name, cells in columns.items()}
    widths[headers[-1]] = min(widths[headers[-1]], _LEAST_LAST)
    out = console(sys.stdout)
    shown = list(headers)
    for name in spared:
        if _table_width(widths, shown) > out.width:
            shown.remove(name)
    if _table_width(widths, shown) > out.width:
        for number in range(len(rows)):
            if number:
                click.echo()
            cells = {name: column[number] for name, column in columns.items()}
            print_fields([Field(name, cell) for name, cell in cells.items() if cell])
        return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name in shown:
        last = name == headers[-1]
        justify: Literal["left", "right"] = "right" if name in numbers else "left"
        table.add_column(name, justify=justify, no_wrap=not last, overflow="fold", min_width=widths[name])
    for row in zip(*(columns[name] for name in shown), strict=True):
        table.add_row(*row)
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=is_coloured(sys.stdout))


def _table_width(widths: Mapping[str, int], shown: Sequence[str]) -> int:
    return sum(widths[name] + _GAP for name in shown) - _GAP
