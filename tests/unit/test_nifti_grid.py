"""NIfTI and MGH against independent readers, over a grid of what a file may be.

SimpleITK shares no code with Scanomaly: it has a parser of its own, in C, and turns volumes by itself. It reads
neither NIfTI-2 nor MGH, has no orientation for 2-D images, and another one where a header has none: there nibabel
alone is asked, whose reading of values and whose turning of volumes are not what Scanomaly uses.
"""

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from tests.unit.test_nifti import AUTO, PLANES, of_patient, scaled, shown, turned

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = (5, 6, 7)
NUMBERS = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
MGH_NUMBERS = ["u1", "i4", "f4", "i2", "u2"]
RESCALES = [None, (0.0, 9.0), (0.25, -7.5), (-3.0, 40.0), (1.0, -1024.0)]
SHAPES = [(5, 6, 7), (5, 6, 7, 3), (5, 6, 7, 1, 2), (5, 6), (5, 6, 1), (1, 6, 7)]
CODES = ["".join(code) for code in itertools.product("LR", "AP", "SI")]
CODES = ["".join(order) for code in CODES for order in itertools.permutations(code)]
FORMS = ["sform", "qform", "sform", "qform", "none"]
TURNS = [np.eye(4), turned(17, 0), turned(-33, 1), turned(25, 2) @ turned(12, 0)]


class File(NamedTuple):
    """One cell of the grid, but for its kind and its type of values."""

    order: str
    rescale: tuple[float, float] | None
    packed: bool
    shape: tuple[int, ...]
    affine: np.ndarray
    form: str
    """Which of the header's forms has the orientation: `sform`, `qform`, or `none`."""


def files(start: int) -> Iterator[File]:
    """Each order with each rescale, with and without gzip; of the rest what comes in turn, all in ten starts."""
    grid = list(itertools.product("<>", RESCALES, (False, True)))
    for number, (order, rescale, packed) in enumerate(grid, start * len(grid)):
        turn, code = divmod(number, len(CODES))
        axes = nib.orientations.axcodes2ornt(CODES[code])
        affine = TURNS[turn % len(TURNS)] @ nib.orientations.inv_ornt_aff(axes, SIZE)
        shape, form = SHAPES[(number + turn) % len(SHAPES)], FORMS[number % len(FORMS)]
        yield File(order, rescale, packed, shape, affine, form)


def write(kind: Any, file: File, values: np.ndarray) -> bytes:
    header = kind.header_class(endianness=file.order)
    header.set_data_dtype(values.dtype.newbyteorder(file.order) if values.dtype.names is None else values.dtype)
    image = kind(values, None, header, dtype=header.get_data_dtype())
    image.set_sform(file.affine, 1 if file.form == "sform" else 0)
    image.set_qform(file.affine, 1 if file.form == "qform" else 0)
    data = bytearray(image.to_bytes())
    size = header.template_dtype.itemsize
    stored = kind.header_class(bytes(data[:size]), file.order, check=False)
    assert stored.endianness == file.order
    if file.rescale is not None:
        stored["scl_slope"], stored["scl_inter"] = file.rescale
    data[:size] = stored.structarr.tobytes()
    return gzip.compress(bytes(data), 1) if file.packed else bytes(data)


def by_nibabel(path: Path, band: str | None = None) -> np.ndarray:
    """The first volume in RAS+, or a band of it."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    values = values if band is None else values[band]
    values = values.reshape(*values.shape[:3], -1)[..., 0] if values.ndim > 3 else values
    values = values[..., None] if values.ndim == 2 else values
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(values.astype(float), image.affine)).dataobj)


def by_simpleitk(path: Path) -> np.ndarray:
    """The same."""
    image = SimpleITK.ReadImage(path)
    while image.GetDimension() > 3:
        image = SimpleITK.Extract(image, (*image.GetSize()[:-1], 0))
    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(image, "RAS")), float).swapaxes(0, 2)


def compare(path: Path, values: np.ndarray) -> None:
    """Each plane's middle slice, by the scale of the volume."""
    data, ends = path.read_bytes(), np.percentile(values, (0.5, 99.5))
    for plane, axis in PLANES.items():
        index = values.shape[axis] // 2
        right = scaled(of_patient(values, plane, index), *ends)
        assert np.abs(shown(data, f"{plane}/{index}", AUTO)[..., 0] - right).max() <= 1, plane


@pytest.mark.parametrize("code", NUMBERS)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_numbers(kind: Any, code: str, tmp_path: Path) -> None:
    start = NUMBERS.index(code)
    random, least = np.random.default_rng(start), {"u": 0, "i": -100, "f": -100}[code[0]]
    for number, file in enumerate(files(start)):
        values = random.integers(least, 120 if code[1] == "1" else 3000, file.shape).astype(code)
        path = tmp_path / (f"{number}.nii.gz" if file.packed else f"{number}.nii")
        path.write_bytes(write(kind, file, values))
        compare(path, by_nibabel(path))
        if kind is nib.Nifti1Image and len(file.shape) > 2 and file.form != "none":
            compare(path, by_simpleitk(path))


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_colours(kind: Any, bands: int, tmp_path: Path) -> None:
    dtype = np.dtype([(letter, "u1") for letter in "RGBA"[:bands]])
    for number, file in enumerate(files(bands)):
        values = np.random.default_rng(number).integers(0, 256, (*file.shape, bands)).astype(np.uint8)
        path = tmp_path / (f"{number}.nii.gz" if file.packed else f"{number}.nii")
        path.write_bytes(write(kind, file._replace(rescale=None), values.view(dtype)[..., 0]))
        expected = np.stack([by_nibabel(path, band) for band in "RGB"], axis=-1)
        for plane, axis in PLANES.items():
            index = expected.shape[axis] // 2
            right = np.stack([of_patient(expected[..., band], plane, index) for band in range(3)], axis=-1)
            assert np.array_equal(shown(path.read_bytes(), f"{plane}/{index}"), right)


@pytest.mark.parametrize("code", MGH_NUMBERS)
def test_mgh(code: str, tmp_path: Path) -> None:
    for number, file in enumerate(files(MGH_NUMBERS.index(code))):
        if len(file.shape) > 4:
            continue
        values = np.random.default_rng(number).integers(0, 250, file.shape).astype(f">{code}")
        values = values if values.ndim > 2 else values[..., None]
        data = nib.MGHImage(values, file.affine).to_bytes()
        path = tmp_path / (f"{number}.mgz" if file.packed else f"{number}.mgh")
        path.write_bytes(gzip.compress(data, 1) if file.packed else data)
        compare(path, by_nibabel(path))
