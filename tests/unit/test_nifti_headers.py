"""Headers of NIfTI and MGH that hold nonsense: what is optional never costs the picture.

Submitter and worker read a header through one function; here both are asked. Right is what nibabel reads from the
same values beside a sound header.
"""

import contextlib
import gzip
import io
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scanomaly.models.intensity import parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.producer.discover.headers import look
from scanomaly.producer.discover.pseudonyms import Pseudonyms
from scanomaly.producer.discover.slices import Plane, Slices
from scanomaly.worker.encoding.formats.opening import open_content
from scanomaly.worker.encoding.images import ImageFailure
from tests.unit.test_nifti import AUTO, LIMIT, MINMAX, RAS, of_patient, patched, scaled, shown, stored, volume

CASES = Path(__file__).parents[3] / "shared" / "cases"
NEAR_RAS = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([2.0, 2.0, 2.0]))
ALL_KINDS = pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])


def frames(data: bytes, name: str = "a.nii", plane: Plane = "axial") -> list[str]:
    """What the submitter makes of a file."""
    return list(look(name, lambda: io.BytesIO(data), Slices(plane), Pseudonyms(b"key")).frames)


def agree(data: bytes, expected: np.ndarray, name: str = "a.nii") -> None:
    """Submitter and worker have the slices of a volume in RAS+, shape (width, height, depth), plain and gzipped."""
    for content in (data, gzip.compress(data, 1)):
        found = frames(content, name)
        assert found == [f"axial/{index}" for index in range(expected.shape[2])]
        for index, frame in enumerate(found):
            right = scaled(of_patient(expected.astype(float), "axial", index), expected.min(), expected.max())
            assert np.abs(shown(content, frame, MINMAX)[..., 0] - right).max() <= 1


def canonical(data: bytes, kind: type = nib.Nifti1Image) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(kind.from_bytes(data)).dataobj)


def quaternion(affine: np.ndarray, times: float = 1.0, kind: type = nib.Nifti1Image, **fields: object) -> bytes:
    """A file with a qform alone, whose quaternion has `times` the length that it should have."""
    image = kind(RAS, None)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    parts = {name: float(image.header[name]) * times for name in ("quatern_b", "quatern_c", "quatern_d")}
    return patched(image.to_bytes(), kind.header_class, **(parts | fields))


#: A turn by 180 degrees about an oblique axis: the fourth part of its quaternion is 0.
HALF_TURN = nib.affines.from_matvec(nib.quaternions.quat2mat([0, 0, 0.6, 0.8]))


