"""NIfTI and MGH volumes: every slice as an independent reading has it, whatever way the file is stored."""

import contextlib
import gzip
import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scanomaly.models.intensity import Intensity, parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.content import EmptySlice
from scanomaly.worker.encoding.formats.nifti import is_nifti, open_nifti
from scanomaly.worker.encoding.images import ImageFailure

from ..waiting import HANGS

LIMIT = 1_000_000
AUTO = parse_intensity("auto")
MINMAX = parse_intensity("minmax")
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
BUNDLED = Path(nib.__file__).parent / "tests" / "data"
# pytest takes away the filters of nibabel's callers.
pytestmark = pytest.mark.filterwarnings("ignore")

RAS = np.random.default_rng(0).integers(-1000, 3000, (5, 6, 7)).astype(np.int16)
"""Indices grow to the patient's right, front and head."""


def nothing(*_: object) -> None:
    pass


def volume(
    values: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image, **header: object
) -> bytes:
    image = kind(values, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def patched(data: bytes, kind: type = nib.Nifti1Header, **fields: object) -> bytes:
    """A file with other values in its header, which nibabel would not write."""
    size = kind.template_dtype.itemsize
    header = kind(data[:size], check=False)
    for name, value in fields.items():
        header.structarr[name] = value
    return header.structarr.tobytes() + data[size:]


def shown(data: bytes, frame: str | None, intensity: Intensity = AUTO, limit: int = LIMIT) -> np.ndarray:
    image = open_nifti(data, intensity, limit, nothing).picture(frame, nothing)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(data: bytes, frame: str | None, intensity: Intensity = AUTO, limit: int = LIMIT) -> np.ndarray:
    pixels = shown(data, frame, intensity, limit)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def failure(data: bytes, frame: str | None = "axial/0", limit: int = LIMIT) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        open_nifti(data, AUTO, limit, nothing).picture(frame, nothing)
    assert caught.value.detail.endswith(".")
    assert "\n" not in caught.value.detail
    return caught.value


def of_patient(values: np.ndarray, plane: str, index: int) -> np.ndarray:
    """A slice of a volume in RAS+, as radiologists see it."""
    part = np.take(values, index, axis=PLANES[plane])
    return part.T[::-1, ::-1]


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) * (255 / (high - low)), 0, 255)


def turned(degrees: float, axis: int) -> np.ndarray:
    affine = np.eye(4)
    one, other = (number for number in range(3) if number != axis)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine[[one, one, other, other], [one, other, one, other]] = cosine, -sine, sine, cosine
    return affine


def stored(values: np.ndarray, code: str, turn: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A volume in RAS+ as a file of another orientation has it, and the file's affine."""
    axes_of = nib.orientations.axcodes2ornt
    way = nib.orientations.ornt_transform(axes_of("RAS"), axes_of(code))
    image = nib.Nifti1Image(values, np.eye(4) if turn is None else turn).as_reoriented(way)
    assert nib.aff2axcodes(image.affine) == tuple(code)
    return np.asarray(image.dataobj), image.affine


CODES = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]


