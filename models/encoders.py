"""Names an encoder exactly, without loading it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError
from .sources.beneath import open_regular

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

DEFAULT_ENCODER = "ViT-B-32"
OFFLINE_ENCODER = "efficientnet_lite0"
PRECISIONS = ("fp32", "bf16", "fp16")
AUTO = "auto"
"""Stands for the precision that suits a device, where a person chooses; an encoder key never has it."""
PREPROCESSING_VERSION = 1
PATCHES_VERSION = 1
PLUGINS = "scanomaly.encoders"
"""The group of entry points by which another package brings an encoder: see `worker/encoding/plugins.py`."""

_DEFAULT_TAGS = {"ViT-B-32": "laion2b_s34b_b79k"}
# The start of the checkpoint's digest, as its own file name has it.
_OFFLINE_WEIGHTS = "57934424"


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder: what a worker needs to load it, and the key that its embeddings are stored under.

    `weights` is a tag of open_clip, or `sha256-…` of the file `weights_file`.
    """

    library: str
    model: str
    weights: str
    precision: str = "fp32"
    preprocessing: int = PREPROCESSING_VERSION
    weights_file: str | None = None
    patches: bool = False
    """Whether it makes patches too, for the scorers that compare them. The embeddings are the same."""

    @property
    def key(self) -> str:
        """`library/model/weights/precision/preprocessing`: equal keys give equal embeddings."""
        return f"{self.library}/{self.model}/{self.weights}/{self.precision}/p{self.preprocessing}"

    @property
    def patches_key(self) -> str:
        """Equal keys give equal patches."""
        return f"{self.key}/patches{PATCHES_VERSION}"

    @property
    def offline(self) -> bool:
        """Whether the weights come with an installed package."""
        return self.library == "timm"

    @property
    def hub(self) -> bool:
        """Whether the weights come from the model hub."""
        return self.library == "open_clip" and self.weights_file is None

    @property
    def plugin(self) -> bool:
        """Whether another installed package brings the encoder."""
        return self.library == "plugin"

    def at(self, local_path: Callable[[str], Path]) -> "EncoderSpec":
        """The same encoder on a machine where the weights file has another path."""
        return self if self.weights_file is None else replace(self, weights_file=str(local_path(self.weights_file)))

    @property
    def options(self) -> list[str]:
        """The command-line options that name this encoder: `parse_encoder` reads them back."""
        name = OFFLINE_ENCODER if self.offline else self.model
        if self.weights_file is not None:
            return ["--encoder", name, "--weights", self.weights_file, "--precision", self.precision]
        tag = f"/{self.weights}" if self.hub else ""
        return ["--encoder", name + tag, "--precision", self.precision]


def parse_encoder(
    name: str = DEFAULT_ENCODER,
    weights_file: Path | None = None,
    precision: str = "fp32",
    open_file: Callable[[Path], BufferedReader] = open_regular,
) -> EncoderSpec:
    """Read an encoder's name: `efficientnet_lite0`, `MODEL` or `MODEL/TAG` of open_clip, or a plug-in's.

    `open_file` opens the weights file.

    Raises:
        UsageError: the name, or its combination with a weights file, cannot be right.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if name == OFFLINE_ENCODER:
        if weights_file is not None:
            raise UsageError(f"{OFFLINE_ENCODER} has its own weights: leave out --weights or name another encoder")
        return EncoderSpec("timm", "tf_efficientnet_lite0", _OFFLINE_WEIGHTS, precision)

    for plugin in plugins(name):
        if weights_file is not None:
            raise UsageError(f"{name} has its own weights: leave out --weights or name another encoder")
        return EncoderSpec("plugin", name, plugin.dist.version if plugin.dist else "0", precision)
    model, _, tag = name.partition("/")
    _check_model(model)
    if weights_file is not None:
        if tag:
            raise UsageError(f"--weights replaces the tag {tag!r}: give --encoder {model} with --weights")
        path = weights_file.absolute()
        digest = file_digest(path, open_file)
        return EncoderSpec("open_clip", model, f"sha256-{digest[:16]}", precision, weights_file=str(path))
    tag = tag or _DEFAULT_TAGS.get(model, "")
    if not tag:
        raise UsageError(f"{model} has weights under several tags: name one as {model}/TAG, or give --weights FILE")
    return EncoderSpec("open_clip", model, tag, precision)


def plugins(name: str) -> Iterator["EntryPoint"]:
    """The encoders of this name that other installed packages bring."""
    from importlib.metadata import entry_points  # takes longer than all the rest of this module

    yield from entry_points(group=PLUGINS, name=name)


def file_digest(path: Path, open_file: Callable[[Path], BufferedReader] = open_regular) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        UsageError: the file cannot be read, or is no regular file.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"weights file {path} cannot be read: {error.strerror}") from None


def _check_model(model: str) -> None:
    """Check against open_clip's own list, read from its files: importing it would load torch."""
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        return  # a producer without the extra `worker`; the worker will check
    known = {path.stem for path in (Path(package.origin).parent / "model_configs").glob("*.json")}
    if model not in known:
        raise UsageError(
            f"unknown encoder {model!r}: give {OFFLINE_ENCODER} or a model of open_clip such as {DEFAULT_ENCODER}"
        )
