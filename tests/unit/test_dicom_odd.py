"""DICOM as it comes: attributes that are missing, odd or wrong, files that end too early, frames of all sorts.

The same picture written as the standard has it says what is right.
"""

import io
import struct
import time
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from scanomaly.models.intensity import parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.producer.discover.dicom_headers import read_dicom
from scanomaly.producer.discover.reader import Reader
from scanomaly.worker.encoding.formats.opening import open_content

from .test_dicom import (
    AUTO,
    LIMIT,
    MINMAX,
    as_jpeg,
    by_range,
    by_window,
    compressed,
    failure,
    grey,
    made,
    nothing,
    shown,
)

pytestmark = pytest.mark.filterwarnings("ignore")

STORED = (np.arange(16 * 12, dtype=np.uint16) * 21 % 4096).reshape(16, 12)
SIGNED = STORED.astype(np.int16) - 2048
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
GREY_JPEG = as_jpeg(np.arange(256, dtype=np.uint8).reshape(16, 16))
CUT, UNSUPPORTED = FailureKind.TRUNCATED, FailureKind.UNSUPPORTED
#: A value of ten bytes that is put in place of another once the file is written: pydicom refuses some.
MARK = "1234567890"


def raw(value: bytes, name: str, pixels: np.ndarray = STORED, **others: object) -> bytes:
    """A file with a text attribute of these bytes."""
    data = made(pixels, **{name: MARK, **others})
    assert data.count(MARK.encode()) == 1
    return data.replace(MARK.encode(), value.ljust(len(MARK)))


def patched(data: bytes, tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    """A file with an attribute in another value representation and of other bytes, explicit little endian."""
    at = data.index(struct.pack("<HH", *tag))
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    long = vr in (b"UN", b"OB", b"OW", b"UT")
    head = struct.pack("<2sHL", vr, 0, len(value)) if long else struct.pack("<2sH", vr, len(value))
    return data[: at + 4] + head + value + data[at + 8 + length :]


def without(data: bytes, *tags: tuple[int, int]) -> bytes:
    """A file without some attributes of group 0028, whose lengths are short."""
    for tag in tags:
        at = data.index(struct.pack("<HH", *tag), 132)
        data = data[:at] + data[at + 8 + int.from_bytes(data[at + 6 : at + 8], "little") :]
    return data


GROUP_28 = {
    "SamplesPerPixel": (0x28, 2),
    "PhotometricInterpretation": (0x28, 4),
    "BitsStored": (0x28, 0x101),
    "HighBit": (0x28, 0x102),
    "PixelRepresentation": (0x28, 0x103),
    "BitsAllocated": (0x28, 0x100),
}


class TestMissing:
    @pytest.mark.parametrize("name", GROUP_28)
    def test_an_attribute_that_is_missing_or_empty(self, name: str) -> None:
        whole = made(STORED)
        expected = grey(whole)
        assert np.array_equal(grey(without(whole, GROUP_28[name])), expected)
        vr = b"CS" if name == "PhotometricInterpretation" else b"US"
        assert np.array_equal(grey(patched(whole, GROUP_28[name], vr, b"")), expected)

    def test_all_that_can_be_missing(self) -> None:
        whole = made(STORED)
        assert np.array_equal(grey(without(whole, *GROUP_28.values())), grey(whole))

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless])
    def test_compressed_data_says_itself_what_it_is(self, syntax: UID) -> None:
        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        codestream = GREY_JPEG if syntax == JPEGBaseline8Bit else imagecodecs.jpegls_encode(values)
        whole = compressed(codestream, syntax, 16, 16, 8)
        tags = (*GROUP_28.values(), (0x28, 0x10), (0x28, 0x11))
        assert np.array_equal(grey(without(whole, *tags)), grey(whole))
        colours = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 30, 60)).save(colours, "JPEG", quality=95)
        whole = compressed(colours.getvalue(), JPEGBaseline8Bit, 16, 16, 8)
        assert np.abs(shown(without(whole, *tags)).astype(int) - [200, 30, 60]).max() <= 2

    def test_colours_without_what_describes_them(self) -> None:
        header = {"Rows": 6, "Columns": 8, "BitsAllocated": 8, "PixelRepresentation": 0, "SamplesPerPixel": 3}
        whole = made(COLOURS.tobytes(), PhotometricInterpretation="RGB", PlanarConfiguration=0, **header)
        for tags in [[(0x28, 6)], [(0x28, 4)], [(0x28, 2)], [(0x28, 2), (0x28, 4), (0x28, 6)]]:
            assert np.array_equal(shown(without(whole, *tags)), COLOURS)

    @pytest.mark.parametrize(
        "text", ["monochrome1", "Monochrome1\\", "MONOCHROME1\\\\", "MONOCHROME 1", "MONOCHROME_1"]
    )
    def test_names_of_colours_that_are_written_otherwise(self, text: str) -> None:
        data = patched(made(STORED), (0x28, 4), b"CS", text.encode().ljust(16))
        assert np.array_equal(grey(data), 255 - grey(made(STORED)))

    @pytest.mark.parametrize("text", [b"GREYSCALE ", b"\xff\xfe\x80 ", b"\\MONO "])
    def test_a_name_that_is_none(self, text: bytes) -> None:
        assert np.array_equal(grey(patched(made(STORED), (0x28, 4), b"CS", text)), grey(made(STORED)))