class TestOrientation:
    @pytest.mark.parametrize("code", CODES)
    def test_all_48(self, code: str) -> None:
        data = volume(*stored(RAS, code))
        for plane, axis in PLANES.items():
            for index in range(RAS.shape[axis]):
                expected = scaled(of_patient(RAS, plane, index), RAS.min(), RAS.max())
                assert np.abs(grey(data, f"{plane}/{index}", MINMAX) - expected).max() <= 1

    @pytest.mark.parametrize("code", ["RAS", "LPS", "ASL", "ILP"])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("degrees", [-30, 20])
    def test_oblique(self, code: str, axis: int, degrees: float) -> None:
        data = volume(*stored(RAS, code, turned(degrees, axis)))
        for plane in PLANES:
            expected = scaled(of_patient(RAS, plane, 3), RAS.min(), RAS.max())
            assert np.abs(grey(data, f"{plane}/3", MINMAX) - expected).max() <= 1

    @pytest.mark.parametrize("code", ["RAS", "LPI", "SRP"])
    def test_a_mark_is_where_radiologists_look_for_it(self, code: str) -> None:
        """To the right, at the front, at the head: by what the affine says of the mark's millimetres."""
        values = np.zeros((20, 22, 24), np.int16)
        values[16:19, 17:21, 18:23] = 100
        data = volume(*stored(values, code))
        for plane, index in (("axial", 20), ("coronal", 19), ("sagittal", 17)):
            pixels = grey(data, f"{plane}/{index:02}", MINMAX)
            middle_row, middle_column = pixels.shape[0] // 2, pixels.shape[1] // 2
            assert pixels[:middle_row, :middle_column].max() == 255
            assert pixels[middle_row:].max() == pixels[:, middle_column:].max() == 0
            with pytest.raises(EmptySlice):
                shown(data, f"{plane}/03", MINMAX)

    def test_the_quaternion_is_read_where_no_affine_is(self) -> None:
        values, affine = stored(RAS, "ASL", turned(20, 1))
        image = nib.Nifti1Image(values, None)
        image.header.set_qform(affine, code=1)
        image.header["sform_code"] = 0
        data = patched(image.to_bytes(), sform_code=0, qform_code=1)
        expected = scaled(of_patient(RAS, "coronal", 2), RAS.min(), RAS.max())
        assert np.abs(grey(data, "coronal/2", MINMAX) - expected).max() <= 1

    @pytest.mark.parametrize("pixdim", [[0, 1, 1, 1], [-1, 1, 1, 1], [1, -1, 1, 1], [7, 1, 1, -1]], ids=str)
    def test_odd_signs_are_read_as_nibabel_does(self, pixdim: list[float]) -> None:
        """It mends the quaternion's sign and negative sizes."""
        data = patched(volume(RAS), sform_code=0, qform_code=1, pixdim=[*pixdim, 1, 1, 1, 1])
        expected = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(data)).get_fdata()
        expected = scaled(of_patient(expected, "axial", 2), RAS.min(), RAS.max())
        assert np.abs(grey(data, "axial/2", MINMAX) - expected).max() <= 1

    def test_neither_is_read_as_nibabel_does(self) -> None:
        data = patched(volume(RAS), sform_code=0, qform_code=0)
        expected = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(data)).get_fdata()
        expected = scaled(of_patient(expected, "axial", 2), RAS.min(), RAS.max())
        assert np.abs(grey(data, "axial/2", MINMAX) - expected).max() <= 1

    def test_no_frame_is_the_middle_axial_slice(self) -> None:
        data = volume(*stored(RAS, "LSA"))
        assert np.array_equal(shown(data, None), shown(data, "axial/3"))

    @pytest.mark.parametrize(
        "frame",
        ["axial/7", "coronal/6", "sagittal/5", "axial/-1", "axial/", "frame/1", "axial/1/1", "axial/" + "9" * 5000],
    )
    def test_no_such_slice(self, frame: str) -> None:
        assert failure(volume(RAS), frame).kind is FailureKind.MISSING