class TestOrientation:
    @ALL_KINDS
    @pytest.mark.parametrize("too_long", [1e-7, 4e-7, 1e-5, 1e-3, 4.0, 1e20])
    def test_a_quaternion_that_is_too_long(self, kind: type, too_long: float) -> None:
        expected = canonical(quaternion(HALF_TURN, 1 - 1e-6, kind), kind)
        agree(quaternion(HALF_TURN, 1 + too_long, kind), expected)

    @pytest.mark.parametrize("name", ["quatern_b", "quatern_c", "quatern_d"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_quaternion_that_is_none(self, name: str, value: float) -> None:
        neither = canonical(patched(volume(RAS), sform_code=0, qform_code=0))
        agree(quaternion(HALF_TURN, 1, **{name: value}), neither)

    @ALL_KINDS
    @pytest.mark.parametrize(
        "rows",
        [
            np.full((3, 4), np.nan),
            [[np.nan, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]],
            [[1, 0, 0, 0], [0, np.inf, 0, 0], [0, 0, 1, 0]],
            np.zeros((3, 4)),
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
            [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]],
            [[1e30, 1e30, 0, 0], [1e30, 1e30, 0, 0], [0, 0, 1e-30, 0]],
        ],
        ids=["nan", "nan in a row", "infinite", "zero", "flat", "singular", "singular and absurd"],
    )
    def test_an_affine_that_is_none(self, kind: type, rows: object) -> None:
        """The quaternion is read, and where there is none what nibabel takes without either."""
        srow = dict(zip(("srow_x", "srow_y", "srow_z"), np.asarray(rows, float), strict=True))
        sound = quaternion(HALF_TURN, kind=kind)
        agree(patched(sound, kind.header_class, sform_code=2, **srow), canonical(sound, kind))
        neither = patched(sound, kind.header_class, qform_code=0)
        agree(patched(neither, kind.header_class, sform_code=2, **srow), canonical(neither, kind))

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
    def test_a_place_that_is_none_turns_nothing(self, value: float) -> None:
        data, expected = volume(*stored(RAS, "PIL")), RAS
        agree(patched(data, srow_x=[*nib.Nifti1Image.from_bytes(data).affine[0, :3], value]), expected)
        agree(quaternion(HALF_TURN, qoffset_x=value, qoffset_z=value), canonical(quaternion(HALF_TURN)))

    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_absurd_sizes_turn_nothing(self, size: float) -> None:
        values, affine = stored(RAS, "SPL")
        agree(volume(values, affine @ np.diag([size, size, size, 1])), RAS)

    @pytest.mark.parametrize("codes", [(-3, 0), (77, 0), (77, 1), (0, -1), (9, 9)], ids=str)
    def test_codes_that_are_none(self, codes: tuple[int, int]) -> None:
        data = patched(quaternion(HALF_TURN), sform_code=codes[0], qform_code=codes[1])
        agree(data, canonical(data))

    @pytest.mark.parametrize("zoom", [0, -2.5, np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("axis", [1, 2, 3])
    @pytest.mark.parametrize("coded", [0, 1])
    def test_sizes_that_are_none(self, zoom: float, axis: int, coded: int) -> None:
        pixdim = np.array([1, 2.5, 2.5, 2.5, 0, 0, 0, 0])
        sound = quaternion(HALF_TURN, qform_code=coded, pixdim=pixdim)
        pixdim[axis] = zoom
        agree(quaternion(HALF_TURN, qform_code=coded, pixdim=pixdim), canonical(sound))

    @pytest.mark.parametrize("sign", [-1.0, -7.0, -np.inf])
    def test_the_sign_of_the_third_axis(self, sign: float) -> None:
        sound = quaternion(HALF_TURN, pixdim=[-1, 1, 1, 1, 1, 1, 1, 1])
        agree(quaternion(HALF_TURN, pixdim=[sign, 1, 1, 1, 1, 1, 1, 1]), canonical(sound))

    @pytest.mark.parametrize(
        "fields",
        [
            {"Mdc": np.full((3, 3), np.nan)},
            {"Mdc": np.zeros((3, 3))},
            {"Mdc": np.ones((3, 3))},
            {"goodRASFlag": 0},
            {"goodRASFlag": 0, "delta": [np.nan] * 3},
        ],
        ids=" ".join,
    )
    def test_of_mgh(self, fields: dict[str, object]) -> None:
        sound = volume(RAS, NEAR_RAS, nib.MGHImage)
        usual = canonical(mgh(sound, goodRASFlag=0), nib.MGHImage)
        agree(mgh(sound, **fields), usual, "a.mgz")

    @pytest.mark.parametrize("delta", [[np.nan, 1, 1], [2, np.inf, 2], [0, 0, 0]], ids=str)
    def test_sizes_of_mgh_that_are_none(self, delta: list[float]) -> None:
        sound = volume(*stored(RAS, "AIL"), nib.MGHImage)
        agree(mgh(sound, delta=delta), RAS, "a.mgz")


def mgh(data: bytes, **fields: object) -> bytes:
    size = nib.MGHImage.header_class._hdrdtype.itemsize
    header = np.frombuffer(data[:size], nib.MGHImage.header_class._hdrdtype).copy()
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + data[size:]


class TestPlace:
    @ALL_KINDS
    @pytest.mark.parametrize("stated", [0, 20, 347, -1, -1e9, np.nan, np.inf, -np.inf])
    def test_values_begin_behind_the_header_where_it_says_nothing(self, kind: type, stated: float) -> None:
        if kind is nib.Nifti2Image and not math.isfinite(stated):
            return  # there it is a whole number
        agree(patched(volume(RAS, kind=kind), kind.header_class, vox_offset=stated), RAS)

    @ALL_KINDS
    @pytest.mark.parametrize("more", [1, 4, 13, 16, 1000])
    def test_values_begin_where_it_says(self, kind: type, more: int) -> None:
        data, begin = volume(RAS, kind=kind), kind.header_class.template_dtype.itemsize + 4
        data = patched(data, kind.header_class, vox_offset=begin + more)
        agree(data[:begin] + b"x" * more + data[begin:], RAS)

    @pytest.mark.parametrize("size", [0, -8, 7, 24, 2**31 - 1])
    def test_a_size_of_extensions_means_nothing(self, size: int) -> None:
        data = patched(volume(RAS), vox_offset=400)
        extension = b"\1\0\0\0" + size.to_bytes(4, "little", signed=True) + b"\6\0\0\0" + b"x" * 40
        agree(data[:348] + extension + data[352:], RAS)


class TestDimensions:
    @ALL_KINDS
    @pytest.mark.parametrize(
        "dim",
        [
            [4, 5, 6, 7, 0, 0, 0, 0],
            [4, 5, 6, 7, 0, 9, -3, 30000],
            [5, 5, 6, 7, 0, 1, 1, 1],
            [7, 5, 6, 7, 1, 0, -1, 0],
            [3, 5, 6, 7, 0, 0, 0, 0],
            [3, 5, 6, 7, -1, 30000, -30000, 99],
            [0, 5, 6, 7, 1, 1, 1, 1],
            [0, 5, 6, 7, 0, 0, 0, 0],
            [99, 5, 6, 7, 1, 1, 1, 1],
            [-3, 5, 6, 7, 1, 1, 1, 1],
        ],
        ids=str,
    )
    def test_lengths_that_mean_nothing(self, kind: type, dim: list[int]) -> None:
        agree(patched(volume(RAS, kind=kind), kind.header_class, dim=dim), RAS)

    @pytest.mark.parametrize(
        "dim",
        [[2, 5, 6, 0, 0, 0, 0, 0], [2, 5, 6, 7, 7, 7, 7, 7], [2, 5, 6, -1, 0, 0, 0, 0], [3, 5, 6, 0, 0, 0, 0, 0]],
        ids=str,
    )
    def test_two_are_one_slice(self, dim: list[int]) -> None:
        agree(patched(volume(RAS), dim=dim), RAS[:, :, :1])

    @pytest.mark.parametrize(
        "dim", [[1, 5, 6, 7], [3, 0, 6, 7], [3, 5, 0, 7], [3, 5, 6, -7], [0, 0, 0, 0]], ids=str
    )
    def test_no_picture(self, dim: list[int]) -> None:
        failure = refused(patched(volume(RAS), dim=[*dim, 1, 1, 1, 1]))
        assert failure.kind is FailureKind.NOT_AN_IMAGE

    @pytest.mark.parametrize("volumes", [0, 1])
    def test_of_mgh(self, volumes: int) -> None:
        agree(mgh(volume(RAS, kind=nib.MGHImage), dims=[5, 6, 7, volumes]), RAS, "a.mgz")


class TestKind:
    @ALL_KINDS
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("size", [0, 1, 2**32 - 1, 352])
    def test_the_headers_size_means_nothing(self, kind: type, order: str, size: int) -> None:
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
        data = kind(RAS.astype(f"{order}i2"), np.eye(4), header).to_bytes()
        assert kind.header_class(data[: header.sizeof_hdr]).endianness == order
        agree(size.to_bytes(4, "little" if order == "<" else "big") + data[4:], RAS)

    @pytest.mark.parametrize("dimensions", [0, 77])
    def test_byte_order_without_a_number_of_dimensions(self, dimensions: int) -> None:
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(">i2")
        data = bytearray(nib.Nifti1Image(RAS.astype(">i2"), np.eye(4), header).to_bytes())
        data[40:42] = dimensions.to_bytes(2, "big")
        agree(bytes(data), RAS)
        data[:4] = bytes(4)
        agree(bytes(data), RAS)

    @pytest.mark.parametrize("last", [b"\0", b" ", b"\n", b"\xff"])
    def test_a_magic_without_its_end(self, last: bytes) -> None:
        data = volume(RAS)
        agree(data[:347] + last + data[348:], RAS)
        data = volume(RAS, kind=nib.Nifti2Image)
        agree(data[:7] + last + data[8:], RAS)
        agree(data[:7] + last + b"\0\0\0\0" + data[12:], RAS)

    @pytest.mark.parametrize("bits", [0, 8, 64, -1])
    def test_the_type_counts_not_the_number_of_bits(self, bits: int) -> None:
        agree(patched(volume(RAS), bitpix=bits), RAS)

    @pytest.mark.parametrize("name", ["A.NII", "A.NII.GZ", "a.Nii.gz", "A.MGZ", "a.mgh"])
    def test_a_name_decides_nothing(self, name: str) -> None:
        agree(volume(RAS), RAS, name)
        agree(volume(RAS, kind=nib.MGHImage), RAS, name)

    @pytest.mark.parametrize("cut", [1, 100, 347, 400])
    def test_members_of_gzip(self, cut: int) -> None:
        data = volume(RAS)
        for packed in (
            gzip.compress(data[:cut]) + gzip.compress(data[cut:]),
            gzip.compress(b"") + gzip.compress(data) + gzip.compress(b""),
            gzip.compress(data[:cut]) + gzip.compress(b"") + gzip.compress(data[cut:]) + b"\0" * 600,
            gzip.compress(data) + b"\x1frubbish",
        ):
            assert frames(packed) == frames(data)
            assert np.array_equal(shown(packed, "axial/3"), shown(data, "axial/3"))

    @pytest.mark.parametrize(
        ("code", "name"),
        [(0, "none"), (1, "binary"), (32, "complex64"), (1536, "float128"), (1792, "complex128"), (77, "77")],
    )
    @ALL_KINDS
    def test_what_is_not_read_is_named(self, kind: type, code: int, name: str) -> None:
        failure = refused(patched(volume(RAS, kind=kind), kind.header_class, datatype=code))
        assert failure.kind is FailureKind.UNSUPPORTED
        assert name in failure.detail

    @pytest.mark.parametrize(("code", "name"), [(2, "long"), (5, "bitmap"), (6, "tensor"), (9, "rgb")])
    def test_what_is_not_read_of_mgh_is_named(self, code: int, name: str) -> None:
        failure = refused(mgh(volume(RAS, kind=nib.MGHImage), type=code))
        assert failure.kind is FailureKind.UNSUPPORTED
        assert name in failure.detail

    @pytest.mark.parametrize("dim", [[3, -1, 1, 1], [3, 27307, 1, 6]], ids=str)
    def test_surfaces_are_named(self, dim: list[int]) -> None:
        failure = refused(patched(volume(RAS), dim=[*dim, 1, 1, 1, 1], glmin=163842))
        assert failure.kind is FailureKind.UNSUPPORTED
        assert "surface" in failure.detail

    @pytest.mark.parametrize("offset", [0, 352])
    def test_halves_of_pairs_are_named(self, offset: int) -> None:
        for data in (volume(RAS)[:348], volume(RAS)[:352], volume(RAS)):
            failure = refused(patched(data, magic=b"ni1", vox_offset=offset))
            assert failure.kind is FailureKind.UNSUPPORTED
            assert "pair" in failure.detail


def refused(data: bytes) -> ImageFailure:
    """What becomes of the one scan that the submitter makes of a file that is not read."""
    assert frames(data) == []
    with pytest.raises(ImageFailure) as caught:
        open_content(data, AUTO, LIMIT, lambda size: None, False).picture(None, lambda size, need: None)
    return caught.value


class TestScale:
    @pytest.mark.parametrize(
        "fields",
        [
            {"scl_slope": slope, "scl_inter": intercept}
            for slope in (0, np.nan, np.inf, -np.inf, -2)
            for intercept in (0, 3, np.nan, np.inf)
            if not (slope == -2 and math.isfinite(intercept))
        ],
        ids=str,
    )
    def test_no_rescale(self, fields: dict[str, float]) -> None:
        agree(patched(volume(RAS), **fields), RAS)
        data = patched(volume(RAS), **fields)
        assert np.array_equal(
            shown(data, "axial/3", parse_intensity("window:900,800")),
            shown(volume(RAS), "axial/3", parse_intensity("window:900,800")),
        )

    @pytest.mark.parametrize("intercept", [1e20, -3e38])
    def test_no_rescale_that_makes_all_values_one(self, intercept: float) -> None:
        agree(patched(volume(RAS), scl_slope=1, scl_inter=intercept), RAS)

    @pytest.mark.parametrize(("low", "high"), [(0, 3e38), (-3e38, 0), (5000, 5001), (-9, -8)])
    def test_no_range_that_makes_all_values_one_grey(self, low: float, high: float) -> None:
        data = patched(volume(RAS.clip(0)), cal_min=low, cal_max=high)
        assert np.array_equal(shown(data, "axial/3"), shown(volume(RAS.clip(0)), "axial/3"))
        constant = volume(np.full((5, 6, 1), 7, np.int16), cal_min=0, cal_max=14)
        assert np.ptp(shown(constant, "axial/0")) == 0
        assert shown(constant, "axial/0").max() in (127, 128)

    @pytest.mark.parametrize("low", [np.nan, np.inf, -np.inf, 9])
    @pytest.mark.parametrize("high", [np.nan, np.inf, -np.inf, 9])
    def test_no_range(self, low: float, high: float) -> None:
        data = patched(volume(RAS), cal_min=low, cal_max=high)
        assert np.array_equal(shown(data, "axial/3"), shown(volume(RAS), "axial/3"))


@pytest.mark.parametrize("build", [volume, lambda values: volume(values, kind=nib.Nifti2Image)])
def test_whatever_a_header_says_submitter_and_worker_agree(build: Callable[[np.ndarray], bytes]) -> None:
    """Each byte of a header in turn: a slice that was counted is there, and what is one scan has an answer."""
    whole = build(RAS)
    for place in range(len(whole) - RAS.nbytes):
        data = whole[:place] + bytes([(0, 255, 127)[place % 3]]) + whole[place + 1 :]
        found = frames(data)
        if not found:
            refused(data)
            continue
        with contextlib.suppress(ImageFailure):  # it tells of more values than there are
            content = open_content(data, AUTO, LIMIT, lambda size: None, True)
            assert content.picture(found[-1], lambda size, need: None).mode == "RGB"
            with pytest.raises(ImageFailure, match="no such slice"):
                content.picture(f"axial/{len(found)}", lambda size, need: None)


@pytest.mark.skipif(not CASES.exists(), reason="the inputs are not here")
@pytest.mark.parametrize(
    ("name", "count"),
    # The quaternion of the last turns the second axis of 40 x 48 x 20 to the head.
    [("headers/n04_sform_nan", 20), ("headers/n06_voxoffset0", 20), ("quaternion/n04_quat_4e-7", 48)],
)
def test_files_that_were_lost(name: str, count: int) -> None:
    data = (CASES / f"nifti_{name}.nii").read_bytes()
    assert len(frames(data)) == count
    for frame in frames(data):
        assert shown(data, frame).shape[2] == 3
