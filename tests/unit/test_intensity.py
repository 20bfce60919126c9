"""Values → grey: one scale for a file, exact where it says so, whatever numbers a file holds."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from scanomaly.models.errors import UsageError
from scanomaly.models.intensity import Intensity, parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.intensity import EMPTY_RULE, Scale, is_empty, make_scale
from scanomaly.worker.encoding.images import ImageFailure

MINMAX = Intensity("minmax")
INTEGERS = ("u1", "i1", "<u2", ">u2", "<i2", ">i2", "<i4", ">u4", "i8", "u8")


def scale_of(values: NDArray, intensity: Intensity, parts: int = 5) -> Scale:
    return make_scale(lambda: np.array_split(values.reshape(-1), parts), intensity, MINMAX)


def plain(values: NDArray, low: float, high: float) -> NDArray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "intensity"),
        [
            ("auto", Intensity("auto")),
            ("minmax", Intensity("minmax")),
            ("window:40,400", Intensity("window", 40, 400)),
            (" window: -600 , 1500.5 ", Intensity("window", -600, 1500.5)),
            ("percentile:0.5,99.5", Intensity("percentile", 0.5, 99.5)),
            ("percentile:0,100", Intensity("percentile", 0, 100)),
        ],
    )
    def test_good(self, text: str, intensity: Intensity) -> None:
        assert parse_intensity(text) == intensity

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "lung",
            "auto:1,2",
            "minmax:",
            "window",
            "window:",
            "window:40",
            "window:40,0",
            "window:40,-1",
            "window:1,2,3",
            "window:nan,1",
            "window:0,inf",
            "percentile:99,1",
            "percentile:50,50",
            "percentile:-1,99",
            "percentile:1,100.1",
            "percentile:a,b",
            "Window:1,2",
        ],
    )
    def test_bad(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            parse_intensity(text)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
        assert any(hint in str(caught.value) for hint in ("choose", "window:40,400", "percentile:1,99"))


class TestScale:
    @pytest.mark.parametrize("kind", [*INTEGERS, "f2", "<f4", ">f4", "f8"])
    def test_every_number_type(self, kind: str) -> None:
        values = np.random.default_rng(0).integers(0, 100, (30, 50)).astype(kind)
        grey = scale_of(values, MINMAX)(values)
        assert grey.dtype == np.uint8
        assert grey.shape == values.shape
        assert np.array_equal(grey, plain(values, values.min(), values.max()))

    @pytest.mark.parametrize("kind", INTEGERS)
    def test_the_ends_of_a_type(self, kind: str) -> None:
        values = np.array([np.iinfo(kind).min, np.iinfo(kind).max, 0], kind)
        grey = scale_of(values, MINMAX)(values)
        assert grey[:2].tolist() == [0, 255]

    def test_the_ends_of_floats(self) -> None:
        huge = np.array([-1.7e308, 0, 1.7e308])
        for intensity in (MINMAX, Intensity("percentile", 0, 100)):
            assert scale_of(huge, intensity)(huge).tolist() == [0, 128, 255]
        tiny = np.array([0, 5e-324, 1e-323])
        assert scale_of(tiny, MINMAX)(tiny).tolist() == [0, 128, 255]

    def test_shapes_that_are_not_in_one_piece(self) -> None:
        values = np.random.default_rng(1).integers(0, 4096, (7, 301, 400)).astype(np.uint16)
        for turned in (values.T, values[::-1, ::3, ::-2], values.transpose(1, 0, 2)):
            for kind in (np.uint16, np.float32):
                assert np.array_equal(Scale(0, 4095)(turned.astype(kind, copy=False)), plain(turned, 0, 4095))

    def test_more_values_than_a_part(self) -> None:
        for shape in ((1, 300_000), (300_000, 1), (3, 2, 100_000), (2, 300, 301)):
            values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
            assert np.array_equal(Scale(0, values.size - 1)(values), plain(values, 0, values.size - 1))

    def test_constant_is_black(self) -> None:
        for values in (np.full((4, 4), 7, np.int16), np.full((4, 4), 0.5), np.zeros(3, np.uint8)):
            for intensity in (MINMAX, Intensity("percentile", 1, 99)):
                assert not scale_of(values, intensity)(values).any()

    def test_values_that_are_not_finite(self) -> None:
        values = np.array([np.nan, -np.inf, 1, 2, 3, np.inf], np.float32)
        for intensity in (MINMAX, Intensity("percentile", 0, 100)):
            assert scale_of(values, intensity)(values).tolist() == [0, 0, 0, 128, 255, 255]

    @pytest.mark.parametrize("values", [np.full(4, np.nan), np.array([np.inf, -np.inf]), np.empty(0, np.uint8)])
    @pytest.mark.parametrize("intensity", [MINMAX, Intensity("percentile", 1, 99)])
    def test_nothing_finite(self, values: NDArray, intensity: Intensity) -> None:
        with pytest.raises(ImageFailure) as caught:
            scale_of(values, intensity, 1)
        assert caught.value.kind is FailureKind.NOT_AN_IMAGE


class TestWindow:
    def test_linear(self) -> None:
        """The pseudo-code of PS3.3, C.11.2.1.2.1, with its two examples: c 2048, w 4096 and c 2048, w 1."""
        values = np.arange(-100, 5000)
        for centre, width in ((2048, 4096), (2048, 1), (40, 400), (0, 100), (10, 2), (-600.5, 1500)):
            expected = []
            for x in values:
                if x <= centre - 0.5 - (width - 1) / 2:
                    expected.append(0)
                elif x > centre - 0.5 + (width - 1) / 2:
                    expected.append(255)
                else:
                    expected.append(round(((x - (centre - 0.5)) / (width - 1) + 0.5) * 255))
            grey = scale_of(values, Intensity("window", centre, width))(values)
            assert np.abs(grey.astype(int) - expected).max() <= (0 if float(centre).is_integer() else 1)

    def test_a_window_of_less_than_one(self) -> None:
        assert Scale.window(0.5, 0.5)(np.array([0.25, 0.5, 0.75])).tolist() == [0, 128, 255]

    def test_no_value_is_read_for_it(self) -> None:
        def chunks() -> Iterator[NDArray]:
            raise AssertionError

        assert make_scale(chunks, Intensity("window", 40, 400), MINMAX) == Scale(-160, 239)
        assert make_scale(chunks, Intensity("auto"), Intensity("window", 40, 400)) == Scale(-160, 239)
        assert make_scale(chunks, Intensity("auto"), Scale(1, 2)) == Scale(1, 2)


class TestPercentiles:
    @pytest.mark.parametrize("kind", [*INTEGERS, "<f4", ">f8"])
    def test_as_numpy_has_them(self, kind: str) -> None:
        for seed, size in enumerate((1, 2, 3, 10, 1001, 200_000)):
            values = np.random.default_rng(seed).normal(60, 20, size).clip(0, 127).astype(kind)
            for low, high in ((0, 100), (1, 99), (0.5, 99.5), (33.3, 66.6)):
                scale = scale_of(values, Intensity("percentile", low, high))
                assert (scale.low, scale.high) == pytest.approx(tuple(np.percentile(values, (low, high))))

    def test_many_values_are_sampled(self) -> None:
        values = np.random.default_rng(0).permutation(15 << 20).astype(np.float32).reshape(-1, 1024)
        scale = scale_of(values, Intensity("percentile", 1, 99))
        assert scale.low == pytest.approx(0.01 * values.size, rel=0.01)
        assert scale.high == pytest.approx(0.99 * values.size, rel=0.001)
        assert scale_of(values, MINMAX) == Scale(0, values.size - 1)

    def test_the_sample_has_a_fixed_step(self) -> None:
        """Of a rising sequence, what is kept says which values were taken."""
        values = np.arange(15 << 20, dtype=np.float64)
        scale = scale_of(values, Intensity("percentile", 0, 100), 77)
        assert scale.low == 0
        assert scale.high == values.size - 1 - (values.size - 1) % 9

    def test_types_that_differ(self) -> None:
        parts = [np.arange(100, dtype=np.uint8), np.arange(100, 1000, dtype=np.int32), np.arange(1000.0, 2001)]
        scale = make_scale(lambda: parts, Intensity("percentile", 25, 75), MINMAX)
        assert (scale.low, scale.high) == (500, 1500)


class TestEmpty:
    def test_the_rule(self) -> None:
        pixels = np.full((100, 100), 10, np.uint8)
        pixels[0, :50] = 11
        assert is_empty(pixels)
        pixels[0, 50] = 11
        assert not is_empty(pixels)

    def test_colours_count_by_their_brightest_band(self) -> None:
        pixels = np.zeros((10, 10, 3), np.uint8)
        assert is_empty(pixels)
        pixels[0, 0, 2] = 200
        assert not is_empty(pixels)

    def test_the_sentence(self) -> None:
        assert EMPTY_RULE == "The slice is empty: at most 0.5% of its pixels are brighter than 10 of 255."
