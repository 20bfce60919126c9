"""TIFF stacks: which directories are pages, and each page's pixels."""

import contextlib
import io
import struct
import time

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from scanomaly.models.intensity import Intensity, parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.content import EmptySlice
from scanomaly.worker.encoding.formats.tiff import open_tiff
from scanomaly.worker.encoding.images import ImageFailure

LIMIT = 1_000_000
AUTO = parse_intensity("auto")
# pytest takes away the filters that images.py sets.
pytestmark = pytest.mark.filterwarnings("ignore")


def nothing(*_: object) -> None:
    pass


def grey(seed: int, dtype: type = np.uint8, size: tuple[int, int] = (30, 40)) -> Image.Image:
    top = 256 if dtype is np.uint8 else 4096
    return Image.fromarray(np.random.default_rng(seed).integers(20, top, size).astype(dtype))


def colour(seed: int) -> Image.Image:
    return Image.merge("RGB", [grey(seed + band) for band in (100, 200, 300)])


def stack(*pages: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], **options)
    return buffer.getvalue()


def kinds_of_pages(*kinds: int) -> bytes:
    """A stack of directories with these NewSubfileTypes; the seed of each picture is its place."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer) as writer:
        for seed, kind in enumerate(kinds):
            grey(seed).save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    return buffer.getvalue()


def chain(links: list[tuple[int, int]], big: bool = False) -> bytes:
    """Pages of 2 × 2 pixels, the value of each its place. `links`: where each is, and where it says the next is."""
    size = max(at for at, _ in links) + 400
    data = bytearray(size)
    data[:8] = struct.pack("<2sHI", b"II", 42, links[0][0])
    for value, (at, following) in enumerate(links):
        tags = [(256, 4, 1, 2), (257, 4, 1, 2), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, at + 120)]
        tags += [(277, 3, 1, 1), (278, 4, 1, 2), (279, 4, 1, 4)]
        directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        directory += struct.pack("<I", following)
        data[at : at + len(directory)] = directory
        data[at + 120 : at + 124] = bytes([100 + value] * 4)
    return bytes(data)


def page(data: bytes, number: int, intensity: Intensity = AUTO) -> np.ndarray:
    image = open_tiff(data, intensity, LIMIT, nothing).picture(f"page/{number}", nothing)
    assert image.mode == "RGB"
    assert image.format == "TIFF"
    return np.asarray(image)


def failure(data: bytes, frame: str | None, max_pixels: int = LIMIT) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        open_tiff(data, AUTO, max_pixels, nothing).picture(frame, nothing)
    assert caught.value.detail.endswith(".")
    return caught.value


def reference(data: bytes, number: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.seek(number)
    return np.asarray(image.convert("RGB"))


class TestPages:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"compression": "tiff_lzw"},
            {"compression": "tiff_deflate"},
            {"compression": "jpeg"},
            {"compression": "packbits"},
            {"big_tiff": True},
            {"big_tiff": True, "compression": "tiff_lzw"},
        ],
        ids=str,
    )
    def test_pixels_are_pillows(self, options: dict[str, object]) -> None:
        data = stack(grey(0), colour(1), grey(2), colour(3), **options)
        for number in range(4):
            assert np.array_equal(page(data, number), reference(data, number))
        assert failure(data, "page/4").kind is FailureKind.MISSING

    def test_sizes_may_differ(self) -> None:
        data = stack(grey(0), grey(1, size=(7, 90)), colour(2))
        assert [page(data, number).shape for number in range(3)] == [(30, 40, 3), (7, 90, 3), (30, 40, 3)]

    def test_big_endian(self) -> None:
        pages = []
        for seed in (0, 1):
            values = np.random.default_rng(seed).integers(0, 4096, (30, 40)).astype(">u2")
            pages.append(Image.fromarray(values))
        data = stack(*pages)
        assert data[:2] == b"MM"
        assert page(data, 1).max() >= 254

    def test_smaller_copies_and_masks_are_no_pages(self) -> None:
        data = kinds_of_pages(0, 1, 2, 4, 3, 5, 0)
        for number, place in enumerate((0, 2, 6)):
            assert np.array_equal(page(data, number), reference(data, place))
        assert failure(data, "page/3").kind is FailureKind.MISSING

    def test_no_frame_is_the_first_page(self) -> None:
        data = stack(grey(0), grey(1))
        image = open_tiff(data, AUTO, LIMIT, nothing).picture(None, nothing)
        assert np.array_equal(np.asarray(image), reference(data, 0))

    @pytest.mark.parametrize(
        "frame", ["page/2", "page/-1", "page/", "page/x", "frame/0", "page/0/0", "page/" + "9" * 5000, "page/٣", ""]
    )
    def test_no_such_page(self, frame: str) -> None:
        if frame:
            assert failure(stack(grey(0), grey(1)), frame).kind is FailureKind.MISSING

    def test_many_pages_share_no_budget_of_tags(self) -> None:
        """Pillow's directory adds up what it unpacks when it goes from page to page: 3 MB here."""
        pages = [grey(seed, size=(300, 8)) for seed in range(700)]
        data = stack(*pages, strip_size=8)
        assert np.array_equal(page(data, 699)[..., 0], np.asarray(pages[699]))

    def test_announces_each_page(self) -> None:
        told: list[tuple[tuple[int, int], int]] = []
        content = open_tiff(stack(grey(0), grey(1, size=(7, 90))), AUTO, LIMIT, nothing)
        content.picture("page/1", lambda size, need: told.append((size, need)))
        ((size, need),) = told
        assert size == (90, 7)
        assert need > 90 * 7 * 4

    def test_announcing_may_refuse(self) -> None:
        def refuse(size: tuple[int, int], need: int) -> None:
            raise ImageFailure(FailureKind.TOO_LARGE, "No.")

        content = open_tiff(stack(grey(0), grey(1)), AUTO, LIMIT, nothing)
        with pytest.raises(ImageFailure, match="No"):
            content.picture("page/1", refuse)


