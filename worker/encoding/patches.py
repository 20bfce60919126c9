"""Turns pixels into patches: what a scan looks like at each place, from the inner maps of an encoder."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer
from PIL import Image

from ...models.errors import EncoderError
from ..patches import pack

if TYPE_CHECKING:  # for its type only: encoder.py is the one that calls this module
    from .encoder import Encoder

Maps = list[torch.Tensor]

OFFLINE_SIZE = 288
"""Pixels: the maps of `efficientnet_lite0` are 9 × 9 at the coarsest then."""
_OFFLINE_BLOCKS = (2, 4, 6)
"""Their maps are of 1/8, 1/16 and 1/32 of the picture's size: 40, 112 and 320 channels."""
_MOST_PLACES = 9
_MOST_CHANNELS = 512
_SEED = 0


class Views(NamedTuple):
    """One scan's pixels, prepared twice: for its embedding and for its patches."""

    whole: torch.Tensor
    patches: torch.Tensor


class PatchingEncoder:
    """An encoder that makes patches beside embeddings. Its embeddings are those of the encoder without."""

    def __init__(self, whole: "Encoder", patches: "Encoder", shape: tuple[int, int, int]) -> None:
        """Args:
        whole: makes the embeddings.
        patches: makes the patches, as one vector: see `patch_features`.
        shape: rows, columns and channels of the patches.
        """
        self.key, self.device, self.dimension = whole.key, whole.device, whole.dimension
        self.at_once = min(whole.at_once, patches.at_once)
        self.image_size = max(whole.image_size, patches.image_size)
        self._whole, self._patches, self._shape = whole, patches, shape

    def preprocess(self, image: Image.Image) -> Views:
        """Pixels for both. See `Encoder.preprocess`."""
        return Views(self._whole.preprocess(image), self._patches.preprocess(image))

    def encode(self, pixels: Sequence[Views]) -> NDArray[np.float32]:
        """See `Encoder.encode`."""
        return self._whole.encode([views.whole for views in pixels])

    def encode_patches(self, pixels: Sequence[Views]) -> list[bytes]:
        """The patches of each scan as `pack` makes them; nothing where they are not finite."""
        rows = self._patches.encode([views.patches for views in pixels])
        return [pack(row.reshape(self._shape)) if np.isfinite(row).all() else b"" for row in rows]


def patch_features(maps: Callable[[torch.Tensor], Maps]) -> Callable[[torch.Tensor], torch.Tensor]:
    """From inner maps to patches, flat: (n, 3, height, width) → (n, rows · columns · channels).

    Each map but the coarsest is averaged over 3 × 3 places, brought to the size of the coarsest, and given length 1
    at each place; then they are put one upon the other (as PatchCore does: Roth et al., CVPR 2022). More than 512
    channels are projected to 512 random directions, always the same, which nearly keeps distances (Johnson &
    Lindenstrauss, 1984).
    """
    projection: list[torch.Tensor] = []

    def features(batch: torch.Tensor) -> torch.Tensor:
        found = [layer.float() for layer in maps(batch)]
        height, width = found[-1].shape[2:]
        places = (min(_MOST_PLACES, height), min(_MOST_PLACES, width))
        smooth = [F.avg_pool2d(layer, 3, 1, 1, count_include_pad=False) for layer in found[:-1]]
        alike = [F.normalize(F.adaptive_avg_pool2d(layer, places), dim=1) for layer in (*smooth, found[-1])]
        patches = torch.cat(alike, dim=1).permute(0, 2, 3, 1)
        channels = patches.shape[-1]
        if channels > _MOST_CHANNELS:
            if not projection:
                drawn = np.random.default_rng(_SEED).standard_normal((channels, _MOST_CHANNELS), dtype=np.float32)
                projection.append(torch.from_numpy(drawn).to(patches.device))
            patches = patches @ projection[0]
        return F.normalize(patches, dim=-1).flatten(1)

    return features


def patch_shape(maps: Callable[[torch.Tensor], Maps], pixels: torch.Tensor) -> tuple[int, int, int]:
    """Rows, columns and channels of the patches that `patch_features` makes of pixels, (1, 3, height, width)."""
    with torch.inference_mode():
        found = maps(pixels)
    rows, columns = (min(_MOST_PLACES, side) for side in found[-1].shape[2:])
    return rows, columns, min(_MOST_CHANNELS, sum(layer.shape[1] for layer in found))


def offline_maps(model: Any) -> Callable[[torch.Tensor], Maps]:
    """The inner maps of timm's EfficientNet."""

    def maps(batch: torch.Tensor) -> Maps:
        layer, found = model.bn1(model.conv_stem(batch)), []
        for number, block in enumerate(model.blocks):
            layer = block(layer)
            if number in _OFFLINE_BLOCKS:
                found.append(layer)
        return found

    return maps


def open_clip_maps(model: Any, name: str) -> Callable[[torch.Tensor], Maps]:
    """The inner maps of an open_clip model's image tower.

    Of a vision transformer these are the patch tokens after a half, three quarters and all of its blocks; of
    another tower the last three maps.

    Raises:
        EncoderError: the tower does not tell them.
    """
    tower = model.visual
    if not hasattr(tower, "forward_intermediates"):
        raise EncoderError(f"{name} tells no patches: leave patch_knn out of --scorer, or name another --encoder")
    indices: int | list[int] = 3
    if isinstance(tower, VisionTransformer):
        depth = len(tower.transformer.resblocks)
        indices = [depth // 2 - 1, depth * 3 // 4 - 1, depth - 1]

    def maps(batch: torch.Tensor) -> Maps:
        found = tower.forward_intermediates(batch, indices=indices, intermediates_only=True)
        layers: Maps = found["image_intermediates"]
        return layers

    return maps
