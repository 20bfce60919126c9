"""Where a job's files are, when it is a URL that the job names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from ...models.sources.objects.ahead import ReadAhead
from ...models.sources.objects.failures import ObjectTooLargeError
from ...models.sources.objects.folder import ObjectFolder
from .places import FileVersion, reading_failure, too_large


class ObjectStore:
    """What is below a URL."""

    stamps_are_times = False

    def __init__(self, folder: ObjectFolder, max_bytes: int) -> None:
        """`max_bytes` is the size above which an object is not read."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._ahead: ReadAhead | None = None

    @contextmanager
    def ahead(self, paths: Sequence[str]) -> Iterator["ObjectStore"]:
        with self._folder.read_ahead(paths) as ahead:
            place = ObjectStore(self._folder, self._max_bytes)
            place._ahead = ahead
            yield place

    def version(self, path: str) -> FileVersion:
        with self._failures():
            return FileVersion(*(self._ahead or self._folder).version(path))

    def read(self, path: str, reserve: Callable[[int], None]) -> bytes:
        with self._failures():
            return (self._ahead or self._folder).read(path, reserve, self._max_bytes)

    def open(self, path: str) -> BinaryIO:
        with self._failures():
            return self._folder.open(path)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except ObjectTooLargeError as error:
            raise too_large(error.size, self._max_bytes) from error
        except OSError as error:
            raise reading_failure(error) from error
