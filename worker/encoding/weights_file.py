"""The file of `--weights`: what is loaded is what was checked."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...models.encoders import EncoderSpec
from ...models.errors import EncoderError
from ...models.sources.beneath import open_regular


@contextmanager
def checked_weights_file(spec: EncoderSpec) -> Iterator[Path]:
    """Another name for the file of an encoder, which stays that of the file whose digest was compared.

    Raises:
        EncoderError: it cannot be read, holds something else by now, or is no checkpoint.
    """
    path = Path(spec.weights_file or "")
    try:
        file = open_regular(path)
    except OSError as error:
        raise EncoderError(f"weights file {path} cannot be read: {error.strerror}") from None
    # Whoever loads it takes a path, and tells formats by its ending.
    with file, tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        if f"sha256-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}" != spec.weights:
            raise EncoderError(f"the weights file {path} changed since the job was submitted: submit the job again")
        file.seek(0)
        if wrong := _not_a_checkpoint(file):
            raise EncoderError(
                f"the weights file {path} {wrong}: give a checkpoint of {spec.model} (.pt, .bin, .safetensors)"
            )
        file.seek(0)
        same = Path(folder, path.name)
        same.symlink_to(f"/dev/fd/{file.fileno()}")
        yield same


def _not_a_checkpoint(file: BinaryIO) -> str | None:
    """What common wrong files are; None for what may be a checkpoint."""
    start = file.read(64).lstrip().lower()
    if not start:
        return "is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights themselves"
    return None
