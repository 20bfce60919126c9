"""Bytes → pixels: every kind of bad input has an answer, and good input the reference method's pixels."""

import contextlib
import io
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from scanomaly.models.intensity import parse_intensity
from scanomaly.models.settings import Settings
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.pictures import PictureContent
from scanomaly.worker.encoding.images import ImageFailure, decoding_bytes, thumbnail
from tests.pictures import decode

from ..waiting import HANGS

LIMIT = 1_000_000
# pytest takes away the filters that images.py sets.
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


def picture(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.merge(mode, [Image.fromarray(pixels[..., band]) for band in range(bands)])


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def failure(data: bytes, max_pixels: int = LIMIT) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, max_pixels)
    assert caught.value.detail.endswith(".")
    assert "\n" not in caught.value.detail
    return caught.value


def reference(data: bytes) -> np.ndarray:
    """What the reference method sees."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixel_data: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """An 8-bit grey PNG with more chunks before and after its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", pixel_data) + after + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def run_alone(program: str, *arguments: object) -> list[int]:
    """The numbers that a program prints in a process of its own; `peak()` is its largest memory, in bytes."""
    start = """
        import re, resource, sys
        from pathlib import Path
        from scanomaly.models.intensity import Intensity
        from scanomaly.worker.encoding.formats.opening import open_content
        def peak():
            # Linux hands a parent's ru_maxrss on to its child.
            status = Path("/proc/self/status")
            if status.exists():
                return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [int(number) for number in result.stdout.split()]


class TestGoodImages:
    @pytest.mark.parametrize(
        ("file_format", "mode"),
        [
            ("JPEG", "RGB"),
            ("JPEG", "L"),
            ("JPEG", "CMYK"),
            ("PNG", "RGB"),
            ("PNG", "RGBA"),
            ("PNG", "LA"),
            ("PNG", "L"),
            ("BMP", "RGB"),
            ("DIB", "RGB"),
            ("TIFF", "RGB"),
            ("TIFF", "CMYK"),
            ("TIFF", "RGBA"),
            ("WEBP", "RGB"),
            ("WEBP", "RGBA"),
            ("GIF", "L"),
        ],
    )
    def test_pixels_are_the_reference_methods(self, file_format: str, mode: str) -> None:
        data = encoded(picture(mode=mode), file_format)
        image = decode(data, LIMIT)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), reference(data))

    def test_one_bit(self) -> None:
        data = encoded(picture(mode="L").convert("1"), "PNG")
        assert np.array_equal(np.asarray(decode(data, LIMIT)), reference(data))

    def test_one_pixel(self) -> None:
        assert decode(encoded(picture(1, 1), "PNG"), LIMIT).size == (1, 1)

    def test_exif_orientation_is_not_applied(self) -> None:
        data = encoded(picture(40, 30), "JPEG", exif=exif(6))
        image = decode(data, LIMIT)
        assert image.size == (40, 30)
        assert np.array_equal(np.asarray(image), reference(data))

    @pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_first_frame(self, file_format: str) -> None:
        first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded(first, file_format, save_all=True, append_images=[second], **options)
        assert decode(data, LIMIT).getpixel((10, 10)) == (255, 0, 0)

    def test_two_pictures_in_one_jpeg(self) -> None:
        data = encoded(picture(), "MPO", save_all=True, append_images=[picture(seed=1)])
        assert np.array_equal(np.asarray(decode(data, LIMIT)), reference(data))

    @pytest.mark.filterwarnings("ignore:Palette images")  # pytest takes away the filter that images.py sets
    def test_palette_with_transparency(self) -> None:
        palette = picture().quantize(16)
        data = encoded(palette, "PNG", transparency=bytes(range(0, 160, 10)))
        assert isinstance(Image.open(io.BytesIO(data)).info["transparency"], bytes)
        assert np.array_equal(np.asarray(decode(data, LIMIT)), np.asarray(palette.convert("RGB")))

    def test_threads(self) -> None:
        files = [encoded(picture(seed=seed), form) for seed in range(20) for form in ("PNG", "TIFF", "WEBP")]
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(lambda data: np.asarray(decode(data, LIMIT)), files))
        for data, pixels in zip(files, images, strict=True):
            assert np.array_equal(pixels, reference(data))


class TestDeepGrey:
    ramp = np.linspace(1000, 4095, 1200).round().reshape(30, 40)

    def expected(self) -> np.ndarray:
        return np.rint((self.ramp - 1000) * (255 / 3095)).astype(np.uint8)

    @pytest.mark.parametrize(
        ("file_format", "dtype"),
        [
            ("PNG", np.uint16),
            ("TIFF", np.uint16),
            ("TIFF", ">u2"),
            ("TIFF", np.int32),
            ("TIFF", np.float32),
        ],
    )
    def test_scaled_to_its_own_range(self, file_format: str, dtype: object) -> None:
        image = decode(encoded(Image.fromarray(self.ramp.astype(dtype)), file_format), LIMIT)
        grey = np.asarray(image)
        assert image.mode == "RGB"
        assert (grey == grey[..., :1]).all()
        assert np.abs(grey[..., 0].astype(int) - self.expected()).max() <= (1 if dtype is np.float32 else 0)

    @pytest.mark.parametrize(("file_format", "dtype"), [("PNG", np.uint16), ("TIFF", np.float32)])
    def test_constant_is_black(self, file_format: str, dtype: object) -> None:
        image = Image.fromarray(np.full((5, 5), 4000, dtype))
        assert decode(encoded(image, file_format), LIMIT).getextrema() == ((0, 0),) * 3

    def test_full_range_of_32_bits(self) -> None:
        ends = np.array([[-(2**31), 2**31 - 1]], np.int32)
        assert np.asarray(decode(encoded(Image.fromarray(ends), "TIFF"), LIMIT))[0, :, 0].tolist() == [0, 255]

    def test_a_small_range_far_from_zero(self) -> None:
        values = (2**30 + np.arange(256, dtype=np.int32)).reshape(16, 16)
        grey = np.asarray(decode(encoded(Image.fromarray(values), "TIFF"), LIMIT))[..., 0]
        assert np.array_equal(grey.ravel(), np.arange(256))

    @pytest.mark.parametrize("size", [(70_000, 3), (3, 70_000)])
    def test_narrow_images_are_scaled_as_one(self, size: tuple[int, int]) -> None:
        values = (np.arange(210_000).reshape(size[1], size[0]) // 4).astype(np.uint16)
        grey = np.asarray(decode(encoded(Image.fromarray(values), "PNG"), LIMIT))[..., 0]
        assert np.array_equal(grey, np.rint(values * (255 / values.max())))

    @pytest.mark.filterwarnings("error")
    def test_values_that_are_not_finite(self) -> None:
        values = np.array([[np.nan, np.inf, -np.inf, 1.0, 3.0, 2.0]], np.float32)
        image = decode(encoded(Image.fromarray(values), "TIFF"), LIMIT)
        assert np.asarray(image)[0, :, 0].tolist() == [0, 255, 0, 0, 255, 128]

    def test_nothing_finite(self) -> None:
        data = encoded(Image.fromarray(np.full((3, 3), np.nan, np.float32)), "TIFF")
        assert failure(data).kind is FailureKind.NOT_AN_IMAGE

    @pytest.mark.parametrize(
        "encode",
        [
            lambda grey: imagecodecs.png_encode(np.dstack([grey, grey])),
            lambda grey: imagecodecs.jpeg8_encode(grey, bitspersample=12, lossless=True),
            imagecodecs.jpegls_encode,
        ],
    )
    @pytest.mark.parametrize("kind", ["window", "percentile", "minmax"])
    def test_intensity(self, encode: Callable[[np.ndarray], bytes], kind: str) -> None:
        grey = self.ramp.astype(np.uint16)
        low, high = {"window": (1499.5, 1999.5), "percentile": np.percentile(grey, (10, 90))}.get(
            kind, (1000, 4095)
        )
        intensity = parse_intensity({"window": "window:1750,501", "percentile": "percentile:10,90"}.get(kind, kind))
        content = PictureContent(encode(grey), intensity, LIMIT)
        shown = np.asarray(content.picture(None, lambda size, need: None))[..., 0]
        assert np.abs(shown - np.clip((grey - low) * (255 / (high - low)), 0, 255)).max() <= 1


class TestBadImages:
    @pytest.mark.parametrize(
        "data", [b"this is text\n" * 50, b"\0" * 1000, b"<svg></svg>", b"%PDF-1.7", b"x"], ids=repr
    )
    def test_not_an_image(self, data: bytes) -> None:
        assert failure(data).kind is FailureKind.NOT_AN_IMAGE

    def test_formats_outside_the_list(self) -> None:
        assert failure(encoded(picture(), "PPM")).kind is FailureKind.NOT_AN_IMAGE
        assert failure(encoded(picture(), "ICO")).kind is FailureKind.NOT_AN_IMAGE

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
    def test_cut_short(self, file_format: str, share: float) -> None:
        data = encoded(picture(200, 150), file_format)
        assert failure(data[: max(16, int(len(data) * share))]).kind is FailureKind.TRUNCATED

    @pytest.mark.filterwarnings("ignore::UserWarning")  # pytest takes away the filter that images.py sets
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
    def test_random_damage_gives_pixels_or_a_failure(self, file_format: str) -> None:
        data = encoded(picture(64, 48).quantize(8).convert("RGB"), file_format)
        random = np.random.default_rng(1)
        for _ in range(150):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[random.integers(8, len(data), 6)] = random.integers(0, 256, 6)
            with contextlib.suppress(ImageFailure):  # any other exception fails the test
                assert decode(damaged.tobytes(), LIMIT).mode == "RGB"

    def test_too_many_pixels(self) -> None:
        data = encoded(picture(40, 30), "PNG")
        assert decode(data, 1200).size == (40, 30)
        assert failure(data, 1199).kind is FailureKind.TOO_LARGE

    def test_nothing_is_decoded_when_the_check_refuses(self) -> None:
        asked = []

        def refuse(size: tuple[int, int], need: int) -> None:
            asked.append(size)
            raise ImageFailure(FailureKind.TOO_LARGE, "No.")

        with pytest.raises(ImageFailure, match="No"):
            decode(encoded(picture(40, 30, "RGBA"), "PNG")[:60], LIMIT, refuse)
        assert asked == [(40, 30)]

    def test_no_pixels(self) -> None:
        assert failure(png(0, 0, zlib.compress(b""))).kind in (FailureKind.NOT_AN_IMAGE, FailureKind.TRUNCATED)

    def test_failures_travel_between_processes(self) -> None:
        import pickle

        bad = pickle.loads(pickle.dumps(ImageFailure(FailureKind.EMPTY, "The file is empty.")))
        assert (bad.kind, bad.detail) == (FailureKind.EMPTY, "The file is empty.")


def tiff(tags: list[tuple[int, int, int, int]], start: bytes) -> bytes:
    """A TIFF of 10 × 10 grey pixels with `start` at byte 8 and more tags: (number, type, count, value)."""
    basis = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), (278, 4, 1, 10)]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in basis + tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(start))
    return head + start + struct.pack("<H", len(basis + tags)) + directory + b"\0\0\0\0"


def small_files_that_pillow_makes_large() -> dict[str, bytes]:
    """Each costs Pillow, left to itself, 50 MiB to 4 GiB."""
    size = 4_000_000
    jpeg, pixels = encoded(picture(), "JPEG"), zlib.compress(b"\0" * 20)
    gif, chunks = encoded(picture(mode="L"), "GIF"), chunk(b"prVt", b"") * (size // 12)
    comments = b"!\xfe" + b"\1a" * (size // 2) + b"\0"
    exif = struct.pack("<HHHII", 1, 282, 5, size // 8, 8) + b"\0\0\0\0"
    disposal = b"!\xf9\4\x08\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x02\0\0\0;"
    tile = zlib.compress(b"\0" * 20_000 * 20_000, 9)
    tile_tags = [(259, 3, 1, 8), (322, 4, 1, 20_000), (323, 4, 1, 20_000), (324, 4, 1, 8), (325, 4, 1, len(tile))]
    values = b"\1\0\0\0" * (size // 4)
    return {
        "segments.jpg": jpeg[:2] + b"\xff\xe5\0\2" * (size // 4) + jpeg[2:],
        "chunks.png": png(4, 4, pixels, before=chunks),
        "chunks-after.png": png(4, 4, pixels, after=chunks),
        "comments.gif": gif[: gif.index(b",")] + comments + gif[gif.index(b",") :],
        "disposal.gif": b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0) + disposal,
        "canvas.webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2,
        "tag.tif": tiff([(273, 4, 1, 8), (282, 5, size // 8, 8)], values),
        "exif-tag.tif": tiff([(273, 4, 1, 8), (34665, 4, 1, 8 + size)], values + exif),
        "tile.tif": tiff(tile_tags, tile),
    }


def webp_of_size(width: int, height: int) -> bytes:
    """A lossless WebP that tells another size than it has pixels for: to write one of that size takes 1.6 GB."""
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    sizes = data.index(b"VP8L") + 9  # behind the chunk's name and length, and the signature
    (bits,) = struct.unpack_from("<I", data, sizes)
    struct.pack_into("<I", data, sizes, bits & ~0xFFFFFFF | (height - 1) << 14 | (width - 1))
    return bytes(data)


def test_a_bomb_costs_no_memory_and_nothing_is_printed(tmp_path: Path) -> None:
    """In a process of its own, with Python's own warning filters and streams."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(20_001 * 100)) for _ in range(200)]
    (tmp_path / "bomb.png").write_bytes(png(20_000, 20_000, b"".join([*rows, packer.flush()])))
    (tmp_path / "bomb.webp").write_bytes(webp_of_size(16_000, 12_000))
    palette = picture().quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(0, 160, 10)))
    corrupt = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x05\x00\xff\xff\xff\xff\xf0\xff\xff\xff" * 3
    (tmp_path / "exif.jpg").write_bytes(encoded(picture(), "JPEG", exif=corrupt))
    (tmp_path / "cut.tif").write_bytes(encoded(picture(200, 150), "TIFF")[:50_000])
    for name, data in small_files_that_pillow_makes_large().items():
        (tmp_path / name).write_bytes(data)
    program = """
        import resource, sys
        from pathlib import Path
        from scanomaly.models.intensity import Intensity
        from scanomaly.worker.encoding.formats.opening import open_content
        from scanomaly.worker.encoding.images import ImageFailure
        assert "torch" not in sys.modules
        files = {path.name: path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, data in files.items():
            try:
                content = open_content(data, Intensity("auto"), 100_000_000, lambda size: None, False)
                print(name, content.picture(None, lambda size, need: None).size)
            except ImageFailure as failure:
                print(name, failure.kind)
        print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert result.stderr == ""
    *answers, grown = result.stdout.splitlines()
    assert answers == [
        "bomb.png too_large",
        "bomb.webp too_large",
        "canvas.webp too_large",
        "chunks-after.png (4, 4)",
        "chunks.png truncated",
        "comments.gif truncated",
        "cut.tif truncated",
        "disposal.gif too_large",
        "exif-tag.tif (10, 10)",
        "exif.jpg (40, 30)",
        "palette.png (40, 30)",
        "segments.jpg truncated",
        "tag.tif (10, 10)",
        "tile.tif too_large",
    ]
    assert int(grown.split()[1]) < 30_000 * (1024 if sys.platform == "darwin" else 1)


class TestDecodingBytes:
    @pytest.mark.parametrize(
        ("mode", "file_format", "options"),
        [
            ("CMYK", "JPEG", {"progressive": True, "subsampling": 0}),
            ("RGBA", "PNG", {}),
            ("I;16", "PNG", {}),
            ("F", "TIFF", {}),
            ("RGBA", "TIFF", {"compression": "tiff_lzw", "strip_size": 1 << 30, "tiffinfo": {274: 6}}),
            ("RGBA", "WEBP", {"lossless": True, "method": 0, "quality": 0}),
            ("L", "GIF", {}),
            ("RGB", "BMP", {}),
        ],
    )
    def test_is_an_upper_bound_and_not_twice_too_high(
        self, tmp_path: Path, mode: str, file_format: str, options: dict[str, object]
    ) -> None:
        """Against the growth of a process of its own, at 8 million pixels."""
        path = tmp_path / "image"
        if mode in ("I;16", "F"):
            values = np.random.default_rng(0).integers(0, 1 << 16, (2000, 4000), np.uint16)
            image = Image.fromarray(values if mode == "I;16" else values.astype(np.float32))
        else:
            image = picture(500, 250, mode).resize((4000, 2000), Image.Resampling.NEAREST)
        image.save(path, file_format, **options)
        said, grown = run_alone(
            """
            data, said = Path(sys.argv[1]).read_bytes(), []
            before = peak()
            content = open_content(data, Intensity("auto"), 100_000_000, lambda size: None, False)
            picture = content.picture(None, lambda size, need: said.append(need))
            print(said[0], peak() - before)
            """,
            path,
        )
        assert grown <= said <= 2 * grown

    def test_the_largest_image_fits_into_the_default_memory(self) -> None:
        settings = Settings()
        for file_format in ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF"):
            image = Image.new("1", (10_000, settings.max_pixels // 10_000))
            image.format = file_format
            assert decoding_bytes(image, 40_000_000) + 40_000_000 < settings.batch_memory


class TestThumbnail:
    @pytest.mark.parametrize("size", [(400, 100), (100, 400), (5000, 2), (3, 3)])
    def test_fits(self, size: tuple[int, int]) -> None:
        small = Image.open(io.BytesIO(thumbnail(picture(*size), 96)))
        assert small.format == "JPEG"
        assert max(small.size) == min(96, max(size))

    def test_keeps_the_picture(self) -> None:
        small = Image.open(io.BytesIO(thumbnail(Image.new("RGB", (300, 200), (200, 30, 40)), 96)))
        assert np.abs(np.subtract(small.getpixel((40, 30)), (200, 30, 40))).max() < 8
