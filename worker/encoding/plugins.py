"""Encoders that other packages bring, as entry points of the group `scanomaly.encoders`.

Such an entry point is a function `load(spec: EncoderSpec, device: str)`, and what it returns has the members of
`EncoderLike`. Its package's version is part of the encoder key: new weights or pixels take a new version.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...models.encoders import EncoderSpec, plugins
from ...models.errors import EncoderError


class EncoderLike(Protocol):
    """What the pipeline asks of an encoder. `Encoder` of `encoder.py` is one."""

    key: str
    device: str

    def preprocess(self, image: Image.Image) -> Any:
        """Pixels of one RGB image as the encoder wants them. Called from several threads."""

    def encode(self, pixels: Sequence[Any]) -> NDArray[np.float32]:
        """Embed what `preprocess` returned: float32 (n, dimension), rows of length 1."""


@runtime_checkable
class PatchingLike(Protocol):
    """An encoder that makes patches too. `PatchingEncoder` of `patches.py` is one."""

    def encode_patches(self, pixels: Sequence[Any]) -> list[bytes]:
        """The patches of what `preprocess` returned, packed: nothing where they are not finite."""


def load_plugin(spec: EncoderSpec, device: str) -> EncoderLike:
    """Load the encoder of another package.

    Raises:
        EncoderError: it is not installed here, in another version, or does not load.
    """
    for plugin in plugins(spec.model):
        version = plugin.dist.version if plugin.dist else "0"
        if version != spec.weights:
            raise EncoderError(
                f"the encoder {spec.model} has version {version} here, and the job asks for {spec.weights}: "
                "install the same version everywhere"
            )
        try:
            encoder: EncoderLike = plugin.load()(spec, device)
        except Exception as error:  # it is not our code
            raise EncoderError(
                f"the encoder {spec.model} does not load: {type(error).__name__}: {error}"
            ) from error
        return encoder
    raise EncoderError(f"the encoder {spec.model} is not installed here: install its package on every worker")
