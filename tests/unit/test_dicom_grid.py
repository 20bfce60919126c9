"""DICOM over a grid: transfer syntax, colours, bits, sign and planes, each beside another reader.

The other reader is dcmtk, from the file to the grey of its first window; for JPEG 2000, which dcmtk does not read,
it is GDCM. Every file has two frames.
"""

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from scanomaly.models.intensity import parse_intensity
from scanomaly.worker.encoding.formats.opening import open_content

from ..conftest import missing
from .test_dicom import by_window, gdcm_values, made

pytestmark = pytest.mark.filterwarnings("ignore")

FRAMES, HEIGHT, WIDTH = 2, 10, 14
#: Allocated, stored, high bit.
BITS = [(8, 8, 7), (8, 6, 5), (16, 16, 15), (16, 12, 11), (16, 12, 15), (16, 9, 8), (32, 32, 31)]
PLAIN = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
#: dcmtk's encoder of each, and the reader that goes with it.
PACKED = {
    "RLE": (("dcmcrle",), "dcmj2pnm"),
    "JPEG lossless SV1": (("dcmcjpeg", "+e1"), "dcmj2pnm"),
    "JPEG lossless": (("dcmcjpeg", "+el"), "dcmj2pnm"),
    "JPEG-LS": (("dcmcjpls", "+el"), "dcml2pnm"),
    "JPEG-LS near-lossless": (("dcmcjpls", "+en", "+md", "2"), "dcml2pnm"),
    "JPEG baseline": (("dcmcjpeg", "+eb"), "dcmj2pnm"),
    "JPEG extended": (("dcmcjpeg", "+ee"), "dcmj2pnm"),
}
JPEG_DCT = ("JPEG baseline", "JPEG extended")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(f"{name}, of the system's package dcmtk")
    return found


