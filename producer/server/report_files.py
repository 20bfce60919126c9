"""The files of reports, as the service shows them: none but those that a report may have, and what a link leads to
never. Who can write a report's folder must not show what is elsewhere."""

import mimetypes
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable
from starlette.types import Receive, Scope, Send

from ...models.reports import REPORT_FILES
from ...models.sources.beneath import open_resolved, open_resolved_folder


def list_report(folder: Path) -> dict[str, int]:
    """The files of a report by their names, and their sizes in bytes; none where there is no such folder here."""
    found: dict[str, int] = {}
    with suppress(OSError):
        descriptor = open_resolved_folder(folder)
        try:
            for name in REPORT_FILES:
                with suppress(OSError):
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found[name] = status.st_size
        finally:
            os.close(descriptor)
    return found


def open_report_file(folder: Path, name: str) -> BinaryIO | None:
    """A file of a report; None where there is none. Only names that a report may have reach the disk."""
    if name in REPORT_FILES:
        with suppress(OSError):  # gone too, while another takes its place
            return open_resolved(folder / name)
    return None


class OpenFileResponse(FileResponse):
    """Sends what is in an open file, and closes it, whatever has its name by then.

    Answers as the rest does where there is no such range; one that makes no sense is as good as none.
    """

    def __init__(self, file: BinaryIO, name: str, headers: dict[str, str], status: os.stat_result) -> None:
        """Args:
        file: the file.
        name: tells its media type.
        headers: of the answer.
        status: what `os.fstat` says of the file.
        """
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        # By this name the same file is opened again, with a position of its own.
        super().__init__(f"/dev/fd/{file.fileno()}", headers=headers, media_type=kind, stat_result=status)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable:
            raise HTTPException(
                416, f"the file has {file_size} bytes", {"Content-Range": f"bytes */{file_size}"}
            ) from None