class TestFiles:
    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
    @pytest.mark.parametrize("packed", [False, True])
    def test_kinds(self, kind: type, packed: bool) -> None:
        data = volume(*stored(RAS, "PIR"), kind)
        data = gzip.compress(data) if packed else data
        assert is_nifti(data)
        expected = scaled(of_patient(RAS, "sagittal", 1), RAS.min(), RAS.max())
        assert np.abs(grey(data, "sagittal/1", MINMAX) - expected).max() <= 1

    def test_a_series_shows_its_first_volume(self) -> None:
        data = volume(np.stack([RAS, RAS * 3, RAS * 5], axis=-1))
        expected = scaled(of_patient(RAS, "axial", 4), RAS.min(), RAS.max())
        for content in (data, gzip.compress(data), gzip.compress(data)[:-4]):
            assert np.abs(grey(content, "axial/4", MINMAX) - expected).max() <= 1

    def test_two_dimensions_are_one_slice(self) -> None:
        data = volume(RAS[:, :, 0])
        expected = scaled(of_patient(RAS[:, :, :1], "axial", 0), RAS[:, :, 0].min(), RAS[:, :, 0].max())
        assert np.abs(grey(data, "axial/0", MINMAX) - expected).max() <= 1
        assert failure(data, "axial/1").kind is FailureKind.MISSING

    def test_two_dimensions_without_a_third_size(self) -> None:
        affine = np.diag([2.0, 2.0, 0.0, 1.0])
        data = patched(volume(RAS[:, :, 0]), sform_code=1, srow_x=affine[0], srow_y=affine[1], srow_z=affine[2])
        expected = scaled(of_patient(RAS[:, :, :1], "axial", 0), RAS[:, :, 0].min(), RAS[:, :, 0].max())
        assert np.abs(grey(data, "axial/0", MINMAX) - expected).max() <= 1

    @pytest.mark.parametrize("bands", [3, 4])
    def test_colours_are_as_stored(self, bands: int) -> None:
        values = np.random.default_rng(1).integers(0, 256, (5, 6, 7, bands)).astype(np.uint8)
        dtype = np.dtype([(letter, "u1") for letter in "RGBA"[:bands]])
        data = volume(np.ascontiguousarray(values).view(dtype)[..., 0])
        for plane in PLANES:
            part = np.take(values, 2, axis=PLANES[plane])[..., :3]
            expected = part.transpose(1, 0, 2)[::-1, ::-1]
            assert np.array_equal(shown(data, f"{plane}/2"), expected)

    def test_several_gzip_members_and_rubbish_after_them(self) -> None:
        data = volume(RAS)
        packed = b"".join(gzip.compress(data[at : at + 100]) for at in range(0, len(data), 100))
        for content in (
            packed,
            packed + b"\0" * 512,
            gzip.compress(data) + b"rubbish",
            gzip.compress(data + b"\0" * 99),
        ):
            assert is_nifti(content)
            assert np.array_equal(shown(content, "axial/4"), shown(data, "axial/4"))

    def test_nothing_else_is_nifti(self) -> None:
        for data in (
            b"",
            b"\x1f\x8b",
            b"\x1f\x8b" + b"\0" * 99,
            gzip.compress(b"text"),
            b"\0" * 1000,
            b"\x5c\1\0\0",
        ):
            assert not is_nifti(data)


class TestScale:
    def test_percentiles_of_the_volume(self) -> None:
        expected = scaled(of_patient(RAS, "axial", 4), *np.percentile(RAS.astype(float), (0.5, 99.5)))
        assert np.abs(grey(volume(RAS), "axial/4") - expected).max() <= 1

    def test_slope_and_intercept(self) -> None:
        values = RAS * 0.25 - 7
        image = nib.Nifti1Image(values, np.eye(4))
        image.header.set_data_dtype(np.int16)
        data = patched(volume(RAS), scl_slope=-0.25, scl_inter=-7)
        read = nib.Nifti1Image.from_bytes(data).get_fdata()
        assert np.allclose(read, RAS * -0.25 - 7)
        expected = scaled(of_patient(read, "axial", 4), *np.percentile(read, (0.5, 99.5)))
        assert np.abs(grey(data, "axial/4") - expected).max() <= 1
        window = scaled(of_patient(read, "axial", 4), -300, 99)
        assert np.abs(grey(data, "axial/4", parse_intensity("window:-100,400")) - window).max() <= 1

    def test_the_headers_range(self) -> None:
        data = volume(RAS, cal_min=-100, cal_max=900)
        expected = scaled(of_patient(RAS, "axial", 4), -100, 900)
        assert np.abs(grey(data, "axial/4") - expected).max() <= 1

    def test_values_that_are_not_finite(self) -> None:
        values = RAS.astype(np.float32)
        values[0, 0, 4], values[0, 1, 4], values[0, 2, 4] = np.nan, np.inf, -np.inf
        pixels = grey(volume(values), "axial/4")
        assert pixels[[-1, -2, -3], -1].tolist() == [0, 255, 0]

    def test_nothing_finite(self) -> None:
        assert failure(volume(np.full((4, 4, 4), np.nan, np.float32))).kind is FailureKind.NOT_AN_IMAGE


