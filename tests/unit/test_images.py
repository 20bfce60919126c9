"""Bytes → pixels: every kind of bad input has an answer, and good input the reference method's pixels."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.images import ImageFailure, decode, read_file, thumbnail

LIMIT = 1_000_000


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


class TestReading:
    def failure(self, path: Path) -> ImageFailure:
        with pytest.raises(ImageFailure) as caught:
            read_file(path)
        return caught.value

    def kind(self, path: Path) -> FailureKind:
        return self.failure(path).kind

    def test_content(self, tmp_path: Path) -> None:
        (tmp_path / "a b ü.jpg").write_bytes(b"content")
        assert read_file(tmp_path / "a b ü.jpg") == b"content"

    def test_missing(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.kind(tmp_path / "gone.jpg") is FailureKind.MISSING
        assert self.kind(tmp_path / "file" / "below.jpg") is FailureKind.MISSING
        (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
        assert self.kind(tmp_path / "link.jpg") is FailureKind.MISSING

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jpg").touch()
        assert self.kind(tmp_path / "empty.jpg") is FailureKind.EMPTY

    def test_folder(self, tmp_path: Path) -> None:
        before = len(list(Path("/dev/fd").iterdir()))
        for _ in range(5):
            assert self.kind(tmp_path) is FailureKind.UNREADABLE
        assert len(list(Path("/dev/fd").iterdir())) == before, "file descriptors leak"

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.kind, tmp_path / "pipe.jpg")
            try:
                assert waiting.result(timeout=5) is FailureKind.UNREADABLE
            finally:  # lets a reader that does block go, so that the test ends
                if not waiting.done():
                    os.close(os.open(tmp_path / "pipe.jpg", os.O_RDWR))

    def test_device(self) -> None:
        assert self.kind(Path("/dev/zero")) is FailureKind.UNREADABLE

    def test_impossible_names(self, tmp_path: Path) -> None:
        assert self.kind(tmp_path / "nul\0byte.jpg") is FailureKind.UNREADABLE
        assert self.kind(tmp_path / ("long" * 100)) is FailureKind.UNREADABLE

    def test_symbolic_link_loop(self, tmp_path: Path) -> None:
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        assert self.kind(tmp_path / "loop.jpg") is FailureKind.UNREADABLE

    def test_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "secret.jpg"
        path.write_bytes(b"content")
        path.chmod(0)
        if os.geteuid() == 0:  # root reads everything: refuse in the system call's place

            def refuse(*_: object) -> int:
                raise PermissionError(13, "Permission denied", str(path))

            monkeypatch.setattr(os, "open", refuse)
        assert self.kind(path) is FailureKind.UNREADABLE
        assert "no permission" in self.failure(path).detail

    def test_this_process_at_fault_is_no_failure_of_the_scan(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: object) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "open", exhausted)
        with pytest.raises(OSError, match="Too many open files"):
            read_file(tmp_path / "scan.jpg")

    def test_a_file_too_large_to_read(self, tmp_path: Path) -> None:
        with open(tmp_path / "huge.png", "wb") as file:
            file.truncate(3 * 1024**3)  # sparse
        bad = self.failure(tmp_path / "huge.png")
        assert bad.kind is FailureKind.TOO_LARGE
        assert "3.0 GiB" in bad.detail  # known without reading it


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

    @pytest.mark.filterwarnings("error")
    def test_values_that_are_not_finite(self) -> None:
        values = np.array([[np.nan, np.inf, -np.inf, 1.0, 3.0, 2.0]], np.float32)
        image = decode(encoded(Image.fromarray(values), "TIFF"), LIMIT)
        assert np.asarray(image)[0, :, 0].tolist() == [0, 255, 0, 0, 255, 128]

    def test_nothing_finite(self) -> None:
        data = encoded(Image.fromarray(np.full((3, 3), np.nan, np.float32)), "TIFF")
        assert failure(data).kind is FailureKind.NOT_AN_IMAGE


class TestBadImages:
    @pytest.mark.parametrize(
        "data", [b"this is text\n" * 50, b"\0" * 1000, b"<svg></svg>", b"%PDF-1.7", b"x"], ids=repr
    )
    def test_not_an_image(self, data: bytes) -> None:
        assert failure(data).kind is FailureKind.NOT_AN_IMAGE

    def test_dicom_is_named(self) -> None:
        assert "DICOM" in failure(b"\0" * 128 + b"DICM" + b"\2\0" * 100).detail

    def test_formats_outside_the_list(self) -> None:
        assert failure(encoded(picture(), "PPM")).kind is FailureKind.NOT_AN_IMAGE
        assert failure(encoded(picture(), "ICO")).kind is FailureKind.NOT_AN_IMAGE

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
    @pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
    def test_cut_short(self, file_format: str, share: float) -> None:
        data = encoded(picture(200, 150), file_format)
        assert failure(data[: max(16, int(len(data) * share))]).kind is FailureKind.TRUNCATED

    @pytest.mark.parametrize("place", ["before", "after"])
    def test_what_pillow_refuses_with_other_errors(self, place: str) -> None:
        """Here with a ValueError, for a comment that unpacks to 3 MB."""
        comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 3_000_000))
        data = png(4, 4, zlib.compress(b"\0" * 20), **{place: comment})
        with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(data)) as image:
            image.load()
        assert failure(data).kind is FailureKind.TRUNCATED

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

    def test_no_pixels(self) -> None:
        assert failure(png(0, 0, zlib.compress(b""))).kind in (FailureKind.NOT_AN_IMAGE, FailureKind.TRUNCATED)

    def test_failures_travel_between_processes(self) -> None:
        import pickle

        bad = pickle.loads(pickle.dumps(ImageFailure(FailureKind.EMPTY, "The file is empty.")))
        assert (bad.kind, bad.detail) == (FailureKind.EMPTY, "The file is empty.")


def test_a_bomb_costs_no_memory_and_nothing_is_printed(tmp_path: Path) -> None:
    """In a process of its own, with Python's own warning filters and streams."""
    bomb = zlib.compress(b"\0" * (20_001 * 20_000), 9)
    (tmp_path / "bomb.png").write_bytes(png(20_000, 20_000, bomb))
    (tmp_path / "bomb.webp").write_bytes(encoded(Image.new("RGB", (16_000, 12_000)), "WEBP", method=0))
    palette = picture().quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(0, 160, 10)))
    corrupt = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x05\x00\xff\xff\xff\xff\xf0\xff\xff\xff" * 3
    (tmp_path / "exif.jpg").write_bytes(encoded(picture(), "JPEG", exif=corrupt))
    (tmp_path / "cut.tif").write_bytes(encoded(picture(200, 150), "TIFF")[:50_000])
    program = """
        import resource, sys
        from pathlib import Path
        from scanomaly.worker.encoding.images import ImageFailure, decode, read_file
        assert "torch" not in sys.modules
        files = {path.name: read_file(path) for path in sorted(Path(sys.argv[1]).iterdir())}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, data in files.items():
            try:
                print(name, decode(data, 100_000_000).size)
            except ImageFailure as failure:
                print(name, failure.kind)
        print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    *answers, grown = result.stdout.splitlines()
    assert answers == [
        "bomb.png too_large",
        "bomb.webp too_large",
        "cut.tif truncated",
        "exif.jpg (40, 30)",
        "palette.png (40, 30)",
    ]
    assert int(grown.split()[1]) < 30_000 * (1024 if sys.platform == "darwin" else 1)


class TestThumbnail:
    @pytest.mark.parametrize("size", [(400, 100), (100, 400), (5000, 2), (3, 3)])
    def test_fits(self, size: tuple[int, int]) -> None:
        small = Image.open(io.BytesIO(thumbnail(picture(*size), 96)))
        assert small.format == "JPEG"
        assert max(small.size) == min(96, max(size))

    def test_keeps_the_picture(self) -> None:
        small = Image.open(io.BytesIO(thumbnail(Image.new("RGB", (300, 200), (200, 30, 40)), 96)))
        assert np.abs(np.subtract(small.getpixel((40, 30)), (200, 30, 40))).max() < 8