def grey_header(allocated: int, stored: int, high: int, is_signed: bool, colours: str) -> dict[str, object]:
    low = -(1 << (stored - 1)) if is_signed else 0
    centre, width = low + 0.45 * (1 << stored), 0.7 * (1 << stored)
    return {
        "PhotometricInterpretation": colours,
        **{"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(is_signed)},
        **{"WindowCenter": f"{centre:.1f}", "WindowWidth": f"{width:.1f}"},
        **{"RescaleSlope": "1", "RescaleIntercept": "0", "NumberOfFrames": str(FRAMES)},
    }


def stored_grey(allocated: int, stored: int, high: int, is_signed: bool) -> np.ndarray:
    """Values of all that is possible, and in the bits that do not count something else."""
    chance = np.random.default_rng(stored + high)
    values = chance.integers(0, 1 << stored, (FRAMES, HEIGHT, WIDTH), np.int64)
    values.reshape(-1)[:2] = 0, (1 << stored) - 1
    shift = high + 1 - stored
    return (values << shift).astype(f"u{allocated // 8}").view(f"{'i' if is_signed else 'u'}{allocated // 8}")


def as_dcmtk(path: Path, reader: str, *options: str) -> list[np.ndarray]:
    """The frames as dcmtk shows them."""
    command = [tool(reader), *options, "+Fa", "+op", str(path), str(path.with_suffix(""))]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = sorted(path.parent.glob(f"{path.stem}.*.p?m"))
    assert len(found) == FRAMES
    return [np.asarray(Image.open(name)).astype(int) for name in found]


def as_here(data: bytes) -> list[np.ndarray]:
    content = open_content(data, parse_intensity("auto"), 10**8, lambda size: None, True)
    pictures = (content.picture(f"frame/{index}", lambda size, taken: None) for index in range(FRAMES))
    return [np.asarray(picture).astype(int) for picture in pictures]


def packed(data: bytes, way: str, folder: Path) -> Path:
    """Compressed by dcmtk."""
    (folder / "plain.dcm").write_bytes(data)
    encoder, *options = PACKED[way][0]
    command = [tool(encoder), *options, str(folder / "plain.dcm"), str(folder / "packed.dcm")]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    return folder / "packed.dcm"


def compare(path: Path, reader: str, tolerance: int, *options: str) -> None:
    for mine, theirs in zip(as_here(path.read_bytes()), as_dcmtk(path, reader, *options), strict=True):
        if theirs.ndim == 2:
            assert (mine == mine[..., :1]).all()
            mine = mine[..., 0]  # noqa: PLW2901
        assert np.abs(mine - theirs).max() <= tolerance


def grey_grid() -> Iterator[tuple[str, tuple[int, int, int], bool]]:
    """What dcmtk writes. Of 32 bits in big endian, readers do not agree which of the two words comes first."""
    for way, bits, is_signed in itertools.product([*PLAIN, *PACKED], BITS, (False, True)):
        is_wide = bits[0] == 32
        if way == "JPEG-LS near-lossless":
            is_there = bits[0] == 16 and not is_signed
        else:
            is_there = not is_wide or (way in PLAIN and way != "big endian") or way == "RLE" or way in JPEG_DCT
        if is_there:
            yield way, bits, is_signed


@pytest.mark.parametrize(("way", "bits", "is_signed"), list(grey_grid()), ids=str)
def test_grey(way: str, bits: tuple[int, int, int], is_signed: bool, tmp_path: Path) -> None:
    colours = "MONOCHROME1" if bits[1] % 8 else "MONOCHROME2"
    values = stored_grey(*bits, is_signed)
    header = grey_header(*bits, is_signed, colours)
    if way in PLAIN:
        path = tmp_path / "plain.dcm"
        path.write_bytes(made(values, PLAIN[way], **header))
        compare(path, "dcmj2pnm", 1, "+Wi", "1")
        return
    path = packed(made(values, **header), way, tmp_path)
    compare(path, PACKED[way][1], 2 if way in JPEG_DCT else 1, "+Wi", "1")


@pytest.mark.parametrize("is_by_plane", [False, True], ids=["by pixel", "by plane"])
@pytest.mark.parametrize("colours", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("way", [*PLAIN, *PACKED])
def test_colours(way: str, colours: str, is_by_plane: bool, tmp_path: Path) -> None:
    values = smooth_colours()
    stored = values.transpose(0, 3, 1, 2) if is_by_plane else values
    header = {
        **{"Rows": HEIGHT, "Columns": WIDTH, "SamplesPerPixel": 3, "PhotometricInterpretation": colours},
        **{"BitsAllocated": 8, "PixelRepresentation": 0, "PlanarConfiguration": int(is_by_plane)},
        "NumberOfFrames": str(FRAMES),
    }
    data = made(stored.tobytes(), PLAIN.get(way, ExplicitVRLittleEndian), **header)
    if way in PLAIN:
        path = tmp_path / "plain.dcm"
        path.write_bytes(data)
        compare(path, "dcmj2pnm", 2)
        return
    compare(packed(data, way, tmp_path), PACKED[way][1], 3)


def smooth_colours() -> np.ndarray:
    """(frames, height, width, 3), without edges, which each JPEG decoder rounds in its own way."""
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    first = np.stack([15 * across + 20, 20 * down + 10, 230 - 10 * across - 5 * down], axis=-1)
    return np.stack([first, first[..., ::-1]]).astype(np.uint8)


@pytest.mark.parametrize("bits", [(8, 8), (16, 16)], ids=str)
def test_palettes(bits: tuple[int, int], tmp_path: Path) -> None:
    stored = stored_grey(bits[0], 8, 7, False)
    header: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR", "NumberOfFrames": str(FRAMES)}
    channels = np.random.default_rng(1).integers(0, 1 << 16, (3, 256)).astype("<u2")
    for name, entries in zip(("Red", "Green", "Blue"), channels, strict=True):
        header[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        header[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    (tmp_path / "plain.dcm").write_bytes(made(stored, **header))
    compare(tmp_path / "plain.dcm", "dcmj2pnm", 1)


@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [(8, 8, 7), (16, 16, 15), (16, 12, 11), (16, 9, 8)], ids=str)
def test_jpeg_2000_is_as_gdcm_has_it(bits: tuple[int, int, int], is_signed: bool, tmp_path: Path) -> None:
    values = stored_grey(*bits, is_signed)
    shift = 8 * values.dtype.itemsize - bits[1]
    values = (values << shift) >> shift
    frames = [
        imagecodecs.jpeg2k_encode(frame, codecformat="j2k", bitspersample=bits[1], reversible=True)
        for frame in values
    ]
    header = {"Rows": HEIGHT, "Columns": WIDTH, "BitsAllocated": bits[0]}
    header |= grey_header(*bits, is_signed, "MONOCHROME2")
    data = made(encapsulate(frames), JPEG2000Lossless, **header)
    (tmp_path / "packed.dcm").write_bytes(data)
    for index, stored in enumerate(as_gdcm(tmp_path / "packed.dcm")):
        expected = by_window(stored, float(header["WindowCenter"]), float(header["WindowWidth"]))
        assert np.abs(as_here(data)[index][..., 0] - expected).max() <= 1


def as_gdcm(path: Path) -> np.ndarray:
    """(frames, height, width), stored values."""
    return gdcm_values(path).reshape(FRAMES, HEIGHT, WIDTH).astype(np.int64)