class TestEmptySlices:
    values = np.concatenate([np.zeros((40, 40, 1)), RAS.max() * np.ones((40, 40, 3))], axis=2).astype(np.int16)

    def test_are_told(self) -> None:
        data = volume(self.values)
        with pytest.raises(EmptySlice) as caught:
            shown(data, "axial/0", MINMAX)
        assert caught.value.detail.endswith(".")
        assert grey(data, "axial/1", MINMAX).min() == 255

    def test_of_colours(self) -> None:
        values = np.zeros((40, 40, 2, 3), np.uint8)
        values[:, :, 1, 2] = 200
        data = volume(values.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0])
        with pytest.raises(EmptySlice):
            shown(data, "axial/0")
        assert shown(data, "axial/1")[0, 0].tolist() == [0, 0, 200]

    def test_not_of_one_slice(self) -> None:
        assert grey(volume(self.values[:, :, :1]), "axial/0", MINMAX).max() == 0


class TestSquarePixels:
    def sizes(self, zooms: tuple[float, float, float], limit: int = LIMIT) -> dict[str, tuple[int, int]]:
        """Width and height in each plane, of 40 × 30 × 20 voxels."""
        data = volume(np.random.default_rng(0).integers(0, 99, (40, 30, 20)).astype(np.uint8), np.diag((*zooms, 1)))
        return {plane: shown(data, f"{plane}/9", MINMAX, limit).shape[1::-1] for plane in PLANES}

    @pytest.mark.parametrize(
        ("zooms", "axial", "coronal", "sagittal"),
        [
            ((1, 1, 1), (40, 30), (40, 20), (30, 20)),
            ((2, 2, 2.01), (40, 30), (40, 20), (30, 20)),
            ((1, 1, 5), (40, 30), (40, 100), (30, 100)),
            ((1, 2, 1), (40, 60), (40, 20), (60, 20)),
            ((0.5, 0.5, 10), (40, 30), (20, 200), (15, 200)),  # tenfold, and the rest by halving the other side
            ((1, 1, 1000), (40, 30), (40, 20), (30, 20)),  # was not meant
        ],
    )
    def test_sizes(
        self,
        zooms: tuple[float, float, float],
        axial: tuple[int, int],
        coronal: tuple[int, int],
        sagittal: tuple[int, int],
    ) -> None:
        assert self.sizes(zooms) == {"axial": axial, "coronal": coronal, "sagittal": sagittal}

    def test_never_more_pixels_than_allowed(self) -> None:
        for limit in (1200, 1201, 1999, 3999):
            for zooms in ((1, 1, 9.5), (1, 90, 1), (0.013, 1, 1)):
                for width, height in self.sizes(zooms, limit).values():
                    assert 0 < width * height <= limit

    def test_what_is_announced_is_what_comes(self) -> None:
        told: list[tuple[int, int]] = []
        content = open_nifti(volume(RAS, np.diag([1, 1, 4, 1])), AUTO, LIMIT, nothing)
        image = content.picture("coronal/2", lambda size, need: told.append(size))
        assert told == [image.size] == [(5, 28)]
        assert content.format == image.format == "NIfTI"

    def test_announcing_may_refuse(self) -> None:
        def refuse(size: tuple[int, int], need: int) -> None:
            raise ImageFailure(FailureKind.TOO_LARGE, "No.")

        with pytest.raises(ImageFailure, match="No"):
            open_nifti(volume(RAS), AUTO, LIMIT, nothing).picture("axial/1", refuse)


