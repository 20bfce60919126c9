"""Opens local files so that what was checked is what is read.

What a name means may change between its check and its use. So a path is walked from descriptor to descriptor: each
part is opened from the folder above it (openat(2)), and none may be a symbolic link (O_NOFOLLOW). Names only tell
where to walk. Linux calls it RESOLVE_BENEATH, Go os.Root; here absolute links that stay inside are followed too.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

# A folder that is only passed through need not be readable, as in any path.
_PASS = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
_LIST = os.O_DIRECTORY | os.O_RDONLY
# A FIFO without a writer would block a plain open.
_READ = os.O_RDONLY | os.O_NONBLOCK
_MAY_BE_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)
_WAS_REPLACED = "a symbolic link took its place"


class OutsideRootError(OSError):
    """A path leads out of its root."""


class RootLinkError(OutsideRootError):
    """A root, which was resolved when it was named, is a symbolic link now, or lies below one."""


class _LinkError(OSError):
    """A part of a path is a symbolic link."""


class RootFolder:
    """The files below a folder. Nothing outside of it is opened, whatever is put below it meanwhile.

    Symbolic links are followed as long as they stay inside. Nothing is kept open. Safe to use from several threads.
    Every method raises OSError: OutsideRootError where a path leads out, RootLinkError where the root does; and
    ValueError for a path with a NUL.
    """

    def __init__(self, root: str | os.PathLike[str], follow_links: bool = False) -> None:
        """Args:
        root: the folder, as `os.path.realpath` named it. It need not exist.
        follow_links: whether symbolic links may lead out of the root, and the root may have become one.
        """
        self._root = "/" + os.path.abspath(root).lstrip("/")  # POSIX leaves two of them
        self._bound = "/" if follow_links else self._root

    def open_file(self, path: str) -> BufferedReader:
        """A regular file, to be read. Never waits for a pipe or a device."""
        return _regular(self._at(path, partial(_open_part, flags=_READ)))

    def open_folder(self, path: str) -> int:
        """The descriptor of a folder, to be listed. The caller closes it."""
        return self._at(path, partial(_open_part, flags=_LIST))

    def status(self, path: str) -> os.stat_result:
        """What there is, a file or anything else; never a link."""
        return self._at(path, _status)

    def _at(self, path: str, act: Callable[[str, int], _T]) -> _T:
        """What `act` makes of a name, and of the descriptor of its folder."""
        if path.startswith("/") or ".." in path.split("/"):
            raise OutsideRootError(errno.EXDEV, "its path leads out of the folder", path)
        whole = f"{self._root}/{path}"
        with suppress(_LinkError):
            return self._walk(whole, act)
        real = os.path.realpath(whole)
        if not Path(real).is_relative_to(self._bound):
            raise OutsideRootError(errno.EXDEV, "a symbolic link leads out of the folder", path)
        return self._walk(real, act)

    def _walk(self, whole: str, act: Callable[[str, int], _T]) -> _T:
        *folders, name = _parts(whole)[len(_parts(self._bound)) :] or ["."]
        return _act_below(open_resolved_folder(self._bound), folders, name, act)


def open_resolved(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file by the path that `os.path.realpath` gave it.

    Raises:
        OSError: it cannot be opened, or is no regular file; a RootLinkError where a part of the path is a link now.
    """
    whole = os.path.abspath(path)
    folder, name = os.path.split(whole)
    try:
        return _regular(_act_below(open_resolved_folder(folder), (), name, partial(_open_part, flags=_READ)))
    except _LinkError as error:
        raise RootLinkError(error.errno, _WAS_REPLACED, whole) from None


def open_resolved_folder(path: str | os.PathLike[str]) -> int:
    """The descriptor of a folder, to open what is in it, by the path that `os.path.realpath` gave it.

    Raises:
        OSError: it cannot be opened; a RootLinkError where a part of the path is a link now.
    """
    whole = os.path.abspath(path)
    try:
        return _open_folders(os.open("/", _PASS), _parts(whole))
    except _LinkError as error:
        raise RootLinkError(error.errno, _WAS_REPLACED, whole) from None


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file by any name, through links too. Never waits for a pipe or a device.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        return _regular(os.open(path, _READ))
    except ValueError as error:  # a NUL in its name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _act_below(folder: int, names: Iterable[str], name: str, act: Callable[[str, int], _T]) -> _T:
    """Act on a name in a folder below an open one, which is closed."""
    folder = _open_folders(folder, names)
    try:
        return act(name, folder)
    finally:
        os.close(folder)


def _open_folders(folder: int, names: Iterable[str]) -> int:
    """The descriptor of a folder below an open one, which is closed."""
    for name in names:
        above = folder
        try:
            folder = _open_part(name, above, _PASS)
        finally:
            os.close(above)
    return folder


def _open_part(name: str, folder: int, flags: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in _MAY_BE_LINK:
            _status(name, folder)
        raise


def _status(name: str, folder: int) -> os.stat_result:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise _LinkError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return status


def _regular(descriptor: int) -> BufferedReader:
    """The file of a descriptor, which is closed where it is no regular one."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a regular file")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
