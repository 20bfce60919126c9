"""DICOM: the pictures of pydicom's own files and of files made here, as independent readings have them."""

import base64
import contextlib
import functools
import io
import logging
import random
import struct
import subprocess
import sys
import textwrap
import time
import traceback
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from scanomaly.models.intensity import Intensity, parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.content import EmptySlice
from scanomaly.worker.encoding.formats.dicom_codecs import decode
from scanomaly.worker.encoding.formats.dicom_form import Form
from scanomaly.worker.encoding.formats.opening import open_content
from scanomaly.worker.encoding.images import ImageFailure

from ..waiting import HANGS

LIMIT = 10**8
AUTO = parse_intensity("auto")
MINMAX = parse_intensity("minmax")
BUNDLED = Path(pydicom.__file__).parent / "data"
TEST_FILES = BUNDLED / "test_files"
NOT, CUT = FailureKind.NOT_AN_IMAGE, FailureKind.TRUNCATED
# pytest takes away the filters of pydicom's callers.
pytestmark = pytest.mark.filterwarnings("ignore")

FAILURES = {
    # The file ends in its pixels.
    "MR_truncated.dcm": CUT,
    # Four bytes of the codestream's own size were replaced.
    "JPEG2000-embedded-sequence-delimiter.dcm": CUT,
    # One byte comes before the first element.
    "no_meta.dcm": NOT,
    # A private sequence, and pixels without Rows and Columns.
    "meta_missing_tsyntax.dcm": NOT,
    "nested_priv_SQ.dcm": NOT,
    # Headers alone.
    **dict.fromkeys(("chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "chrKoreanMulti.dcm"), NOT),
    **dict.fromkeys(("chrSQEncoding.dcm", "chrSQEncoding1.dcm", "UN_sequence.dcm", "priv_SQ.dcm"), NOT),
    **dict.fromkeys(("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta_group_length.dcm"), NOT),
    **dict.fromkeys(("empty_charset_LEI.dcm", "reportsi.dcm", "reportsi_with_empty_number_tags.dcm"), NOT),
    **dict.fromkeys(("rtplan.dcm", "rtplan_truncated.dcm", "rtstruct.dcm", "test-SR.dcm", "waveform_ecg.dcm"), NOT),
    **dict.fromkeys(("fall.dcm", "hotiron.dcm", "hotmetalblue.dcm", "pet.dcm", "pet20step.dcm"), NOT),
    **dict.fromkeys(("spring.dcm", "summer.dcm", "winter.dcm"), NOT),
    **dict.fromkeys(("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit"), NOT),
    **dict.fromkeys(("DICOMDIR-nooffset", "DICOMDIR-nopatient", "DICOMDIR-reordered"), NOT),
    # No DICOM.
    **dict.fromkeys(("FileInfo.txt", "README.txt", "README.md", "README", "hashes.json", "urls.json"), NOT),
    **dict.fromkeys(("crayons.icc", "rtplan.dump", "rtstruct.dump", "test1.json", "test_PN.json", "zipMR.gz"), NOT),
}
HEADERS_ALONE = "TINY_ALPHA"


def nothing(*_: object) -> None:
    pass


def shown(data: bytes, frame: str | None = None, intensity: Intensity = AUTO, limit: int = LIMIT) -> np.ndarray:
    image = open_content(data, intensity, limit, nothing, frame is not None).picture(frame, nothing)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(data: bytes, frame: str | None = None, intensity: Intensity = AUTO) -> np.ndarray:
    pixels = shown(data, frame, intensity)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def failure(data: bytes, frame: str | None = None, limit: int = LIMIT) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        shown(data, frame, AUTO, limit)
    assert caught.value.detail.endswith(".")
    assert "\n" not in caught.value.detail
    return caught.value


@functools.cache
def bundled(name: str) -> bytes:
    return (TEST_FILES / name).read_bytes()


def made(pixels: np.ndarray | bytes | None, syntax: UID = ExplicitVRLittleEndian, **values: object) -> bytes:
    """A file of one grey picture, (height, width), as an array's type has it; `values` are set in its header."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if isinstance(pixels, np.ndarray):
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        dataset.Rows, dataset.Columns = pixels.shape[-2:]
        dataset.BitsAllocated = 8 * pixels.dtype.itemsize
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        pixels = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        pixels += b"\0" * (len(pixels) % 2)
    for name, value in values.items():
        setattr(dataset, name, value)
    if dataset.get("BitsAllocated") and pixels is not None:
        dataset.setdefault("BitsStored", dataset.BitsAllocated)
        dataset.setdefault("HighBit", dataset.BitsStored - 1)
    if pixels is not None:
        dataset.PixelData = pixels
        dataset["PixelData"].VR = "OW" if dataset.get("BitsAllocated", 8) > 8 else "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def compressed(codestream: bytes, syntax: UID, height: int, width: int, bits: int, **values: object) -> bytes:
    header = {"Rows": height, "Columns": width, "BitsAllocated": 8 if bits <= 8 else 16, "BitsStored": bits}
    return made(encapsulate([codestream]), syntax, **{**header, "PixelRepresentation": 0, **values})


def by_range(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255)


def gdcm_values(path: Path) -> np.ndarray:
    """The stored values, one after the other, as GDCM's own reader has them: in a process of its own, which its
    exceptions may end."""
    script = """
        import gdcm, sys
        reader = gdcm.ImageReader()
        reader.SetFileName(sys.argv[1])
        assert reader.Read()
        image = reader.GetImage()
        form = image.GetPixelFormat()
        kind = "i" if form.GetPixelRepresentation() else "u"
        values = image.GetBuffer().encode("utf-8", "surrogateescape")
        sys.stdout.buffer.write(f"{kind}{form.GetBitsAllocated() // 8}".encode() + values)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    found = subprocess.run(command, capture_output=True, timeout=HANGS, check=True).stdout
    return np.frombuffer(found[2:], found[:2].decode())


def by_window(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """DICOM PS3.3, C.11.2.1.2.1, as it is written there."""
    line = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    line = np.where(values <= centre - 0.5 - (width - 1) / 2, 0.0, line)
    return np.where(values > centre - 0.5 + (width - 1) / 2, 255.0, line)


def units_of(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    return stored * float(dataset.get("RescaleSlope") or 1) + float(dataset.get("RescaleIntercept") or 0)


def stored_values(dataset: Dataset) -> np.ndarray:
    """(frames, height, width), from the header's numbers and the raw pixel data alone."""
    frames, rows, columns = int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns
    count = frames * rows * columns
    if dataset.BitsAllocated == 1:
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        return bits[:count].reshape(frames, rows, columns).astype(np.int64)
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    kind = np.dtype(f"{order}u{dataset.BitsAllocated // 8}")
    values = np.frombuffer(dataset.PixelData, kind, count).astype(np.int64) & ((1 << dataset.BitsStored) - 1)
    if dataset.PixelRepresentation:
        values = np.where(values >> (dataset.BitsStored - 1), values - (1 << dataset.BitsStored), values)
    return values.reshape(frames, rows, columns)


def expected_grey(dataset: Dataset, stored: np.ndarray, frame: int) -> np.ndarray:
    units = units_of(dataset, stored)
    centre = dataset.get("WindowCenter")
    if centre is not None and dataset.WindowWidth is not None:
        several = isinstance(centre, pydicom.multival.MultiValue)
        centre, width = (centre[0], dataset.WindowWidth[0]) if several else (centre, dataset.WindowWidth)
        expected = by_window(units[frame], float(centre), float(width))
    else:
        expected = by_range(units[frame], units.min(), units.max())
    return 255 - expected if dataset.PhotometricInterpretation == "MONOCHROME1" else expected


def bundled_files() -> list[Path]:
    found = (path for path in BUNDLED.rglob("*") if path.is_file())
    return sorted(path for path in found if path.suffix not in (".py", ".pyc"))


def plain_grey_files() -> list[Path]:
    """Those with uncompressed grey pixels in whole bytes, or bits in little endian, that are square."""
    chosen = []
    for path in bundled_files():
        if path.name in FAILURES or path.name == "badVR.dcm" or HEADERS_ALONE in path.parts:
            continue
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        syntax = dataset.file_meta.TransferSyntaxUID
        is_plain = not syntax.is_encapsulated and dataset.PhotometricInterpretation.startswith("MONOCHROME")
        if is_plain and path.parent.name != "CT2N" and path.name != "liver_expb_1frame.dcm":
            chosen.append(path)
    return chosen


class TestBundled:
    def test_each_gives_a_picture_or_what_is_wrong(self) -> None:
        pictures = 0
        for path in bundled_files():
            expected = NOT if HEADERS_ALONE in path.parts else FAILURES.get(path.name)
            try:
                for has_frames in (False, True):
                    content = open_content(path.read_bytes(), AUTO, LIMIT, nothing, has_frames)
                    image = content.picture(None, nothing)
                    assert content.format == "DICOM"
                    assert image.mode == "RGB"
            except ImageFailure as error:
                assert error.kind == expected, path.name  # noqa: PT017
            else:
                assert expected is None, path.name
                pictures += 1
        assert pictures == 103

    def test_grey_is_as_a_plain_reading_has_it(self) -> None:
        syntaxes: Counter[UID] = Counter()
        for path in plain_grey_files():
            data = path.read_bytes()
            dataset = pydicom.dcmread(io.BytesIO(data))
            stored = stored_values(dataset)
            for index in {0, len(stored) // 2, len(stored) - 1}:
                frame = f"frame/{index:02}" if len(stored) > 1 else None
                expected = expected_grey(dataset, stored, index)
                with contextlib.suppress(EmptySlice):
                    assert np.abs(grey(data, frame) - expected).max() <= 1, path.name
                    syntaxes[dataset.file_meta.TransferSyntaxUID] += 1
        assert syntaxes.total() >= 55
        assert {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian} <= set(syntaxes)
        assert DeflatedExplicitVRLittleEndian in syntaxes

    @pytest.mark.parametrize(
        ("name", "same"),
        [
            ("MR_small_RLE.dcm", "MR_small.dcm"),
            ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
            ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
            ("MR_small_implicit.dcm", "MR_small.dcm"),
            ("MR_small_bigendian.dcm", "MR_small.dcm"),
            ("liver_expb_1frame.dcm", "liver_1frame.dcm"),
            ("rtdose_rle_1frame.dcm", "rtdose_1frame.dcm"),
            ("SC_rgb_rle_16bit.dcm", "SC_rgb_rle.dcm"),
            ("SC_rgb_rle_32bit.dcm", "SC_rgb_rle.dcm"),
            ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm"),
        ],
    )
    def test_without_loss_it_is_the_same_picture(self, name: str, same: str) -> None:
        assert np.array_equal(shown(bundled(name)), shown(bundled(same)))

    def test_frames_of_a_compressed_file(self) -> None:
        for index in range(15):
            frame = f"frame/{index:02}"
            assert np.array_equal(shown(bundled("rtdose_rle.dcm"), frame), shown(bundled("rtdose.dcm"), frame))
        frames = pydicom.encaps.generate_frames(
            pydicom.dcmread(TEST_FILES / "examples_ybr_color.dcm").PixelData, number_of_frames=30
        )
        for index, codestream in enumerate(frames):
            expected = np.asarray(Image.open(io.BytesIO(codestream)).convert("RGB")).astype(int)
            assert np.abs(shown(bundled("examples_ybr_color.dcm"), f"frame/{index:02}") - expected).max() <= 1

    @pytest.mark.parametrize(
        "name",
        [
            "JPEG-lossy.dcm",
            "JPEG2000.dcm",
            "JPEGLSNearLossless_08.dcm",
            "JPEGLSNearLossless_16.dcm",
            "MR_small_RLE.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
        ],
    )
    def test_compressed_grey_is_as_gdcm_has_it(self, name: str) -> None:
        values = gdcm_values(TEST_FILES / name)
        dataset = pydicom.dcmread(TEST_FILES / name)
        stored = values.reshape(1, dataset.Rows, dataset.Columns).astype(np.int64)
        assert np.abs(grey(bundled(name)) - expected_grey(dataset, stored, 0)).max() <= 1

    @pytest.mark.parametrize(
        "name",
        [
            "SC_rgb_dcmtk_+eb+cy+n1.dcm",
            "SC_rgb_dcmtk_+eb+cy+n2.dcm",
            "SC_rgb_dcmtk_+eb+cy+np.dcm",
            "SC_rgb_dcmtk_+eb+cy+s2.dcm",
            "SC_rgb_dcmtk_+eb+cy+s4.dcm",
            "SC_rgb_gdcm_KY.dcm",
            "SC_rgb_jpeg_dcmtk.dcm",
            "SC_rgb_jpeg_lossy_gdcm.dcm",
            "SC_rgb_small_odd_jpeg.dcm",
            "examples_jpeg2k.dcm",
        ],
    )
    def test_compressed_colours_are_as_pillow_has_them(self, name: str) -> None:
        codestream = pydicom.encaps.get_frame(pydicom.dcmread(TEST_FILES / name).PixelData, 0, number_of_frames=1)
        expected = np.asarray(Image.open(io.BytesIO(codestream)).convert("RGB")).astype(int)
        assert np.abs(shown(bundled(name)) - expected).max() <= 1

    def test_lossy_colours_are_near(self) -> None:
        """pydicom has one picture of colour bars in many ways: all are it, to what the way loses."""
        bars = shown(bundled("SC_rgb_rle.dcm")).astype(int)
        names = [path.name for path in TEST_FILES.glob("SC_rgb_dcmtk*")]
        names += ["SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "SC_ybr_full_422_uncompressed.dcm"]
        for name in (*names, "SC_rgb_gdcm_KY.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm"):
            assert np.abs(shown(bundled(name)) - bars).mean() <= 3, name


RAMP = np.arange(-1024, 3072, 16, np.int16).reshape(16, 16)
"""Signed values of 12 bits."""


class TestGrey:
    def test_signed_values_and_the_modality_units(self) -> None:
        stored = (RAMP // 2).astype(np.int16) & 0xFFF  # the bits above the twelve are not a sign
        data = made(stored, BitsStored=12, RescaleSlope="2", RescaleIntercept="-5")
        units = (RAMP // 2) * 2.0 - 5
        assert np.abs(grey(data) - by_range(units, units.min(), units.max())).max() <= 1
        window = grey(data, None, parse_intensity("window:40,400"))
        assert np.abs(window - by_window(units, 40, 400)).max() <= 1
        low, high = np.percentile(units, (1, 99))
        assert np.abs(grey(data, None, parse_intensity("percentile:1,99")) - by_range(units, low, high)).max() <= 1

    @pytest.mark.parametrize("order", [ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian])
    def test_a_window_of_the_header(self, order: UID) -> None:
        data = made(RAMP, order, WindowCenter=["40", "900"], WindowWidth=["400", "100"])
        assert np.abs(grey(data) - by_window(RAMP, 40, 400)).max() <= 1
        assert np.abs(grey(data, None, MINMAX) - by_range(RAMP, RAMP.min(), RAMP.max())).max() <= 1
        exact = grey(made(RAMP, order, WindowCenter="40", WindowWidth="400", VOILUTFunction="LINEAR_EXACT"))
        assert np.abs(exact - by_range(RAMP, -160, 240)).max() <= 1
        curve = grey(made(RAMP, order, WindowCenter="40", WindowWidth="400", VOILUTFunction="SIGMOID"))
        assert np.abs(curve - 255 / (1 + np.exp(-4 * (RAMP - 40.0) / 400))).max() <= 1

    @pytest.mark.parametrize(("centre", "width"), [("", ""), ("40", "0"), ("40", "-3"), ("40", "")])
    def test_a_window_that_is_none(self, centre: str, width: str) -> None:
        data = made(RAMP, WindowCenter=centre, WindowWidth=width)
        assert np.array_equal(grey(data), grey(data, None, MINMAX))

    def test_inverse_grey(self) -> None:
        plain = grey(made(RAMP))
        assert np.array_equal(grey(made(RAMP, PhotometricInterpretation="MONOCHROME1")), 255 - plain)
        # PS3.3, C.8.11.3.1.2: INVERSE is what MONOCHROME1 has. It is one inversion, not two.
        both = made(RAMP, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
        assert np.array_equal(grey(both), 255 - plain)
        assert np.array_equal(grey(made(RAMP, PresentationLUTShape="IDENTITY")), plain)

    def test_values_in_the_upper_bits(self) -> None:
        stored = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
        data = made(stored << 4, BitsStored=12, HighBit=15)
        assert np.abs(grey(data) - by_range(stored, 0, 4080)).max() <= 1

    def test_a_lookup_table_with_more_entries_than_greys(self) -> None:
        stored = np.arange(0, 1024, 4, dtype=np.uint16).reshape(16, 16)
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [1024, 0, 8], [255 - value // 4 for value in range(1024)]
        table["LUTData"].VR = "US"
        assert np.array_equal(grey(made(stored, VOILUTSequence=[table])), 255 - stored // 4)

    def test_lookup_tables(self) -> None:
        stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
        table = Dataset()
        table.LUTDescriptor, table.LUTData = [256, 0, 8], bytes(255 - value for value in range(256))
        table["LUTData"].VR = table["LUTDescriptor"].VR = "US"
        table.LUTData = [255 - value for value in range(256)]
        assert np.array_equal(grey(made(stored, VOILUTSequence=[table])), 255 - stored)

    def test_single_bits(self) -> None:
        stored = np.random.default_rng(0).integers(0, 2, (8, 16))
        packed = np.packbits(stored.reshape(-1).astype(np.uint8), bitorder="little").tobytes()
        header = {"Rows": 8, "Columns": 16, "BitsAllocated": 1, "BitsStored": 1, "PixelRepresentation": 0}
        assert np.array_equal(grey(made(packed, **header)), 255 * stored)

    @pytest.mark.parametrize(("name", "kind"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")])
    def test_floats(self, name: str, kind: str) -> None:
        values = np.linspace(-1.5, 2.5, 64).reshape(8, 8).astype(kind)
        values[0, 0] = np.nan
        header = {"Rows": 8, "Columns": 8, "BitsAllocated": 8 * values.dtype.itemsize}
        pixels = grey(made(None, **header, **{name: values.tobytes()}))
        finite = values.reshape(-1)[1:]
        assert np.abs(pixels.reshape(-1)[1:] - by_range(finite, finite.min(), finite.max())).max() <= 1
        assert pixels[0, 0] == 0


class TestColours:
    STORED = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    HEADER: ClassVar = {"Rows": 6, "Columns": 8, "SamplesPerPixel": 3, "BitsAllocated": 8, "PixelRepresentation": 0}

    def test_the_order_of_samples(self) -> None:
        header = {**self.HEADER, "PhotometricInterpretation": "RGB"}
        by_pixel = made(self.STORED.tobytes(), **header, PlanarConfiguration=0)
        by_plane = made(self.STORED.transpose(2, 0, 1).tobytes(), **header, PlanarConfiguration=1)
        for data in (by_pixel, by_plane):
            assert np.array_equal(shown(data), self.STORED)
            assert np.array_equal(shown(data, None, parse_intensity("window:40,400")), self.STORED)

    def test_luminance_and_colour_differences(self) -> None:
        """Also of 8 bits: what Pillow's conversion has, which is of the same recommendation (JFIF)."""
        header = {**self.HEADER, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0}
        expected = np.asarray(Image.fromarray(self.STORED, "YCbCr").convert("RGB")).astype(int)
        assert np.abs(shown(made(self.STORED.tobytes(), **header)) - expected).max() <= 2

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palettes(self, bits: int) -> None:
        stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
        channels = np.random.default_rng(1).integers(0, 1 << bits, (3, 256))
        header: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, values in zip(("Red", "Green", "Blue"), channels, strict=True):
            header[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
            header[f"{name}PaletteColorLookupTableData"] = values.astype(f"<u{bits // 8}").tobytes()
        expected = (channels >> (bits - 8)).T.reshape(16, 16, 3)
        assert np.abs(shown(made(stored, **header)) - expected).max() <= 1

    @staticmethod
    def palette(kind: str, entries: int, bits: int, data: bytes) -> dict[str, object]:
        header: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name in ("Red", "Green", "Blue"):
            header[f"{name}PaletteColorLookupTableDescriptor"] = [entries, 0, bits]
            header[f"{kind}{name}PaletteColorLookupTableData"] = data
        return header

    def test_a_palette_with_more_entries_than_greys(self) -> None:
        stored = np.arange(0, 1024, 4, dtype=np.uint16).reshape(16, 16)
        header = self.palette("", 1024, 8, bytes(value // 4 for value in range(1024)))
        assert np.array_equal(grey(made(stored, **header)), stored // 4)

    def test_a_palette_of_8_bits_that_says_16(self) -> None:
        stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
        header = self.palette("", 256, 16, np.arange(256, dtype="<u2").tobytes())
        assert np.array_equal(grey(made(stored, **header)), stored)

    def test_a_segmented_palette(self) -> None:
        """Two entries one by one, a line of 62 to 252, and 64 copied from both; 128 more than the palette has."""
        stored = np.arange(128, dtype=np.uint8).reshape(8, 16)
        line = np.linspace(8, 252, 63)[1:]
        expected = np.rint([*(4, 8), *line, *(4, 8), *line]).astype(int)
        for bits, kind in ((8, "u1"), (16, "<u2")):
            size, factor = bits // 8, 1 if bits == 8 else 257
            codes = [0, 2, 4 * factor, 8 * factor, 1, 62, 252 * factor]
            tail = np.array([2, 2], kind).tobytes() + (0).to_bytes(4, "little")
            data = np.array(codes, kind).tobytes() + tail + np.array([1, 128, 0], kind).tobytes()
            header = self.palette("Segmented", 128, bits, data + b"\0" * (len(data) % 2))
            assert np.abs(grey(made(stored, **header)).reshape(-1) - expected).max() <= 1, size

    @pytest.mark.parametrize("colours", ["YBR_FULL", "YBR_FULL_422", "RGB"])
    def test_what_adobe_marks_is_converted_once(self, colours: str) -> None:
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 30, 60)).save(out, "JPEG", quality=95)
        code = out.getvalue()
        marker = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1"
        header = {"SamplesPerPixel": 3, "PhotometricInterpretation": colours, "PlanarConfiguration": 0}
        data = compressed(code[:2] + marker + code[20:], JPEGBaseline8Bit, 16, 16, 8, **header)
        assert np.abs(shown(data) - [200, 30, 60]).max() <= 2

    @pytest.mark.parametrize(("colours", "samples"), [("HSV", 3), ("YBR_PARTIAL_422", 3), ("CMYK", 4), ("ARGB", 4)])
    def test_colours_that_are_not_read(self, colours: str, samples: int) -> None:
        header = {**self.HEADER, "SamplesPerPixel": samples, "PhotometricInterpretation": colours}
        found = failure(made(bytes(6 * 8 * samples), **header, PlanarConfiguration=0))
        assert found.kind == FailureKind.UNSUPPORTED


class TestFrames:
    FRAMES = np.stack([np.full((8, 8), 0), RAMP[:8, :8], RAMP[8:, 8:]]).astype(np.int16)

    def test_the_whole_file_has_one_scale(self) -> None:
        frames = self.FRAMES.copy()
        frames[0] = RAMP.min()
        data = made(frames, NumberOfFrames="3")
        for index in (1, 2):
            expected = by_range(frames[index], frames.min(), frames.max())
            assert np.abs(grey(data, f"frame/{index}") - expected).max() <= 1
        with pytest.raises(EmptySlice) as caught:
            shown(data, "frame/0")
        assert caught.value.detail == "The slice is empty: at most 0.5% of its pixels are brighter than 10 of 255."

    def test_one_frame_is_never_empty(self) -> None:
        assert grey(made(np.zeros((8, 8), np.uint16))).max() == 0

    @pytest.mark.parametrize("frame", ["frame/3", "frame/300000000000", "axial/0", "page/1", "frame/x", "frame/-1"])
    def test_a_frame_that_is_not_there(self, frame: str) -> None:
        assert failure(made(self.FRAMES, NumberOfFrames="3"), frame).kind == FailureKind.MISSING

    def test_windows_and_units_of_their_own(self) -> None:
        groups = []
        for centre in ("100", "200", "300"):
            window, units, group = Dataset(), Dataset(), Dataset()
            window.WindowCenter, window.WindowWidth = centre, "500"
            units.RescaleIntercept, units.RescaleSlope = centre, "1"
            group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [units]
            groups.append(group)
        data = made(self.FRAMES, NumberOfFrames="3", PerFrameFunctionalGroupsSequence=groups)
        for index, centre in enumerate((100, 200, 300)):
            expected = by_window(self.FRAMES[index] + centre, centre, 500)
            if expected.max() > 10:
                assert np.abs(grey(data, f"frame/{index}") - expected).max() <= 1
        shared = made(self.FRAMES, NumberOfFrames="3", SharedFunctionalGroupsSequence=[groups[1]])
        expected = by_window(self.FRAMES[2] + 200, 200, 500)
        assert np.abs(grey(shared, "frame/2") - expected).max() <= 1


class TestShape:
    def test_pixels_become_square(self) -> None:
        assert grey(made(RAMP[:8], PixelSpacing=["2.5", "1"])).shape == (20, 16)
        assert grey(made(RAMP[:8], PixelSpacing=["1", "2"])).shape == (8, 32)
        assert grey(made(RAMP[:8], PixelAspectRatio=["2", "1"])).shape == (16, 16)
        assert grey(made(RAMP[:8], ImagerPixelSpacing=["1", "1.001"])).shape == (8, 16)
        for spacing in (["0", "1"], ["-1", "1"], ["1", "50"], ["1"], [""]):
            assert grey(made(RAMP[:8], PixelSpacing=spacing)).shape == (8, 16)
        assert shown(made(RAMP[:8], PixelSpacing=["4", "1"]), limit=200).shape == (8, 16, 3)

    def test_what_it_takes_is_told_before(self) -> None:
        told = []
        content = open_content(made(RAMP, PixelSpacing=["2", "1"]), AUTO, LIMIT, nothing, False)
        image = content.picture(None, lambda size, taken: told.append((size, taken)))
        assert told[0][0] == image.size == (16, 32)
        assert told[0][1] > 16 * 32 * 3


STEPS = np.add.outer(257 * np.arange(8), 13 * np.arange(8) ** 2).astype(np.uint16)
"""What the codestreams below hold."""

# Made with OpenJPH 0.26 (HTJ2K, reversible and not) and libjpeg-turbo 3.1 (lossless JPEG with selection value 6).
HT_LOSSLESS = base64.b64decode(
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACf9SAAwAAgABAAEEBEAB/1wAByCIiIiI"
    "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAF8AAf+TwAAunAsAB/yj/x/31/xn+gR+AX4A/zd+8/5iPmb/Dg+g970A9ZdC"
    "QDM4AMAALUgABViZc2ZkQEFlzpmRAQX1Azi4RLG3AAACAADgwEIB7LYA/9k="
)
HT_LOSSY = base64.b64decode(
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAAJP9SAAwAAgABAAEEBEAA/1wACyJYVlga"
    "WBpnv/9kABcAAU9wZW5KUEggVmVyIDAuMjYuMy7/kAAKAAAAAAA+AAH/k8ALdKUvfvSJb/534m+/3fS1Lz120FHH/AD1lxjAMbgAwAlg"
    "BMDwtPJ0AAT+1ey0AP/Z"
)
LOSSLESS_6 = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALDAAIAAgBAREA/8QAGQABAQEAAwAAAAAAAAAAAAAACAkHBAYM/9oACAEBAAYAAPP/APN7PoOt"
    "7qj1TQFAoFAoFAoFA0BQKBQKBQKBQNAUCgUCgUCgUDQFAoFAoFAoFA0BQKBQKBQKBQNAUCgUCgUCgUDQFAoFAoFAoFA//9k="
)


def as_jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


class TestSyntaxes:
    @pytest.mark.parametrize(
        ("codestream", "syntax", "bits", "loss"),
        [
            (HT_LOSSLESS, HTJ2KLossless, 16, 0),
            (HT_LOSSLESS, HTJ2KLosslessRPCL, 16, 0),
            (HT_LOSSY, HTJ2K, 16, 6),
            (LOSSLESS_6, JPEGLossless, 12, 0),
        ],
    )
    def test_small_codestreams(self, codestream: bytes, syntax: UID, bits: int, loss: int) -> None:
        data = compressed(codestream, syntax, 8, 8, bits, WindowCenter="1218", WindowWidth="2437")
        expected = by_window(STEPS, 1218, 2437)
        assert np.abs(grey(data) - expected).max() <= 1 + loss

    def test_lossless_jpeg_under_its_general_name(self) -> None:
        data = bundled("SC_rgb_jpeg_gdcm.dcm")
        meta_end = 144 + int.from_bytes(data[140:144], "little")
        name, general = (str(uid).encode().ljust(22, b"\0") for uid in (JPEGLosslessSV1, JPEGLossless))
        renamed = data[:meta_end].replace(name, general) + data[meta_end:]
        assert renamed != data
        assert np.array_equal(shown(renamed), shown(data))

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
    def test_jpeg_of_8_bits(self, syntax: UID) -> None:
        codestream = as_jpeg(np.arange(256, dtype=np.uint8).reshape(16, 16))
        expected = np.asarray(Image.open(io.BytesIO(codestream))).astype(int)
        data = compressed(codestream, syntax, 16, 16, 8, WindowCenter="128", WindowWidth="256")
        assert np.abs(grey(data) - expected).max() <= 1

    def test_jpeg_of_12_bits(self) -> None:
        values = (16 * np.arange(256, dtype=np.uint16)).reshape(16, 16)
        codestream = imagecodecs.jpeg8_encode(values, level=98, bitspersample=12)
        data = compressed(codestream, JPEGExtended12Bit, 16, 16, 12, WindowCenter="2048", WindowWidth="4096")
        assert np.abs(grey(data) - by_window(values, 2048, 4096)).max() <= 2

    @pytest.mark.parametrize(
        "syntax",
        [
            *("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107"),  # MPEG-2, -4, HEVC
            *("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.110"),  # part 2, JPIP, XL
            *("1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"),
            "1.2.3.4.5",
        ],
    )
    def test_what_is_not_read(self, syntax: str) -> None:
        data = compressed(b"\xff\x0a\0\0", HTJ2K, 8, 8, 8)
        found = failure(data.replace(HTJ2K.encode(), syntax.encode().ljust(len(HTJ2K), b"\0")))
        assert found.kind == FailureKind.UNSUPPORTED
        assert "1.2.3" not in found.detail

    def test_deflated(self) -> None:
        data = made(RAMP, DeflatedExplicitVRLittleEndian)
        assert b"\1\0\2\0" not in data[400:]
        assert np.array_equal(grey(data), grey(made(RAMP)))
        assert failure(data[:-60]).kind == CUT

    def test_without_preamble(self) -> None:
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
            data = made(RAMP, syntax)
            end = 144 + int.from_bytes(data[140:144], "little")
            for bare in (data[132:], data[end:]):
                assert np.array_equal(grey(bare), grey(data))


class TestLies:
    @pytest.mark.parametrize("changes", [{"Rows": 0}, {"Columns": 0}, {"Rows": None}])
    def test_no_picture(self, changes: dict[str, object]) -> None:
        assert failure(made(RAMP, **changes)).kind == NOT

    def test_more_than_there_is(self) -> None:
        assert failure(made(RAMP, Rows=17)).kind == CUT
        assert failure(made(RAMP, Rows=60000, Columns=60000)).kind == FailureKind.TOO_LARGE
        assert failure(made(RAMP), limit=255).kind == FailureKind.TOO_LARGE

    @pytest.mark.parametrize("frames", ["2", "100000"])
    def test_more_frames_than_there_are(self, frames: str) -> None:
        """What is there is read."""
        plain = made(RAMP, NumberOfFrames=frames)
        codestream = compressed(HT_LOSSLESS, HTJ2KLossless, 8, 8, 16, NumberOfFrames=frames)
        assert np.array_equal(shown(plain, "frame/0"), shown(made(RAMP)))
        assert np.array_equal(shown(codestream, "frame/0"), shown(compressed(HT_LOSSLESS, HTJ2KLossless, 8, 8, 16)))
        for data in (plain, codestream):
            for index in (1, int(frames) - 1):
                assert failure(data, f"frame/{index}").kind == CUT

    def test_a_number_of_frames_that_cannot_be_is_one(self) -> None:
        for frames in ("2147483647", "0", ""):
            data = made(RAMP, NumberOfFrames=frames)
            assert np.array_equal(shown(data), shown(made(RAMP)))
            assert failure(data, "frame/1").kind == FailureKind.MISSING

    def test_another_size_in_the_codestream(self) -> None:
        for codestream, syntax in ((HT_LOSSLESS, HTJ2KLossless), (LOSSLESS_6, JPEGLossless)):
            assert failure(compressed(codestream, syntax, 8, 7, 16)).kind == CUT
            assert failure(compressed(codestream, syntax, 800, 800, 16)).kind == CUT
        big = as_jpeg(np.zeros((3000, 3000), np.uint8))
        assert failure(compressed(big, JPEGBaseline8Bit, 8, 8, 8)).kind == CUT

    @pytest.mark.parametrize("header", ["as it is", "length 0", "no length", "no preamble"])
    def test_a_bomb_is_stopped_by_what_is_reserved(self, header: str) -> None:
        data = made(RAMP, DeflatedExplicitVRLittleEndian)
        end = 144 + int.from_bytes(data[140:144], "little")
        packing = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        zeros = bytes(1 << 20)
        before = {
            "as it is": data[:end],
            "length 0": data[:140] + bytes(4) + data[144:end],
            "no length": data[:132] + data[144:end],
            "no preamble": data[132:end],
        }
        bomb = before[header] + b"".join(packing.compress(zeros) for _ in range(80)) + packing.flush()
        with pytest.raises(EnoughError):
            open_content(bomb, AUTO, LIMIT, Bounded(100_000_000), False)

    def test_a_box_of_no_length(self) -> None:
        """pydicom would go on for ever."""
        data = bundled("GDCMJ2K_TextGBR.dcm")
        first = data.index(b"\0\0\0\x0cjP  ") + 12
        assert shown(data).any()
        assert failure(data[:first] + bytes(4) + data[first + 4 :]).kind == CUT

    def test_many_small_elements_take_no_memory(self) -> None:
        """10 MB of them took 400 MB."""
        data = made(RAMP)
        item = b"".join(struct.pack("<HH2sH", 9, 0x1000 + number, b"LO", 0) for number in range(400))
        item = b"\xfe\xff\0\xe0\xff\xff\xff\xff" + item + b"\xfe\xff\x0d\xe0\0\0\0\0"
        sequence = struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFF) + 100 * item
        start = data.rfind(b"\xe0\x7f\x10\0")
        full = data[:start] + sequence + b"\xfe\xff\xdd\xe0\0\0\0\0" + data[start:]
        tracemalloc.start()
        assert np.array_equal(shown(full), shown(data))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20

    @pytest.mark.parametrize("seed", range(20))
    def test_run_lengths_are_as_pydicom_alone_reads_them(self, seed: int) -> None:
        """Runs go over the ends of rows, codes that mean nothing are among them, and padding follows."""
        numbers = random.Random(seed)
        height, width = numbers.randint(1, 40), numbers.randint(1, 40)
        segments = []
        for _ in range(2):
            segment, size = b"", 0
            while size < height * width:
                code = numbers.randint(0, 255)
                count = code + 1 if code < 128 else 257 - code if code > 128 else 0
                segment += bytes([code]) + numbers.randbytes(count if code < 128 else min(count, 1))
                size += count
            segments.append(segment + b"\0" * (len(segment) % 2))
        offsets = [2, 64, 64 + len(segments[0]), *[0] * 13]
        data = compressed(struct.pack("<16L", *offsets) + b"".join(segments), RLELossless, height, width, 16)
        dataset = pydicom.dcmread(io.BytesIO(data))
        theirs = get_decoder(RLELossless).as_array(dataset, decoding_plugin="pydicom")[0]
        form = Form(height, width, 1, 16, 16, 15, False, "MONOCHROME2", False)
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        assert np.array_equal(decode(frame, form, RLELossless)[0], theirs)

    def test_run_lengths_of_more_than_the_picture(self) -> None:
        """pydicom makes a segment as long as it says: 64 MB of this one."""
        segment = b"\x81\0" * (1 << 19)
        codestream = struct.pack("<16L", 1, 64, *[0] * 14) + segment
        data = compressed(codestream, RLELossless, 8, 8, 8)
        tracemalloc.start()
        assert failure(data).kind == CUT
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20

    def test_a_segmented_palette_of_more_than_its_entries(self) -> None:
        """Each three words are a line of 65,535 entries: of 2 KB of them, pydicom makes 360 MB."""
        stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
        words = np.array([0, 1, 0, *([1, 65535, 7] * 300)], "<u2").tobytes()
        tracemalloc.start()
        shown(made(stored, **TestColours.palette("Segmented", 256, 16, words)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20

    def test_more_components_than_samples_in_the_codestream(self) -> None:
        """OpenJPEG makes them all, and of 400 by 2000 × 2000 pixels 7.7 GB."""
        at = HT_LOSSLESS.index(b"\xff\x4f\xff\x51")
        head, component, rest = HT_LOSSLESS[at : at + 40], HT_LOSSLESS[at + 42 : at + 45], HT_LOSSLESS[at + 45 :]
        many = head[:4] + struct.pack(">H", 38 + 3 * 4) + head[6:] + struct.pack(">H", 4) + 4 * component + rest
        assert failure(compressed(many, HTJ2KLossless, 8, 8, 16)).kind == FailureKind.UNSUPPORTED
        half = head + b"\0\1" + component[:1] + b"\2\2" + rest
        assert failure(compressed(half, HTJ2KLossless, 8, 8, 16)).kind == FailureKind.UNSUPPORTED

    def test_the_frame_that_is_checked_is_the_one_that_is_decoded(self) -> None:
        """A table of offsets may name another one."""
        big = io.BytesIO()
        Image.new("L", (300, 300)).save(big, "JPEG2000", no_jp2=True)
        body = encapsulate([HT_LOSSLESS, big.getvalue()], has_bot=False)
        table = {
            "ExtendedOffsetTable": struct.pack("<Q", 8 + len(HT_LOSSLESS) + len(HT_LOSSLESS) % 2),
            "ExtendedOffsetTableLengths": struct.pack("<Q", len(big.getvalue())),
        }
        header = {"Rows": 8, "Columns": 8, "BitsAllocated": 16, "PixelRepresentation": 0}
        data = made(body, HTJ2KLossless, **header)
        assert np.array_equal(shown(made(body, HTJ2KLossless, **header, **table)), shown(data))

    def test_many_compressed_frames_are_found_at_once(self) -> None:
        codestream = as_jpeg(np.arange(256, dtype=np.uint8).reshape(16, 16))
        body = encapsulate([codestream] * 3000, has_bot=False)
        header = {"Rows": 16, "Columns": 16, "BitsAllocated": 8, "PixelRepresentation": 0, "NumberOfFrames": "3000"}
        data = made(body, JPEGBaseline8Bit, **header)
        before = time.process_time()
        assert grey(data, "frame/2999").max() == 255
        assert time.process_time() - before < 6  # 12 seconds and more where each frame is searched for


class EnoughError(Exception):
    pass


class Bounded:
    """Refuses what is above a limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def __call__(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise EnoughError


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, above all in the header; or a part cut out; or the end cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        # Up to 128 nothing is read, and beyond the last few KB there is only more of the same.
        place = chance.randrange(128, min(len(out), chance.choice((600, 2000, len(out)))))
        out[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    if chance.random() < 0.2:
        start = chance.randrange(128, len(out))
        del out[start : start + chance.randint(1, 40)]
    return bytes(out[: chance.randrange(128, len(out))] if chance.random() < 0.2 else out)


def test_damaged_files_end_in_pictures_or_failures() -> None:
    def outcome(number: int) -> str:
        chance = random.Random(number)
        data = mutated(bundled(names[number % len(names)]), chance)
        try:
            frame = chance.choice((None, "frame/0", "frame/1"))
            open_content(data, chance.choice((AUTO, MINMAX)), 1 << 20, nothing, True).picture(frame, nothing)
        except ImageFailure as error:
            assert error.detail  # noqa: PT017
            return error.kind.name
        except EmptySlice:
            return "EMPTY"
        return "PICTURE"

    names = ("MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_jp2klossless.dcm")
    with ThreadPoolExecutor(4) as pool:
        outcomes = Counter(pool.map(outcome, range(400)))
    assert {"PICTURE", "TRUNCATED", "NOT_AN_IMAGE", "MISSING"} <= set(outcomes)


MARK = "Zz" + "planted"


def marked(syntax: UID = ExplicitVRLittleEndian, **values: object) -> bytes:
    """A file whose header names a patient, in all that can."""
    private = Dataset()
    private.add_new((0x0011, 0x0010), "LO", MARK)
    private.add_new((0x0011, 0x1001), "UN", MARK.encode() + b"\0")
    header: dict[str, object] = {
        **{"PatientName": f"{MARK}^A", "PatientID": MARK, "PatientBirthDate": MARK, "StudyDate": MARK},
        **{"StudyTime": MARK, "PatientAge": MARK, "AccessionNumber": MARK, "PatientWeight": "1"},
        **{"StudyInstanceUID": MARK, "SeriesInstanceUID": MARK, "SOPInstanceUID": MARK},
        "ReferencedImageSequence": [private],
    }
    return made(RAMP, syntax, **{**header, **values})


def marked_variants() -> Iterator[bytes]:
    """Good, damaged and cut files with a mark that may not be seen."""
    good = marked()
    yield good
    yield from (marked(syntax) for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian))
    yield from (marked(SOPClassUID=MARK), marked(SpecificCharacterSet=MARK), marked(PhotometricInterpretation=MARK))
    yield good.replace(b"1.2.840.10008.1.2.1\0", MARK.encode().ljust(20, b"\0"))
    yield made(None, SOPClassUID=MARK)
    names = ("NumberOfFrames", "WindowCenter", "RescaleSlope", "PixelSpacing", "VOILUTFunction")
    for name in names:
        numbers = {"WindowWidth": "7", "WindowCenter": "123456789"}
        data = marked(**numbers, **({name: "123456789"} if name != "WindowCenter" else {}))
        yield data.replace(b"123456789 ", MARK.encode().ljust(10))
    yield marked(PixelSpacing=["1", "1"], Rows=0)
    step = max(1, len(good) // 40)
    yield from (good[:end] for end in range(140, len(good), step))
    chance = random.Random(7)
    yield from (mutated(good, chance) for _ in range(60))


def report_of(data: bytes) -> str:
    """All that a failure could tell."""
    try:
        open_content(data, AUTO, LIMIT, nothing, True).picture(None, nothing)
    except ImageFailure as error:
        return "\n".join([str(error), repr(error), error.detail, *traceback.format_exception(error)])
    except EmptySlice as error:
        return error.detail
    return ""


class TestNames:
    def test_they_are_in_no_failure_and_no_log(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        reports = []
        with caplog.at_level(logging.DEBUG):
            for data in marked_variants():
                reports.append(report_of(data))
                assert MARK not in reports[-1]
        assert sum(bool(report) for report in reports) > 20
        out, errors = capfd.readouterr()
        assert MARK not in out + errors + caplog.text

    def test_they_are_in_no_warning(self, tmp_path: Path) -> None:
        """In a process of its own: pytest has filters that a worker has not."""
        for number, data in enumerate(marked_variants()):
            (tmp_path / f"{number}.dcm").write_bytes(data)
        script = """
            import pathlib, sys
            from scanomaly.models.intensity import Intensity
            from scanomaly.worker.encoding.formats.opening import open_content
            for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
                try:
                    content = open_content(path.read_bytes(), Intensity("auto"), 10**6, lambda size: None, True)
                    content.picture(None, lambda size, taken: None)
                except Exception as error:
                    print(error)
            print("done")
        """
        command = [sys.executable, "-W", "default", "-c", textwrap.dedent(script), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=True)
        assert done.stdout.endswith("done\n")
        assert MARK not in done.stdout + done.stderr
        assert done.stderr == ""
