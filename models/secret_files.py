"""Secrets of a home: files that only their owner may read, made at first use."""

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from .errors import UsageError

_BYTES = 32


def load_secret(file: Path) -> str:
    """What a secret file holds, without white space around it. It is made where there is none.

    Raises:
        UsageError: others than its owner may read or change it.
        OSError: it cannot be read or made.
    """
    try:
        return _read(file)
    except FileNotFoundError:
        _make(file)
        return _read(file)


def _read(file: Path) -> str:
    with open(file, encoding="ascii", errors="replace") as stream:
        if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{file} is open to others, and must be secret: chmod 600 {file}")
        return stream.read().strip()


def _make(file: Path) -> None:
    """Make the file at once and whole, unless another process is faster: then its secret is the secret of both."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # with mode 0600
    try:
        with open(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(_BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, file)
    finally:
        Path(name).unlink()
