"""The traits of pictures whose traits are known."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from scanomaly.models.records import Traits
from scanomaly.worker.encoding.traits import measure
from tests.pictures import decode


def waves(width: int = 300, height: int = 200, seed: int = 0) -> Image.Image:
    """A picture of coarse shapes, brighter than a border anywhere."""
    coarse = np.random.default_rng(seed).integers(60, 200, (6, 6), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert("RGB")


def saved(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return decode(buffer.getvalue(), 100_000_000)


def traits(image: Image.Image) -> Traits:
    return measure(image, "PNG", 1)


def distance(one: Image.Image, other: Image.Image) -> int:
    return (traits(one).perceptual_hash ^ traits(other).perceptual_hash).bit_count()


def test_file_and_size_are_told_as_they_are():
    found = measure(waves(1300, 700), "JPEG", 4321)
    assert (found.format, found.file_bytes, found.width, found.height) == ("JPEG", 4321, 1300, 700)


@pytest.mark.parametrize("size", [(256, 100), (1024, 2000)])
def test_grey_is_that_of_the_picture(size: tuple[int, int]):
    width, height = size
    halves = np.full((height, width, 3), 50, dtype=np.uint8)
    halves[:, width // 2 :] = (0, 255, 0)  # luma 0.587 · 255
    found = traits(Image.fromarray(halves))
    assert found.grey_mean == pytest.approx(100, abs=1)
    assert found.grey_spread == pytest.approx(50, abs=1)


def framed(left: int, top: int, right: int, bottom: int, scale: int = 1) -> Image.Image:
    frame = Image.new("RGB", (200 * scale, 250 * scale), (4, 4, 4))
    size = ((200 - left - right) * scale, (250 - top - bottom) * scale)
    frame.paste(waves(*size), (left * scale, top * scale))
    return frame


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize("border", [(0, 0, 0, 0), (30, 0, 0, 0), (0, 30, 0, 20), (40, 10, 50, 25)])
def test_the_border_is_what_is_dark_at_the_sides(border: tuple[int, int, int, int], scale: int):
    left, top, right, bottom = border
    expected = 1 - (200 - left - right) * (250 - top - bottom) / (200 * 250)
    assert traits(framed(*border, scale)).border_share == pytest.approx(expected, abs=0.012 if scale > 1 else 1e-9)


def test_the_border_is_found_through_the_ripple_of_jpeg():
    picture = saved(framed(40, 30, 40, 30), "JPEG", quality=30)
    assert np.asarray(picture)[:30, 40:-40].max() > 10
    assert traits(picture).border_share == pytest.approx(0.544, abs=0.04)


def test_a_bright_pixel_does_not_end_the_border():
    picture = framed(40, 30, 40, 30)
    picture.putpixel((5, 5), (255, 255, 255))
    assert traits(picture).border_share == pytest.approx(0.544)


def test_dark_lines_inside_are_no_border():
    picture = waves(200, 200)
    picture.paste((0, 0, 0), (50, 0, 100, 200))
    assert traits(picture).border_share == 0.0


def test_a_black_picture_is_all_border():
    assert traits(Image.new("RGB", (50, 40))).border_share == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_saved_again_keeps_its_hash_nearly(seed: int):
    picture = waves(seed=seed)
    assert distance(picture, saved(picture, "PNG")) == 0
    assert distance(picture, saved(picture, "JPEG", quality=60)) <= 4
    assert distance(picture, saved(picture.resize((150, 100)), "JPEG", quality=90)) <= 4
    assert distance(picture, saved(picture.resize((1800, 1200)), "JPEG", quality=90)) <= 4
    assert distance(picture, ImageEnhance.Brightness(picture).enhance(1.1)) <= 4
    assert distance(picture, waves(seed=seed + 100)) > 8


def test_the_hash_has_64_bits_of_which_half_are_set():
    hashes = [traits(waves(seed=seed)).perceptual_hash for seed in range(20)]
    assert {value.bit_count() for value in hashes} == {32}
    assert max(hashes) >= 1 << 63
    assert min(hashes) >= 0


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_the_hash_of_a_picture_of_one_colour_is_all_but_empty(grey: int):
    assert traits(Image.new("RGB", (300, 200), (grey, grey, grey))).perceptual_hash.bit_count() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_every_size_has_traits(size: tuple[int, int]):
    found = traits(Image.new("RGB", size, (90, 90, 90)))
    assert (found.grey_mean, found.grey_spread, found.border_share) == (90.0, 0.0, 0.0)


def test_threads_measure_the_same():
    pictures = [waves(seed=seed) for seed in range(8)] * 5
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(traits, pictures)) == [traits(picture) for picture in pictures]