class TestDeepGrey:
    pages = (grey(0, np.uint16), grey(1, np.uint16), grey(2, np.uint16).point(lambda value: value * 4))

    def expected(self, low: float, high: float, number: int) -> np.ndarray:
        values = np.asarray(self.pages[number]).astype(np.float64)
        return np.clip((values - low) * (255 / (high - low)), 0, 255)

    def differs(self, data: bytes, number: int, expected: np.ndarray, intensity: Intensity = AUTO) -> float:
        shown = page(data, number, intensity)
        assert (shown == shown[..., :1]).all()
        return float(np.abs(shown[..., 0] - expected).max())

    @pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}], ids=str)
    def test_one_scale_for_the_stack(self, options: dict[str, object]) -> None:
        data = stack(*self.pages, **options)
        values = [np.asarray(image) for image in self.pages]
        low, high = float(min(map(np.min, values))), float(max(map(np.max, values)))
        assert high > 3 * values[0].max()
        for number in range(3):
            assert self.differs(data, number, self.expected(low, high, number)) <= 1

    def test_a_window(self) -> None:
        data = stack(*self.pages)
        window = parse_intensity("window:1000,500")
        assert self.differs(data, 0, self.expected(750, 1250, 0), window) <= 1.5

    def test_pages_of_8_bits_are_as_stored(self) -> None:
        data = stack(self.pages[0], grey(5), colour(6), self.pages[2])
        for number in (1, 2):
            assert np.array_equal(page(data, number), reference(data, number))
        values = np.concatenate([np.asarray(self.pages[0]), np.asarray(self.pages[2])])
        assert self.differs(data, 0, self.expected(values.min(), values.max(), 0)) <= 1

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_other_types(self, dtype: type) -> None:
        data = stack(*(Image.fromarray(np.asarray(image).astype(dtype)) for image in self.pages))
        values = [np.asarray(image) for image in self.pages]
        low, high = float(min(map(np.min, values))), float(max(map(np.max, values)))
        assert self.differs(data, 1, self.expected(low, high, 1)) <= 1

    def test_a_damaged_page_fails_alone(self) -> None:
        """And it has no say in the scale."""
        whole = stack(*self.pages[:2], compression="tiff_lzw")
        data = bytearray(stack(*self.pages, compression="tiff_lzw"))
        image = Image.open(io.BytesIO(bytes(data)))
        image.seek(2)
        at = image.tag_v2[273][0]
        data[at : at + 200] = b"\xff" * 200
        assert failure(bytes(data), "page/2").kind is FailureKind.TRUNCATED
        assert np.array_equal(page(bytes(data), 1), page(whole, 1))

    def test_memory_is_reserved_once(self) -> None:
        asked: list[int] = []
        open_tiff(stack(*self.pages), AUTO, LIMIT, asked.append)
        assert len(asked) == 2  # of the scale, and of the largest page

    def test_nothing_is_reserved_without_deep_grey(self) -> None:
        asked: list[int] = []
        open_tiff(stack(grey(0), colour(1)), AUTO, LIMIT, asked.append)
        assert not asked