SECRET = "Doe^Jane"
WHOLE = volume(RAS, descrip=SECRET, aux_file=SECRET, intent_name=SECRET, db_name=SECRET)
BAD = {
    "header alone": (WHOLE[:352], FailureKind.TRUNCATED),
    "half a header of NIfTI-2": (volume(RAS, kind=nib.Nifti2Image)[:400], FailureKind.TRUNCATED),
    "cut": (WHOLE[:-1], FailureKind.TRUNCATED),
    "cut gzip": (gzip.compress(WHOLE)[:-200], FailureKind.TRUNCATED),
    "gzip without its end": (gzip.compress(WHOLE)[:-4], FailureKind.TRUNCATED),
    "gzip with another checksum": (gzip.compress(WHOLE)[:-8] + b"\0" * 8, FailureKind.TRUNCATED),
    "gzip of a cut file": (gzip.compress(WHOLE[:-1]), FailureKind.TRUNCATED),
    "negative dimension": (patched(WHOLE, dim=[3, 5, -6, 7, 1, 1, 1, 1]), FailureKind.NOT_AN_IMAGE),
    "dimension of zero": (patched(WHOLE, dim=[3, 5, 0, 7, 1, 1, 1, 1]), FailureKind.NOT_AN_IMAGE),
    "one dimension": (patched(WHOLE, dim=[1, 5, 1, 1, 1, 1, 1, 1]), FailureKind.NOT_AN_IMAGE),
    "large dimensions": (patched(WHOLE, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), FailureKind.TRUNCATED),
    "large in gzip": (
        gzip.compress(patched(WHOLE, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])),
        FailureKind.TRUNCATED,
    ),
    "huge in NIfTI-2": (
        patched(volume(RAS, kind=nib.Nifti2Image), nib.Nifti2Header, dim=[3, 2**62, 2**62, 2**62, 1, 1, 1, 1]),
        FailureKind.TRUNCATED,
    ),
    "offset behind the end": (patched(WHOLE, vox_offset=1e9), FailureKind.TRUNCATED),
    "unknown type": (patched(WHOLE, datatype=77), FailureKind.UNSUPPORTED),
    "bits": (patched(WHOLE, datatype=1), FailureKind.UNSUPPORTED),
    "float128": (patched(WHOLE, datatype=1536), FailureKind.UNSUPPORTED),
    "complex": (volume(RAS.astype(np.complex64)), FailureKind.UNSUPPORTED),
    "half of a pair": (patched(WHOLE, magic=b"ni1"), FailureKind.UNSUPPORTED),
}


class TestBadFiles:
    @pytest.mark.parametrize("name", BAD)
    def test_has_an_answer(self, name: str) -> None:
        data, kind = BAD[name]
        assert is_nifti(data)
        bad = failure(data)
        assert bad.kind is kind
        assert SECRET not in str(bad)

    def test_a_flat_affine_is_read(self) -> None:
        data = patched(WHOLE, srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4)
        assert grey(data, "axial/1").shape == (6, 5)

    def test_too_many_pixels(self) -> None:
        assert failure(WHOLE, "axial/1", 29).kind is FailureKind.TOO_LARGE
        assert grey(WHOLE, "axial/1", AUTO, 30).shape == (6, 5)

    def test_memory_is_asked_for_before_it_is_taken(self) -> None:
        """A gigabyte of zeros, in a megabyte."""
        header = patched(volume(np.zeros((4, 4, 4), np.uint8)), dim=[3, 1024, 1024, 1024, 1, 1, 1, 1])[:352]
        bomb = gzip.compress(header) + gzip.compress(b"\0" * 10_000_000) * 108
        asked: list[int] = []

        def refuse(size: int) -> None:
            asked.append(size)
            if size > 100_000_000:
                raise ImageFailure(FailureKind.TOO_LARGE, "No.")

        with pytest.raises(ImageFailure, match="No"):
            open_nifti(bomb, AUTO, 10**8, refuse)
        assert asked[-1] == 1024**3 + 352

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
    @pytest.mark.parametrize("packed", [False, True])
    def test_random_damage_gives_pixels_or_a_failure(self, kind: type, packed: bool) -> None:
        whole = volume(*stored(RAS, "PIR", turned(10, 1)), kind)
        size = min(560, len(whole))
        random = np.random.default_rng(2)
        for turn in range(150):
            damaged = bytearray(whole)
            for place in random.integers(0, size if turn % 3 else len(whole), 4):
                damaged[place] = random.integers(0, 256)
            if turn % 7 == 0:
                del damaged[random.integers(1, len(damaged)) :]
            data = bytes(damaged)
            if packed:
                data = bytearray(gzip.compress(data, 1))
                if turn % 2:
                    data[random.integers(2, len(data))] ^= 1 << random.integers(0, 8)
                data = bytes(data)
            if is_nifti(data):
                with contextlib.suppress(ImageFailure, EmptySlice):  # any other exception fails the test
                    content = open_nifti(data, AUTO, LIMIT, nothing)
                    for frame in ("axial/3", "coronal/3", "sagittal/3"):
                        with contextlib.suppress(ImageFailure, EmptySlice):
                            assert content.picture(frame, nothing).mode == "RGB"


