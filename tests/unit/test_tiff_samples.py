"""TIFF pages that tifffile reads: what they take, what hostile ones may not take, and stacks of them."""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile

from scanomaly.models.intensity import Intensity
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.content import EmptySlice
from scanomaly.worker.encoding.formats.segment_sizes import stated_size
from scanomaly.worker.encoding.formats.tiff import open_tiff
from scanomaly.worker.encoding.images import ImageFailure
from tests.formats.making import DEEP, GREY, HEIGHT, SMOOTH, WIDTH, raw_tiff, scaled, tiff
from tests.pictures import decode

LIMIT = 1_000_000
AUTO = Intensity("auto")
pytestmark = pytest.mark.filterwarnings("ignore")


def nothing(*_: object) -> None:
    pass


def failure(data: bytes, limit: int = LIMIT) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        decode(data, limit)
    assert caught.value.detail.endswith(".")
    assert "\n" not in caught.value.detail
    return caught.value


class TestStacks:
    def test_white_at_0(self) -> None:
        pages = np.stack([DEEP, DEEP // 2])
        content = open_tiff(tiff(pages, photometric="miniswhite"), AUTO, LIMIT, nothing)
        for number, page in enumerate(pages):
            right = 255 - np.rint((page - 1.0 * pages.min()) * 255 / (pages.max() - 1.0 * pages.min()))
            shown = np.asarray(content.picture(f"page/{number}", nothing))[..., 0]
            assert np.abs(shown - right).max() <= 1

    @pytest.mark.parametrize("kind", ["i1", "u4", "f8", "f2"])
    def test_one_scale(self, kind: str) -> None:
        pages = np.stack([GREY // 4, GREY // 2]).astype(kind)
        content = open_tiff(tiff(pages, photometric="minisblack"), AUTO, LIMIT, nothing)
        brightest = [np.asarray(content.picture(f"page/{number}", nothing)).max() for number in (0, 1)]
        assert brightest in ([127, 255], [128, 255])

    def test_a_window_is_of_what_is_stored(self) -> None:
        values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
        content = open_tiff(
            tiff(values, photometric="miniswhite"), Intensity("window", 1000, 501), LIMIT, nothing, False
        )
        shown = np.asarray(content.picture(None, nothing))[..., 0]
        assert np.abs(shown - (255 - np.clip((values - 749.5) * (255 / 500), 0, 255))).max() <= 1

    @pytest.mark.parametrize("make", [{"ome": True}, {"imagej": True}], ids=str)
    def test_of_microscopes(self, make: dict[str, bool]) -> None:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.stack([DEEP, DEEP[::-1]]), photometric="minisblack", **make)
        content = open_tiff(buffer.getvalue(), AUTO, LIMIT, nothing)
        assert np.array_equal(np.asarray(content.picture("page/1", nothing)), scaled(DEEP)[::-1])

    def test_smaller_copies_in_subifds_are_no_pages(self) -> None:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            writer.write(DEEP, subifds=1, photometric="minisblack")
            writer.write(DEEP[::2, ::2], subfiletype=1, photometric="minisblack")
            writer.write(DEEP[::-1], photometric="minisblack")
        content = open_tiff(buffer.getvalue(), AUTO, LIMIT, nothing)
        assert np.array_equal(np.asarray(content.picture("page/1", nothing)), scaled(DEEP)[::-1])
        with pytest.raises(ImageFailure) as caught:
            content.picture("page/2", nothing)
        assert caught.value.kind is FailureKind.MISSING


class TestValues:
    def test_that_are_not_finite(self) -> None:
        values = np.full((HEIGHT, WIDTH), 2.0)
        values[0, :5] = np.nan, np.inf, -np.inf, 1.0, 3.0
        for colours, right in (("minisblack", [0, 255, 0, 0, 255]), ("miniswhite", [0, 0, 255, 255, 0])):
            assert np.asarray(decode(tiff(values, photometric=colours), LIMIT))[0, :5, 0].tolist() == right

    def test_none_is_finite(self) -> None:
        data = tiff(np.full((HEIGHT, WIDTH), np.nan), photometric="minisblack")
        assert failure(data).kind is FailureKind.NOT_AN_IMAGE

    def test_tiles_that_a_sparse_file_leaves_out(self) -> None:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            writer.write(
                (tile for tile in (DEEP[:32, :32], None, None, None)),
                shape=DEEP.shape,
                dtype=DEEP.dtype,
                tile=(32, 32),
                photometric="minisblack",
            )
        right = np.zeros_like(DEEP)
        right[:32, :32] = DEEP[:32, :32]
        assert np.array_equal(np.asarray(decode(buffer.getvalue(), LIMIT)), scaled(right))

    def test_in_threads(self) -> None:
        files = [
            tiff(np.roll(DEEP, turn, 1), photometric="minisblack", compression=codec)
            for turn in range(20)
            for codec in ("lzw", "jpeg2000", "jpegxl", "zstd")
        ]
        with ThreadPoolExecutor(8) as pool:
            shown = list(pool.map(lambda data: np.asarray(decode(data, LIMIT)), files))
        for at, picture in enumerate(shown):
            assert np.array_equal(picture, scaled(np.roll(DEEP, at // 4, 1)))


class TestBadPages:
    @pytest.mark.parametrize(
        "compression", [None, "lzw", "deflate", "packbits", "zstd", "jpeg2000", "png", "jpegxl"]
    )
    @pytest.mark.parametrize("tile", [None, (32, 32)])
    def test_cut_short(self, compression: str | None, tile: tuple[int, int] | None) -> None:
        data = tiff(DEEP, photometric="minisblack", compression=compression, tile=tile)
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            end = page.dataoffsets[-1] + page.databytecounts[-1]
        assert failure(data[: end - page.databytecounts[-1] * 3 // 4]).kind is FailureKind.TRUNCATED

    def test_too_many_pixels(self) -> None:
        data = tiff(DEEP, photometric="minisblack")
        assert decode(data, DEEP.size).size == (WIDTH, HEIGHT)
        assert failure(data, DEEP.size - 1).kind is FailureKind.TOO_LARGE

    def test_strips_of_another_kind_than_their_page(self) -> None:
        """Values of 16 bits would wrap in a page of 8."""
        data = raw_tiff(imagecodecs.png_encode(DEEP), [8], {259: (3, [34933]), 262: (3, [1])})
        assert failure(data).kind is FailureKind.TRUNCATED

    def test_more_strips_than_a_page_needs(self) -> None:
        data = raw_tiff(DEEP.tobytes(), [16], {262: (3, [1]), 273: (4, [8] * 600_000)})
        assert failure(data).kind is FailureKind.TOO_LARGE

    @pytest.mark.parametrize("compression", [None, "lzw", "jpeg2000", "lerc", "png", "jpegxl"])
    def test_random_damage_gives_pixels_or_a_failure(
        self, compression: str | None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        data = tiff(DEEP, photometric="minisblack", compression=compression, predictor=compression == "lzw")
        head = min(400, len(data))
        random = np.random.default_rng(1)
        for turn in range(150):
            damaged = bytearray(data)
            for place in random.integers(4, head if turn % 2 else len(data), 4):
                damaged[place] = random.integers(0, 256)
            with contextlib.suppress(ImageFailure, EmptySlice):  # any other exception fails the test
                assert decode(bytes(damaged), LIMIT).mode == "RGB"
        assert "tifffile" not in capfd.readouterr().err


class TestStatedSizes:
    @pytest.mark.parametrize("size", [(48, 64), (8, 8), (1, 1), (256, 16), (300, 9), (5, 3000), (2, 5)], ids=str)
    def test_is_the_codecs(self, size: tuple[int, int]) -> None:
        height, width = size
        values = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        deep = values[..., 0].astype(np.uint16) * 256
        for data in (
            imagecodecs.jpegxl_encode(values, lossless=True),
            imagecodecs.jpegxl_encode(deep, lossless=True),
            imagecodecs.jpegxl_encode(values, usecontainer=True),
            imagecodecs.webp_encode(values, lossless=True),
            imagecodecs.webp_encode(values, lossless=False),
            imagecodecs.webp_encode(np.dstack([values, values[..., 0]]), lossless=False),
            imagecodecs.png_encode(values),
            imagecodecs.lerc_encode(deep),
            imagecodecs.jpeg8_encode(values),
            imagecodecs.jpeg2k_encode(deep) if min(size) > 1 else None,
        ):
            if data is not None:
                assert stated_size(bytes(data)) == (width, height)

    def test_of_something_else(self) -> None:
        assert stated_size(b"") is None
        assert stated_size(SMOOTH.tobytes()) is None