class TestEmptyPages:
    dark = Image.fromarray(np.full((30, 40), 9, np.uint8))

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_of_a_stack(self, mode: str) -> None:
        content = open_tiff(stack(grey(0), self.dark.convert(mode)), AUTO, LIMIT, nothing)
        with pytest.raises(EmptySlice) as caught:
            content.picture("page/1", nothing)
        assert caught.value.detail.endswith(".")

    def test_one_bright_band_is_enough(self) -> None:
        blue = Image.merge("RGB", [self.dark, self.dark, grey(0)])
        assert page(stack(grey(0), blue), 1).max() > 200

    def test_a_single_page_is_a_picture(self) -> None:
        assert page(stack(self.dark), 0).max() == 9


class TestBadStacks:
    @pytest.mark.parametrize("links", [[(8, 8)], [(8, 600), (600, 8)], [(8, 600), (600, 600)]], ids=str)
    def test_rings_end(self, links: list[tuple[int, int]]) -> None:
        data = chain(links)
        for number in range(len(links)):
            assert (page(data, number) == 100 + number).all()
        assert failure(data, f"page/{len(links)}").kind is FailureKind.TRUNCATED

    def test_cut_short(self) -> None:
        data = stack(*(grey(seed) for seed in range(5)))[:3000]
        assert np.array_equal(page(data, 0), reference(data, 0))
        assert failure(data, "page/4").kind is FailureKind.TRUNCATED

    @pytest.mark.parametrize("data", [b"II*\0", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"II*\0\0\0\0\0"], ids=repr)
    def test_only_a_header(self, data: bytes) -> None:
        assert failure(data, "page/0").kind is FailureKind.TRUNCATED

    def test_too_many_pixels(self) -> None:
        data = stack(grey(0), grey(1, size=(100, 100)), grey(2, np.uint16, (100, 100)))
        assert failure(data, "page/1", 5000).kind is FailureKind.TOO_LARGE
        assert failure(data, "page/2", 5000).kind is FailureKind.TOO_LARGE
        assert open_tiff(data, AUTO, 5000, nothing).picture("page/0", nothing).size == (40, 30)

    @pytest.mark.parametrize("step", [6, 2])
    def test_a_file_of_directories_takes_no_time(self, step: int) -> None:
        """Each 6 bytes a directory without an entry; or each 2 bytes one with as many entries as fit."""
        if step == 6:
            data = b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HI", 0, 14 + 6 * at) for at in range(500_000))
        else:
            data = b"II*\0\x08\0\0\0" + struct.pack("<I", 10) * 200_000
        begun = time.process_time()
        failure(data, "page/7")
        assert time.process_time() - begun < 5

    def test_random_damage_gives_pixels_or_a_failure(self) -> None:
        files = [
            stack(grey(0), colour(1), grey(2, np.uint16), compression=compression)
            for compression in (None, "tiff_lzw", "tiff_deflate")
        ]
        random = np.random.default_rng(1)
        for turn in range(300):
            damaged = bytearray(files[turn % 3])
            places = random.integers(4, 200 if turn % 2 else len(damaged), 6)
            for place in places:
                damaged[place] = random.integers(0, 256)
            if turn % 5 == 0:
                del damaged[random.integers(8, len(damaged)) :]
            with contextlib.suppress(ImageFailure):  # any other exception fails the test
                content = open_tiff(bytes(damaged), AUTO, LIMIT, nothing)
                for number in range(4):
                    with contextlib.suppress(ImageFailure, EmptySlice):
                        assert content.picture(f"page/{number}", nothing).mode == "RGB"