#: nibabel's own files that are NIfTI or MGH, and what comes of them.
OWN_FILES: dict[str, FailureKind | None] = {
    "anatomical.nii": None,
    "example4d.nii.gz": None,
    "example_nifti2.nii.gz": None,
    "functional.nii": None,
    "nifti1.hdr": FailureKind.UNSUPPORTED,
    "nifti2.hdr": FailureKind.UNSUPPORTED,
    "reoriented_anat_moved.nii": None,
    "resampled_anat_moved.nii": None,
    "row_major.dconn.nii": FailureKind.UNSUPPORTED,
    "standard.nii.gz": None,
    "test.mgz": None,
}


class TestNibabelsOwnFiles:
    def test_none_is_left_out(self) -> None:
        found = {path.name for path in BUNDLED.iterdir() if path.is_file() and is_nifti(path.read_bytes())}
        assert found == set(OWN_FILES)

    @pytest.mark.parametrize("name", [name for name, kind in OWN_FILES.items() if kind is None])
    def test_slices_are_those_of_an_independent_reading(self, name: str) -> None:
        image = nib.load(BUNDLED / name)
        values = nib.as_closest_canonical(image).get_fdata()
        values = values[..., 0] if values.ndim == 4 else values
        zooms = nib.affines.voxel_sizes(nib.as_closest_canonical(image).affine)
        header = image.header
        low, high = np.nanpercentile(values, (0.5, 99.5))
        if "cal_max" in header and header["cal_max"] > header["cal_min"]:
            low, high = float(header["cal_min"]), float(header["cal_max"])
        data = (BUNDLED / name).read_bytes()
        seen = 0
        for plane, axis in PLANES.items():
            across = [zooms[other] for other in range(3) if other != axis]
            for index in range(0, values.shape[axis], 5):
                expected = np.nan_to_num(scaled(of_patient(values, plane, index), low, high))
                try:
                    pixels = grey(data, f"{plane}/{index}")
                except EmptySlice:
                    assert (np.rint(expected) > 10).mean() <= 0.005
                    continue
                seen += 1
                if max(across) <= 1.01 * min(across):
                    assert np.abs(pixels - expected).max() <= 1
                else:
                    assert pixels.shape != expected.shape
        assert seen > 0 or np.ptp(values) == 0

    @pytest.mark.parametrize("name", [name for name, kind in OWN_FILES.items() if kind])
    def test_what_is_not_read(self, name: str) -> None:
        assert failure((BUNDLED / name).read_bytes()).kind is OWN_FILES[name]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("code", ["i2", "f4"])
def test_a_volume_costs_its_size_once(tmp_path: Path, name: str, code: str) -> None:
    """And nothing when it is not gzipped; what is reserved is an upper bound. In a process of its own."""
    values = np.zeros((512, 512, 300 if code == "i2" else 150), code, order="F")
    values[100:400, 100:400] = (np.arange(300) % 97)[:, None, None]
    header = volume(np.zeros((1, 1, 1), code))[:352]
    data = patched(header, dim=[3, *values.shape, 1, 1, 1, 1]) + values.tobytes(order="F")
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    program = """
        import re, sys
        from pathlib import Path
        from scanomaly.models.intensity import parse_intensity
        from scanomaly.worker.encoding.formats.nifti import open_nifti
        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        import nibabel, numpy.linalg
        data = Path(sys.argv[1]).read_bytes()
        said, told = [], []
        before = peak()
        content = open_nifti(data, parse_intensity("auto"), 10**8, said.append)
        for frame in ("axial/100", "coronal/200", "sagittal/150"):
            content.picture(frame, lambda size, need: told.append(need))
        print(sum(said) + max(told), peak() - before)
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    reserved, grown = map(int, result.stdout.split())
    volume_bytes = values.nbytes if name.endswith("gz") else 0
    assert grown <= reserved
    assert grown <= volume_bytes + 64 * 1024**2
