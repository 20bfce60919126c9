"""DICOM: how many slices a second become pictures, beside pydicom alone, and how much of it the pipeline leaves.

The slices look like those of a CT: a body with soft tissue and bones in air, noise, 16 bits, 12 of them used. Each
is written uncompressed, as JPEG 2000 without loss, and by run lengths (RLE).
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanomaly.models.intensity import Intensity
from scanomaly.models.records import BatchScan
from scanomaly.models.settings import usable_cores
from scanomaly.worker.encoding.files import ScanFiles
from scanomaly.worker.encoding.formats.opening import open_content
from scanomaly.worker.encoding.pipeline import Pipeline
from scanomaly.worker.encoding.places import LocalFolder

from .table import Row, row_of_rounds

_SIDE = 512
_SLOPE, _INTERCEPT = 1, -1024
_CENTRE, _WIDTH = 40, 400
_MAX_PIXELS = 100_000_000


def rows(slices: int, rounds: int) -> Iterator[Row]:
    """The rows of the group.

    Args:
        slices: how many are drawn of each kind.
        rounds: how often both sides are measured, in turn.
    """
    kinds = files(slices)
    for kind, contents in kinds.items():
        yield _decoding(kind, contents, rounds)
    for kind, contents in kinds.items():
        yield _throughput(kind, contents, rounds)


def files(slices: int) -> dict[str, list[bytes]]:
    """DICOM files by the way that their pixels are stored; the same slices in each.

    Args:
        slices: how many of each.
    """
    from pydicom.uid import JPEG2000Lossless, RLELossless

    found: dict[str, list[bytes]] = {"uncompressed": [], "JPEG 2000 lossless": [], "RLE": []}
    for number in range(slices):
        values = draw_slice(number, slices)
        found["uncompressed"].append(_file(values, number))
        found["JPEG 2000 lossless"].append(_file(values, number, JPEG2000Lossless))
        found["RLE"].append(_file(values, number, RLELossless))
    return found


def draw_slice(number: int, slices: int) -> NDArray[np.uint16]:
    """A slice of a body: Hounsfield units + 1024, 512 × 512.

    Args:
        number: from 0, its place along the body.
        slices: how many there are.
    """
    random = np.random.default_rng(number)
    down, across = (np.mgrid[:_SIDE, :_SIDE] - _SIDE / 2) / (_SIDE / 2)
    along = number / max(1, slices - 1)
    units = np.full((_SIDE, _SIDE), -1000.0)
    parts = (  # half height, half width, centre down, centre across, Hounsfield units
        (0.65, 0.85 - 0.1 * along, 0.0, 0.0, 40),
        (0.35, 0.25, -0.05, -0.38, -800),
        (0.35, 0.25, -0.05, 0.38, -800),
        (0.10, 0.12, 0.45, 0.0, 700),
        (0.15, 0.20 + 0.1 * along, -0.2, 0.1, 120),
    )
    for high, wide, centre_down, centre_across, value in parts:
        inside = ((down - centre_down) / high) ** 2 + ((across - centre_across) / wide) ** 2 < 1
        units[inside] = value
    return np.clip(units + random.normal(0, 20, units.shape) - _INTERCEPT, 0, 4095).astype(np.uint16)


def _file(values: NDArray[np.uint16], number: int, syntax: str | None = None) -> bytes:
    import imagecodecs
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.PatientID = "bench"
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["bench"])
    dataset.InstanceNumber = number + 1
    dataset.Rows, dataset.Columns = values.shape
    dataset.PixelSpacing = [0.7, 0.7]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = _SLOPE, _INTERCEPT
    dataset.WindowCenter, dataset.WindowWidth = _CENTRE, _WIDTH
    dataset.PixelData = values.astype("<u2").tobytes()
    if syntax == JPEG2000Lossless:
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        codestream = imagecodecs.jpeg2k_encode(values, codecformat="j2k", bitspersample=12, reversible=True)
        dataset.PixelData = encapsulate([codestream])
    elif syntax is not None:
        dataset.compress(syntax)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _decoding(kind: str, contents: Sequence[bytes], rounds: int) -> Row:
    """One thread, no encoder and no store: from bytes to RGB."""
    rates: dict[Callable[[bytes], object], list[float]] = {_picture: [], _pydicom_picture: []}
    for number in range(-1, rounds):  # the round before the first loads the libraries
        for read, found in rates.items():
            begun = time.perf_counter()
            for content in contents:
                read(content)
            if number >= 0:
                found.append(len(contents) / (time.perf_counter() - begun))
    return row_of_rounds(
        f"decoding DICOM, {_SIDE} × {_SIDE}, {kind}",
        "pydicom alone",
        "files/s",
        rates[_picture],
        rates[_pydicom_picture],
    )


def _throughput(kind: str, contents: Sequence[bytes], rounds: int) -> Row:
    """The worker's pipeline with an encoder that costs nothing, beside the same number of threads that only decode.

    What the pipeline does more: it finds and reads files, digests them, measures traits, and hands over.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    threads = usable_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ThreadPoolExecutor(threads) as pool:
        for number, content in enumerate(contents):
            (Path(folder) / f"{number}.dcm").write_bytes(content)
        scans = [BatchScan(number, f"{number}.dcm") for number in range(len(contents))]
        files = ScanFiles(LocalFolder(Path(folder), False, 1 << 30), 1 << 30)
        for number in range(-1, rounds):
            pipeline = Pipeline(_Costless, threads, _MAX_PIXELS, 1 << 30)
            begun = time.perf_counter()
            with pipeline.embedded(scans, files, lambda sha256: False) as embedded:
                assert len(embedded.vectors) == len(contents)
            ours = time.perf_counter() - begun
            pipeline.close()
            begun = time.perf_counter()
            list(pool.map(_picture, contents))
            theirs = time.perf_counter() - begun
            if number >= 0:
                rates[0].append(len(contents) / ours)
                rates[1].append(len(contents) / theirs)
    return row_of_rounds(
        f"pipeline, DICOM {_SIDE} × {_SIDE}, {kind}", "decoding alone", "files/s", *rates, goal="≥ 0.9"
    )


class _Costless:
    """An encoder that looks at no pixel. On a GPU, for the pipeline: it does not take turns with the decoding."""

    key = "costless"
    dimension = 4
    device = "cuda"
    image_size = (224, 224)

    def preprocess(self, image: object) -> NDArray[np.float32]:
        return np.zeros(4, np.float32)

    def encode(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.full((len(pixels), 4), 0.5, np.float32)


def _picture(content: bytes) -> object:
    opened = open_content(content, Intensity("auto"), _MAX_PIXELS, _no_limit, has_frames=False)
    return opened.picture(None, _no_limit)


def _pydicom_picture(content: bytes) -> object:
    """The same with what pydicom's documentation names for it, and the decoders that it chooses."""
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    dataset = dcmread(io.BytesIO(content))
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    shown -= shown.min()
    return Image.fromarray((shown * (255 / shown.max())).astype(np.uint8)).convert("RGB")


def _no_limit(*_: object) -> None:
    """Memory is no concern here."""