class TestContradictions:
    @pytest.mark.parametrize("samples", [0, 2, 3, 7])
    def test_samples_of_grey(self, samples: int) -> None:
        assert np.array_equal(grey(made(STORED, SamplesPerPixel=samples)), grey(made(STORED)))

    def test_three_samples_that_are_called_grey_and_one_that_is_called_rgb(self) -> None:
        header = {"Rows": 6, "Columns": 8, "BitsAllocated": 8, "PixelRepresentation": 0}
        assert np.array_equal(shown(made(COLOURS.tobytes(), SamplesPerPixel=3, **header)), COLOURS)
        assert np.array_equal(grey(made(STORED, PhotometricInterpretation="RGB")), grey(made(STORED)))

    @pytest.mark.parametrize(
        "changes",
        [
            {"BitsStored": 20},
            {"BitsStored": 0, "HighBit": 15},
            {"HighBit": 3},
            {"HighBit": 40},
            {"PixelRepresentation": 2},
            {"NumberOfFrames": "0"},
            {"NumberOfFrames": ""},
            {"BitsAllocated": 0, "BitsStored": 16},
            {"BitsAllocated": 12, "BitsStored": 12},
        ],
        ids=str,
    )
    def test_numbers_that_cannot_be(self, changes: dict[str, object]) -> None:
        assert np.array_equal(grey(made(STORED, **changes)), grey(made(STORED)))

    @pytest.mark.parametrize("text", [b"one", b"1A", b"1,0", b"-1", b"1\\1"])
    def test_a_number_of_frames_that_is_none(self, text: bytes) -> None:
        assert np.array_equal(grey(raw(text, "NumberOfFrames")), grey(made(STORED)))

    @pytest.mark.parametrize(
        ("vr", "value"),
        [
            (b"UL", b"\x10\0\0\0"),
            (b"SS", b"\x10\0"),
            (b"IS", b"16"),
            (b"DS", b"16.0"),
            (b"UN", b"\x10\0"),
            (b"OW", b"\x10\0"),
            (b"US", b"\x10\0\0\0"),
            (b"LO", b" 16 "),
            (b"UT", b"16"),
        ],
    )
    def test_rows_in_another_representation(self, vr: bytes, value: bytes) -> None:
        assert np.array_equal(grey(patched(made(STORED), (0x28, 0x10), vr, value)), grey(made(STORED)))

    def test_luminance_in_pairs_that_is_whole(self) -> None:
        """Called YBR_FULL_422, and each pixel has its own colour differences."""
        header = {"Rows": 6, "Columns": 8, "SamplesPerPixel": 3, "BitsAllocated": 8, "PixelRepresentation": 0}
        whole = made(COLOURS.tobytes(), PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0, **header)
        named = made(COLOURS.tobytes(), PhotometricInterpretation="YBR_FULL_422", PlanarConfiguration=0, **header)
        assert np.array_equal(shown(named), shown(whole))

    def test_what_no_library_reads_is_named(self) -> None:
        header = {"Rows": 6, "Columns": 8, "SamplesPerPixel": 3, "BitsAllocated": 8, "PixelRepresentation": 0}
        data = made(COLOURS.tobytes(), PhotometricInterpretation="YBR_RCT", PlanarConfiguration=0, **header)
        assert failure(data).kind == UNSUPPORTED
        assert "YBR_RCT" in failure(data).detail
        assert failure(made(STORED, PhotometricInterpretation="PALETTE COLOR")).kind == UNSUPPORTED


class TestWritten:
    """Otherwise than the file says."""

    @pytest.mark.parametrize("named", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
    @pytest.mark.parametrize("written", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
    def test_in_another_syntax(self, named: UID, written: UID) -> None:
        body = made(STORED, written)
        meta = made(STORED, named)
        ends = [144 + int.from_bytes(data[140:144], "little") for data in (meta, body)]
        assert np.array_equal(grey(meta[: ends[0]] + body[ends[1] :]), grey(made(STORED)))

    def test_without_a_transfer_syntax(self) -> None:
        for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
            data = made(STORED, syntax)
            assert np.array_equal(grey(without(data, (2, 0x10))), grey(made(STORED)))
        jpeg = compressed(GREY_JPEG, JPEGBaseline8Bit, 16, 16, 8)
        assert np.array_equal(grey(without(jpeg, (2, 0x10))), grey(jpeg))

    def test_plain_pixels_that_are_called_compressed(self) -> None:
        data = made(STORED)
        named = patched(data, (2, 0x10), b"UI", JPEGLSLossless.encode())
        assert np.array_equal(grey(named), grey(data))

    def test_wrong_lengths_of_groups(self) -> None:
        data = made(STORED)
        for length in (0, 7, 1 << 20):
            assert np.array_equal(grey(data[:140] + struct.pack("<L", length) + data[144:]), grey(data))
        group = struct.pack("<HH2sHL", 0x28, 0, b"UL", 4, 9999)
        at = data.index(struct.pack("<HH", 0x28, 2), 132)
        assert np.array_equal(grey(data[:at] + group + data[at:]), grey(data))

    def test_private_sequences_and_characters_of_all_kinds(self) -> None:
        data = made(STORED)
        at = data.index(struct.pack("<HH", 0x28, 2), 132)
        name = struct.pack("<HH2sH", 0x10, 0x10, b"PN", 6) + b"\xff\xfe\x80\x1b$B"
        private = struct.pack("<HH2sHL", 0x11, 0x1001, b"UN", 0, 0xFFFFFFFF)
        private += b"\xfe\xff\0\xe0\xff\xff\xff\xff" + struct.pack("<HHL", 0x11, 1, 2) + b"ab"  # no end of the item
        private += b"\xfe\xff\xdd\xe0\0\0\0\0"
        odd = struct.pack("<HH2sH", 0x13, 0x10, b"??", 4) + b"text"
        assert np.array_equal(grey(data[:at] + name + private + odd + data[at:]), grey(data))

    def test_pixels_of_bytes_and_of_words(self) -> None:
        data = made(STORED)
        at = data.rindex(b"\xe0\x7f\x10\0OW")
        assert np.array_equal(grey(data[: at + 4] + b"OB" + data[at + 6 :]), grey(data))
        assert np.array_equal(grey(data + bytes(64)), grey(data))

    def test_a_stream_of_zlib(self) -> None:
        """With zlib's header, which the standard does not have."""
        data = made(STORED)
        end = 144 + int.from_bytes(data[140:144], "little")
        meta = patched(data[:end], (2, 0x10), b"UI", b"1.2.840.10008.1.2.1.99")
        assert np.array_equal(grey(meta + zlib.compress(data[end:])), grey(data))


UNUSABLE = [b"", b"1,5", b"text", b"NaN", b"inf", b"1e999", b"1_0", b"\\", b"\xff\xfe"]


class TestUnits:
    @pytest.mark.parametrize("value", [*UNUSABLE, b"0", b"0.0", b"-0"])
    def test_a_slope_that_is_none(self, value: bytes) -> None:
        """Neither is the intercept then: a window is of stored values."""
        window = {"WindowCenter": "2000", "WindowWidth": "3000"}
        expected = by_window(STORED, 2000, 3000)
        data = raw(value, "RescaleSlope", RescaleIntercept="-500", **window)
        assert np.abs(grey(data) - expected).max() <= 1

    @pytest.mark.parametrize("value", UNUSABLE)
    def test_an_intercept_that_is_none(self, value: bytes) -> None:
        data = raw(value, "RescaleIntercept", RescaleSlope="2", WindowCenter="2000", WindowWidth="3000")
        assert np.abs(grey(data) - by_window(STORED, 2000, 3000)).max() <= 1

    def test_the_first_of_several(self) -> None:
        data = raw(b"2\\1", "RescaleSlope", RescaleIntercept="-5", WindowCenter="2000", WindowWidth="3000")
        assert np.abs(grey(data) - by_window(STORED * 2.0 - 5, 2000, 3000)).max() <= 1

    @pytest.mark.parametrize("value", [*UNUSABLE, b"0", b"-4"])
    @pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth"])
    def test_a_window_that_is_none(self, name: str, value: bytes) -> None:
        other = "WindowWidth" if name == "WindowCenter" else "WindowCenter"
        data = raw(value, name, **{other: "900"})
        if name == "WindowCenter" and value in (b"0", b"-4"):
            assert np.abs(grey(data) - by_window(STORED, float(value), 900)).max() <= 1
        else:
            assert np.array_equal(grey(data), grey(made(STORED)))

    def test_the_first_window_that_is_one(self) -> None:
        data = made(STORED, WindowCenter=["100", "2000"], WindowWidth=["0", "3000"])
        assert np.abs(grey(data) - by_window(STORED, 2000, 3000)).max() <= 1

    @pytest.mark.parametrize("bits", [0, 8, 10, 12, 16, 20])
    @pytest.mark.parametrize("first", [0, 100])
    def test_a_table_of_the_modality(self, bits: int, first: int) -> None:
        size = bits if 8 <= bits <= 16 else 12
        entries = ((np.arange(1024) * 37 + 11) % (1 << size)).astype("<u2")
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [1024, first, bits], entries.tobytes()
        table["LUTData"].VR = "OW"
        stored = STORED // 4
        units = entries[np.clip(stored.astype(int) - first, 0, 1023)].astype(float)
        data = made(stored, ModalityLUTSequence=[table])
        assert np.abs(grey(data) - by_range(units, units.min(), units.max())).max() <= 1
        half = 1 << (size - 1)
        window = grey(data, None, parse_intensity(f"window:{half},{half}"))
        assert np.abs(window - by_window(units, half, half)).max() <= 1

    def test_a_table_from_a_negative_value_on(self) -> None:
        table = Dataset()
        entries = np.arange(4096, dtype="<u2")[::-1] * 16
        table.add_new("LUTDescriptor", "US", [4096, 65536 - 2048, 16])
        table.add_new("LUTData", "OW", entries.tobytes())
        expected = entries[STORED] * (255 / 65535)
        data = made(SIGNED, ImplicitVRLittleEndian, VOILUTSequence=[table])
        assert np.abs(grey(data) - expected).max() <= 1

    @pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
    def test_a_table_that_is_none(self, name: str) -> None:
        empty, half = Dataset(), Dataset()
        half.LUTDescriptor = [256, 0, 8]
        for items in ([empty], [half], []):
            assert np.array_equal(grey(made(STORED, **{name: items})), grey(made(STORED)))


class TestPadding:
    @pytest.mark.parametrize(
        ("stored", "value", "limit"),
        [
            (SIGNED, -2000, None),
            (SIGNED, -2048, -2000),
            (SIGNED, -2000, -2048),
            (STORED, 65535, None),
            (STORED, 4095, 4000),
            (STORED, 0, 9),
        ],
        ids=["value", "range", "range backwards", "beyond all", "at the top", "at the bottom"],
    )
    def test_it_does_not_count(self, stored: np.ndarray, value: int, limit: int | None) -> None:
        stored = stored.copy()
        stored[:3] = value
        ends = sorted((value, value if limit is None else limit))
        kept = stored[(stored < ends[0]) | (stored > ends[1])].astype(float)
        kind = "SS" if stored.dtype == np.int16 else "US"
        extra = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
        data = padded(stored, kind, extra)
        assert np.abs(grey(data, None, MINMAX) - by_range(stored.astype(float), kept.min(), kept.max())).max() <= 1
        low, high = np.percentile(kept, (5, 95))
        found = grey(data, None, parse_intensity("percentile:5,95"))
        assert np.abs(found - by_range(stored.astype(float), low, high)).max() <= 1

    def test_the_wrong_sign(self) -> None:
        """-2000, which many write as an unsigned number."""
        stored = SIGNED.copy()
        stored[:3] = -2000
        expected = grey(padded(stored, "SS", {"PixelPaddingValue": -2000}))
        assert np.array_equal(grey(padded(stored, "US", {"PixelPaddingValue": 65536 - 2000})), expected)

    def test_with_units_and_in_all_frames(self) -> None:
        frames = np.stack([STORED, STORED // 2 + 1])
        frames[:, :2] = 0
        extra = {"PixelPaddingValue": 0, "NumberOfFrames": "2", "RescaleSlope": "2", "RescaleIntercept": "-10"}
        units = frames * 2.0 - 10
        low = units[frames > 0].min()
        found = grey(padded(frames, "US", extra), "frame/1", MINMAX)
        assert np.abs(found - by_range(units[1], low, units.max())).max() <= 1

    def test_floats(self) -> None:
        values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
        values[0] = -1e6
        header = {"Rows": 8, "Columns": 8, "BitsAllocated": 32, "FloatPixelPaddingValue": -1e6}
        found = grey(made(None, **header, FloatPixelData=values.tobytes()))
        assert np.abs(found - by_range(values, values[1:].min(), 1.0)).max() <= 1

    def test_nothing_but_padding(self) -> None:
        stored = np.full((8, 8), 7, np.uint16)
        assert grey(padded(stored, "US", {"PixelPaddingValue": 7})).max() == 0


def padded(stored: np.ndarray, kind: str, header: dict[str, object]) -> bytes:
    names = [name for name in header if name.startswith("PixelPadding")]
    dataset = Dataset()
    for name in names:
        setattr(dataset, name, header[name])
        dataset[name].VR = kind
    plain = {name: value for name, value in header.items() if name not in names}
    data = made(stored, **plain)
    at = data.index(struct.pack("<HH", 0x28, 0x103), 132) + 10  # behind PixelRepresentation
    form = "<HH2sHh" if kind == "SS" else "<HH2sHH"
    elements = b"".join(
        struct.pack(form, *divmod(int(dataset[name].tag), 1 << 16), kind.encode(), 2, dataset[name].value)
        for name in names
    )
    return data[:at] + elements + data[at:]


class TestBits:
    @pytest.mark.parametrize("bits", [2, 4, 10, 12, 14, 24])
    def test_packed_pixels(self, bits: int) -> None:
        """Each follows the other, the lowest bit first: an arithmetic reading, by shifting one big number."""
        values = np.random.default_rng(bits).integers(0, 1 << bits, (2, 5, 7))
        number = sum(int(value) << (bits * place) for place, value in enumerate(values.reshape(-1)))
        size = (bits * values.size + 7) // 8
        header = {"Rows": 5, "Columns": 7, "BitsAllocated": bits, "PixelRepresentation": 0, "NumberOfFrames": "2"}
        data = made(number.to_bytes(size + size % 2, "little"), **header)
        for index in (0, 1):
            expected = by_range(values[index], values.min(), values.max())
            assert np.abs(grey(data, f"frame/{index}") - expected).max() <= 1

    def test_signed_jpeg_ls_with_the_high_bits_0(self) -> None:
        stored = SIGNED & 0xFFF
        codestream = imagecodecs.jpegls_encode(stored.astype(np.uint16))
        header = {"PixelRepresentation": 1, "BitsAllocated": 16}
        data = compressed(codestream, JPEGLSLossless, 16, 12, 12, **header)
        assert np.abs(grey(data) - by_range(SIGNED.astype(float), SIGNED.min(), SIGNED.max())).max() <= 1

    def test_a_marker_of_adobe_that_is_too_short_to_count(self) -> None:
        """libjpeg ignores it: Pillow, which uses it, says what is right."""
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 30, 60)).save(out, "JPEG", quality=95)
        code = out.getvalue()
        short = code[:20] + b"\xff\xee\0\x0dAdobe\0\x64\0\0\0\0" + code[20:]
        expected = np.asarray(Image.open(io.BytesIO(short)).convert("RGB")).astype(int)
        header = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
        for colours in ("YBR_FULL_422", "YBR_FULL", "RGB"):
            data = compressed(short, JPEGBaseline8Bit, 16, 16, 8, PhotometricInterpretation=colours, **header)
            assert np.abs(shown(data) - expected).max() <= 2

    def test_single_bits_in_run_lengths(self) -> None:
        bits = np.random.default_rng(0).integers(0, 2, (8, 16)).astype(np.uint8)
        expected = 255 * bits
        for segment in (np.packbits(bits, bitorder="little").tobytes(), bits.tobytes()):
            codes = b"".join(
                bytes([len(part) - 1]) + part for part in (segment[at : at + 100] for at in (0, 100)) if part
            )
            frame = struct.pack("<16L", 1, 64, *[0] * 14) + codes + b"\0" * (len(codes) % 2)
            header = {"Rows": 8, "Columns": 16, "BitsAllocated": 1, "BitsStored": 1, "PixelRepresentation": 0}
            assert np.array_equal(grey(made(encapsulate([frame]), RLELossless, **header)), expected)

    @pytest.mark.parametrize("bits", [1, 8, 16])
    def test_deflated_frames(self, bits: int) -> None:
        values = np.random.default_rng(0).integers(0, 1 << bits, (2, 9, 13)).astype(np.uint16)
        if bits == 1:
            frames = [
                np.packbits(frame.astype(np.uint8).reshape(-1), bitorder="little").tobytes() for frame in values
            ]
        else:
            frames = [frame.astype(f"<u{bits // 8}").tobytes() for frame in values]
        packed = []
        for frame in frames:
            packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            packed.append(packing.compress(frame) + packing.flush())
        header = {"Rows": 9, "Columns": 13, "BitsAllocated": bits, "PixelRepresentation": 0, "NumberOfFrames": "2"}
        data = patched(
            made(encapsulate(packed), RLELossless, **header), (2, 0x10), b"UI", b"1.2.840.10008.1.2.8.1\0"
        )
        for index in (0, 1):
            expected = by_range(values[index].astype(float), values.min(), values.max())
            assert np.abs(grey(data, f"frame/{index}") - expected).max() <= 1


PICTURES = [(np.arange(256).reshape(16, 16) * step % 256).astype(np.uint8) for step in (1, 3, 5)]
FRAMES = [as_jpeg(picture) for picture in PICTURES]


def cine(body: bytes, frames: int = 3, syntax: UID = JPEGBaseline8Bit, **values: object) -> bytes:
    header = {
        "Rows": 16,
        "Columns": 16,
        "BitsAllocated": 8,
        "PixelRepresentation": 0,
        "NumberOfFrames": str(frames),
    }
    header |= {"WindowCenter": "128", "WindowWidth": "256"}
    return made(body, syntax, **{**header, **values})


def is_there(data: bytes, index: int) -> bool:
    """Whether a frame is read, as the right one; if not, it is named as cut short."""
    try:
        found = grey(data, f"frame/{index}")
    except AssertionError:
        raise
    except Exception as error:
        assert getattr(error, "kind", None) == CUT, error  # noqa: PT017
        return False
    expected = np.asarray(Image.open(io.BytesIO(FRAMES[index]))).astype(int)
    assert np.abs(found - expected).max() <= 1
    return True


class TestFrames:
    @pytest.mark.parametrize("lost", [1, 4, 8, 9, 30, 300])
    def test_compressed_without_its_end(self, lost: int) -> None:
        """The last eight bytes are the delimiter, and before it may come a byte of padding."""
        data = cine(encapsulate(FRAMES))[:-lost]
        assert [is_there(data, index) for index in range(3)] == [True, True, lost <= 9]

    def test_compressed_cut_anywhere(self) -> None:
        whole = cine(encapsulate(FRAMES))
        begins = [whole.index(frame) for frame in FRAMES]
        for end in range(begins[0], len(whole), 37):
            data = whole[:end]
            expected = [end >= begin + len(frame) for begin, frame in zip(begins, FRAMES, strict=True)]
            assert [is_there(data, index) for index in range(3)] == expected

    @pytest.mark.parametrize("table", ["none", "one entry", "wrong", "backwards", "half an entry", "too many"])
    @pytest.mark.parametrize("fragments", [1, 2])
    def test_a_table_of_offsets_that_is_wrong(self, table: str, fragments: int) -> None:
        body = encapsulate(FRAMES, fragments_per_frame=fragments, has_bot=False)[8:]
        offsets = {
            "none": b"",
            "one entry": struct.pack("<L", 0),
            "wrong": struct.pack("<3L", 0, 4, 77),
            "backwards": struct.pack("<3L", 900, 400, 0),
            "half an entry": bytes(6),
            "too many": bytes(40),
        }[table]
        data = cine(b"\xfe\xff\0\xe0" + struct.pack("<L", len(offsets)) + offsets + body)
        assert [is_there(data, index) for index in range(3)] == [True] * 3

    def test_fragments_and_a_table_of_run_lengths(self) -> None:
        """They do not tell where they begin: the table does."""
        frames = []
        for picture in PICTURES:
            codes = b"".join(b"\x7f" + picture.tobytes()[at : at + 128] for at in (0, 128))
            frames.append(struct.pack("<16L", 1, 64, *[0] * 14) + codes)
        for parts in (1, 2):
            data = cine(encapsulate(frames, fragments_per_frame=parts), 3, RLELossless)
            for index, picture in enumerate(PICTURES):
                assert np.abs(grey(data, f"frame/{index}").astype(int) - picture).max() <= 1

    def test_a_damaged_frame_fails_alone(self) -> None:
        bad = FRAMES[1][:2] + bytes(len(FRAMES[1]) - 2)
        data = cine(encapsulate([FRAMES[0], bad, FRAMES[2]]))
        assert [is_there(data, index) for index in range(3)] == [True, False, True]
        scaled = open_content(data, MINMAX, LIMIT, nothing, True).picture("frame/2", nothing)
        assert np.asarray(scaled).max() == 255

    def test_plain_cut_anywhere(self) -> None:
        frames = np.stack(PICTURES)
        whole = made(frames, NumberOfFrames="3", WindowCenter="128", WindowWidth="256")
        for lost in (1, 255, 256, 257, 600):
            for index, picture in enumerate(PICTURES):
                if 256 * (index + 1) <= 768 - lost:
                    assert np.abs(grey(whole[:-lost], f"frame/{index}").astype(int) - picture).max() <= 1
                else:
                    assert failure(whole[:-lost], f"frame/{index}").kind == CUT

    def test_a_header_that_is_cut(self) -> None:
        data = made(STORED, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        assert failure(data[: data.rindex(b"\xe0\x7f\x10\0") - 3]).kind == CUT
        assert failure(data[: data.rindex(b"\xe0\x7f\x10\0") + 12]).kind == CUT


def enhanced(frames: int, is_undefined: bool) -> bytes:
    """As MR machines write it: for each frame some 300 parts of header, of which a picture needs few."""
    item, item_end, end = b"\xfe\xff\0\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"

    def sequence(tag: tuple[int, int], *items: bytes) -> bytes:
        head = struct.pack("<HH2sH", *tag, b"SQ", 0)
        if is_undefined:
            return head + b"\xff" * 4 + b"".join(item + b"\xff" * 4 + one + item_end for one in items) + end
        value = b"".join(item + struct.pack("<L", len(one)) + one for one in items)
        return head + struct.pack("<L", len(value)) + value

    def text(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", *tag, vr, len(value)) + value

    code = text((8, 0x100), b"SH", b"1 ") + text((8, 0x102), b"SH", b"DCM ") + text((8, 0x104), b"LO", b"text")
    source = sequence((0x40, 0xA170), code) + text((8, 0x1150), b"UI", b"1.2\0") + text((8, 0x1155), b"UI", b"1.23")
    derived = sequence((8, 0x9124), sequence((8, 0x2112), *[source] * 10))
    private = b"".join(text((0x2005, 0x1000 + number), b"LO", b"text") for number in range(40))
    groups = []
    for number in range(frames):
        units = text((0x28, 0x1052), b"DS", f"{number:4}".encode()) + text((0x28, 0x1053), b"DS", b"1 ")
        window = text((0x28, 0x1050), b"DS", f"{2048 + number:4}".encode()) + text((0x28, 0x1051), b"DS", b"4096")
        groups.append(derived + sequence((0x28, 0x9132), window) + sequence((0x28, 0x9145), units) + private)
    pixels = np.broadcast_to(STORED, (frames, *STORED.shape))
    data = made(pixels, NumberOfFrames=str(frames))
    at = data.rindex(b"\xe0\x7f\x10\0")
    return data[:at] + sequence((0x5200, 0x9230), *groups) + data[at:]


class TestManyFrames:
    @pytest.mark.parametrize("is_undefined", [True, False], ids=["up to delimiters", "with lengths"])
    def test_an_enhanced_file(self, is_undefined: bool) -> None:
        """Each frame has its own units and window, which give the same picture in all."""
        frames = 2560
        data = enhanced(frames, is_undefined)
        assert read_dicom(Reader(io.BytesIO(data))).frames == frames
        reserved: list[int] = []
        before = time.process_time()
        content = open_content(data, AUTO, LIMIT, reserved.append, True)
        expected = by_window(STORED, 2048, 4096)
        for index in range(0, frames, 16):
            found = np.asarray(content.picture(f"frame/{index:04}", nothing))[..., 0]
            assert np.abs(found - expected).max() <= 1
        assert time.process_time() - before < 20
        assert sum(reserved) < 4 << 20

    def test_it_is_not_kept_as_objects(self) -> None:
        data = enhanced(200, True)
        tracemalloc.start()
        open_content(data, AUTO, LIMIT, nothing, True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200 * 1000  # an object for each of the 300 parts takes more
