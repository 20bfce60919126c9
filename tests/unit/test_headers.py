"""What a look at a file's header tells: against pydicom, nibabel and Pillow, and against what the workers read."""

import gzip
import io
import logging
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from scanomaly.models.errors import UsageError
from scanomaly.models.intensity import parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.producer.discover.headers import (
    NO_KNOWN_CONTENT,
    NOT_AN_IMAGE,
    Look,
    holds_several,
    look,
    look_unopened,
)
from scanomaly.producer.discover.pseudonyms import Pseudonyms
from scanomaly.producer.discover.slices import Plane, Slices, parse_slices
from scanomaly.worker.encoding.formats.content import Content, EmptySlice
from scanomaly.worker.encoding.formats.opening import open_content
from scanomaly.worker.encoding.images import ImageFailure
from tests.hospital import MARKS, write_dicom, write_nifti

# pydicom's and nibabel's own, where the tests read with them.
pytestmark = pytest.mark.filterwarnings("ignore")

KEY = Pseudonyms(b"a key of the tests")
BUNDLED = Path(pydicom.__file__).parent / "data"
GREY = np.arange(32 * 24, dtype=np.uint8).reshape(32, 24)
PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")


def look_at(data: bytes, name: str, slices: Slices | None = None) -> Look:
    return look(name, lambda: io.BytesIO(data), slices or Slices(), KEY)


def worker(data: bytes) -> Content:
    return open_content(data, parse_intensity("auto"), 10**8, lambda _: None, True)


def ends_at(content: Content, kind: str, count: int) -> None:
    """The worker has so many frames, and no more."""
    content.picture(f"{kind}/{count - 1}", lambda *_: None)
    with pytest.raises(ImageFailure) as caught:
        content.picture(f"{kind}/{count}", lambda *_: None)
    assert caught.value.kind is FailureKind.MISSING


def dicom(path: Path, **values: Any) -> bytes:
    """A DICOM file with some values changed; None takes one away."""
    write_dicom(path, GREY)
    if values:
        dataset = pydicom.dcmread(path)
        for name, value in values.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.save_as(path)
    return path.read_bytes()


def frames_of(count: int) -> dict[str, Any]:
    return {"NumberOfFrames": count, "PixelData": (np.tile(GREY.astype("<u2") * 16, (count, 1))).tobytes()}


def tiff(*pages: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], **options)
    return buffer.getvalue()


def coloured(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8))


# ---------------------------------------------------------------------------------------------------------- DICOM

# pydicom finds no pixels in these, or cannot read them. None: it is a scan, which fails in the worker, or would.
EXCEPTIONS = {
    "charset_files/chrJapMulti.dcm": None,  # the measures of a picture, and no pixels
    "charset_files/chrJapMultiExplicitIR6.dcm": None,
    "charset_files/chrKoreanMulti.dcm": None,
    "test_files/badVR.dcm": None,  # its number of frames is none
    "test_files/no_meta.dcm": None,  # begins with neither preamble nor what a file begins with
    "test_files/rtplan_truncated.dcm": None,  # cut short: what it was is not known
    # Of a class of images, or of none that is told, and without pixels.
    "test_files/UN_sequence.dcm": None,
    "test_files/no_meta_group_length.dcm": None,
    "charset_files/chrSQEncoding.dcm": None,
    "charset_files/chrSQEncoding1.dcm": None,
    "test_files/empty_charset_LEI.dcm": None,
    "test_files/priv_SQ.dcm": None,
    # Without the preamble that pydicom asks for.
    "test_files/ExplVR_BigEndNoMeta.dcm": "DICOM without a picture (RT Ion Plan Storage)",
    "test_files/ExplVR_LitEndNoMeta.dcm": "DICOM without a picture (RT Ion Plan Storage)",
    "test_files/rtstruct.dcm": "DICOM without a picture (RT Structure Set Storage)",
}

IMAGES_WITHOUT_PIXELS = "test_files/dicomdirtests/TINY_ALPHA/PT"
"""Of classes of images, as what is cut short is: these fail in the worker too."""


def bundled() -> dict[str, bytes]:
    """The files of pydicom that are, or are called, DICOM."""
    contents = {
        path.relative_to(BUNDLED).as_posix(): path.read_bytes()
        for path in sorted(BUNDLED.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {name: data for name, data in contents.items() if name.endswith(".dcm") or data[128:132] == b"DICM"}


def pixels_and_frames(dataset: Dataset) -> tuple[bool, int]:
    has_pixels = any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
    return has_pixels, int(dataset.get("NumberOfFrames") or 1)


def test_files_of_pydicom() -> None:
    found = {name: look_at(data, name) for name, data in bundled().items()}
    assert len(found) > 150
    assert {name: found[name].reason for name in EXCEPTIONS} == EXCEPTIONS
    groups: dict[tuple[str, ...], set[str | None]] = {}
    pictures = 0
    for name in found.keys() - EXCEPTIONS.keys():
        dataset = pydicom.dcmread(BUNDLED / name)
        has_pixels, count = pixels_and_frames(dataset)
        if not has_pixels and name.startswith(IMAGES_WITHOUT_PIXELS):
            assert found[name].reason is None
            continue
        if not has_pixels:
            assert str(found[name].reason).startswith("DICOM without a picture"), name
            assert found[name][:3] == ((), None, None)
            continue
        pictures += 1
        assert found[name].reason is None, name
        assert len(found[name].frames) == (count if count > 1 else 0), name
        patient, study = str(dataset.get("PatientID") or ""), str(dataset.get("StudyInstanceUID") or "")
        who = (patient, str(dataset.get("IssuerOfPatientID") or "")) if patient else ("study", study)
        groups.setdefault(who, set()).add(found[name].group)
        assert (found[name].group is None) == (not patient and not study), name
    assert pictures > 50
    assert all(len(names) == 1 for names in groups.values())
    assert len(set.union(*groups.values())) == len(groups)


def test_names_of_patients_and_series(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    patient, uid = f"{MARKS[1]}-1", MARKS[-1]
    series = KEY.name("series", f"{uid}.1.1")
    assert look_at(dicom(file), "a") == Look((), KEY.name("patient", patient, ""), series)
    assert look_at(dicom(file, PatientName="Other", StudyDate="20000101"), "a").group == KEY.name(
        "patient", patient, ""
    )
    issued = look_at(dicom(file, IssuerOfPatientID="here"), "a")
    assert issued.group == KEY.name("patient", patient, "here")
    for nobody in (None, "", "  "):
        assert look_at(dicom(file, PatientID=nobody), "a").group == KEY.name("study", f"{uid}.1")
    assert look_at(dicom(file, PatientID=None, StudyInstanceUID=None), "a").group is None
    assert look_at(dicom(file, SeriesInstanceUID=None), "a").volume is None
    cine = look_at(dicom(file, **frames_of(12)), "a", parse_slices("middle:2"))
    volume = KEY.name("volume", f"{uid}.1.1", f"{uid}.1.1.1")
    assert cine == Look(("frame/05", "frame/06"), KEY.name("patient", patient, ""), volume)


def test_frames_are_those_of_the_worker(tmp_path: Path) -> None:
    data = dicom(tmp_path / "a.dcm", **frames_of(11))
    found = look_at(data, "a.dcm")
    assert found.frames == tuple(f"frame/{number:02}" for number in range(11))
    ends_at(worker(data), "frame", 11)


@pytest.mark.parametrize("name", ["a", "a.dcm", "1.2.840.4711", "IM0001", "a.png.part", "a.dat", "x/y.img_1"])
def test_dicom_by_its_content(tmp_path: Path, name: str) -> None:
    data = dicom(tmp_path / "a.dcm")
    assert look_at(data, name).group is not None


def test_dicom_without_preamble(tmp_path: Path) -> None:
    data = dicom(tmp_path / "a.dcm")
    for bare in (data[132:], data[data.index(b"\x08\x00\x16\x00UI") :]):
        for name in ("a", "a.dcm", "1.2.840.4711"):
            assert look_at(bare, name) == look_at(data, name)
            worker(bare).picture(None, lambda *_: None)
        assert look_at(bare, "a.dat") == look_at(bare, "a.img") == look_at(bare, "a")
        assert look_at(bare, "a.txt").reason == NOT_AN_IMAGE  # two elements are little to go by


# ---------------------------------------------------------------------------------------------------------- NIfTI


def nifti(shape: tuple[int, ...], axes: str = "RAS", kind: Any = nibabel.Nifti1Image) -> bytes:
    values = np.random.default_rng(0).integers(1, 1000, shape).astype(np.int16)
    affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(axes), (9, 9, 9))
    affine[:3, :3] += 0.2 * np.eye(3)[::-1] * np.sign(affine[:3, :3]).sum()  # a head is never straight
    return bytes(kind(values, affine).to_bytes())


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.MGHImage])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PSR", "SRA", "AIL", "IPR"])
@pytest.mark.parametrize("shape", [(11, 7, 102), (11, 7, 5, 3)])
def test_slices_are_those_of_nibabel_and_the_worker(kind: Any, axes: str, shape: tuple[int, ...]) -> None:
    plain = nifti(shape, axes, kind)
    lengths = nibabel.as_closest_canonical(kind.from_bytes(plain)).shape[:3]
    assert sorted(lengths) == sorted(shape[:3])
    ending = ".mgz" if kind is nibabel.MGHImage else ".nii.gz"
    for data in (plain, gzip.compress(plain, 1)):
        content = worker(data)
        for plane, count in zip(PLANES, lengths, strict=True):
            found = look_at(data, f"a{ending}", Slices(plane))
            assert found == Look([f"{plane}/{index:0{len(str(count - 1))}}" for index in range(count)])._replace(
                frames=found.frames
            )
            assert len(found.frames) == count
            assert found.frames[-1] == f"{plane}/{count - 1}"
            ends_at(content, plane, count)


@pytest.mark.parametrize(
    ("shape", "plane"),
    [((9, 8), "axial"), ((9, 8, 1), "axial"), ((9, 1, 8), "coronal"), ((1, 9, 8), "sagittal")],
)
def test_a_single_slice_is_shown_in_its_plane(shape: tuple[int, ...], plane: str) -> None:
    data = nifti(shape)
    for wanted in PLANES:
        assert look_at(data, "a.nii", Slices(wanted)).frames == (f"{plane}/0",)
    ends_at(worker(data), plane, 1)


def test_slices_are_chosen() -> None:
    data = nifti((4, 5, 102))
    assert look_at(data, "a.nii", parse_slices("middle:2")).frames == ("axial/050", "axial/051")
    assert look_at(data, "a.nii", parse_slices("every:2", "coronal")).frames == (
        "coronal/0",
        "coronal/2",
        "coronal/4",
    )


def test_files_of_nibabel() -> None:
    agreed = []
    for file in sorted((Path(nibabel.__file__).parent / "tests" / "data").glob("*.nii*")):
        image = nibabel.load(file)
        if type(image) not in (nibabel.Nifti1Image, nibabel.Nifti2Image):  # CIFTI
            continue
        lengths = nibabel.as_closest_canonical(image).shape[:3]
        for plane, count in zip(PLANES, lengths, strict=True):
            assert len(look_at(file.read_bytes(), file.name, Slices(plane)).frames) == count
        agreed.append(file.name)
    assert len(agreed) >= 3


# ----------------------------------------------------------------------------------------------------------- TIFF


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_deflate"}, {"big_tiff": True}])
@pytest.mark.parametrize("count", [1, 2, 11])
def test_pages_are_those_of_pillow_and_the_worker(count: int, options: dict[str, Any]) -> None:
    data = tiff(*(coloured(number) for number in range(count)), **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == count
    width = len(str(count - 1))
    names = tuple(f"page/{number:0{width}}" for number in range(count)) if count > 1 else ()
    assert look_at(data, "a.TIF") == Look(names)
    ends_at(worker(data), "page", count)


def test_pages_in_the_other_order_of_bytes() -> None:
    data = b"MM\0*" + (8).to_bytes(4, "big")
    for number in range(3):  # empty directories, which no worker can show, and each is a page
        following = 8 + 6 * (number + 1) if number < 2 else 0
        data += b"\0\0" + following.to_bytes(4, "big")
    assert look_at(data, "a.tiff").frames == ("page/0", "page/1", "page/2")


@pytest.mark.parametrize("kind", [1, 4, 5])
def test_smaller_copies_and_masks_are_no_pages(kind: int) -> None:
    copy = coloured(9)
    copy.encoderinfo = {"tiffinfo": {254: kind}}
    data = tiff(coloured(0), copy, coloured(1))
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
        image.seek(1)
        assert image.tag_v2[254] == kind
    assert look_at(data, "a.tif").frames == ("page/0", "page/1")
    ends_at(worker(data), "page", 2)
    assert look_at(tiff(coloured(0), copy), "a.tif") == Look()


def test_pages_that_are_lost_are_seen() -> None:
    data = tiff(*(coloured(number) for number in range(4)))
    for length in range(len(data) // 2, len(data), 97):
        found = look_at(data[:length], "a.tif")
        assert found.reason is None
        if found.frames:
            with pytest.raises(ImageFailure) as caught:
                worker(data[:length]).picture(found.frames[-1], lambda *_: None)
            assert caught.value.kind is FailureKind.TRUNCATED


def test_a_ring_of_pages_ends() -> None:
    data = b"II*\0" + (8).to_bytes(4, "little") + b"\0\0" + (14).to_bytes(4, "little") + b"\0\0\x08\0\0\0"
    assert look_at(data, "a.tif").frames == ("page/0", "page/1", "page/2")


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["a.png", "b/A.JPEG", "a.webp", "a.bmp", "a.gif", "a.nrrd", "a.mnc", "a.nii.bz2", "a.hdr"]
)
def test_scans_by_their_ending(name: str) -> None:
    assert look(name, never_opened, Slices(), KEY) == look_unopened(name) == Look()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.txt", NOT_AN_IMAGE),
        ("a.JSON", NOT_AN_IMAGE),
        ("a.csv.gz", NOT_AN_IMAGE),
        ("x.nii/a.bvec", NOT_AN_IMAGE),
    ],
)
def test_no_scans_by_their_ending_where_a_look_is_dear_or_cannot_be(name: str, reason: str) -> None:
    assert look(name, never_opened, Slices(), KEY, is_remote=True) == look_unopened(name) == Look(reason=reason)


@pytest.mark.parametrize(
    ("name", "beside", "reason"),
    [
        ("a.img", "a.hdr", "the data that belongs to a .hdr file"),
        ("x/A.IMG", "x/A.HDR", "the data that belongs to a .hdr file"),
        ("a.img.gz", "a.hdr", "the data that belongs to a .hdr file"),
        ("a.img.gz", "a.hdr.gz", "the data that belongs to a .hdr file"),
        ("a.REC", "a.PAR", "the data that belongs to a .par file"),
        ("a.brik.gz", "a.head", "the data that belongs to a .head file"),
    ],
)
def test_the_data_beside_a_header_is_no_scan_and_else_its_content_tells(
    tmp_path: Path, name: str, beside: str, reason: str
) -> None:
    found = look(name, never_opened, Slices(), KEY, is_there=lambda other: other == beside)
    assert found == Look(reason=reason)
    for data in (dicom(tmp_path / "a.dcm"), nifti((6, 5, 4)), b"anything"):
        alone = look_at(data, name)
        assert alone == look_at(data, "a") or alone.reason == NOT_AN_IMAGE == look_at(b"", name).reason
        assert (alone.reason is None) == (data != b"anything")


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    coloured(0).save(buffer, kind)
    return buffer.getvalue()


CONTENTS: dict[str, Callable[[], bytes]] = {
    **{kind: lambda kind=kind: picture(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "MPO")},
    "DIB of OS/2": lambda: (
        b"BM" + (26 + 12).to_bytes(4, "little") + bytes(4) + (26).to_bytes(4, "little") + bytes([12, 0, 0, 0])
        + bytes([2, 0, 2, 0, 1, 0, 24, 0]) + bytes(16)
    ),
    "BigTIFF": lambda: tiff(coloured(0), coloured(1), big_tiff=True),
    "NIfTI-1": lambda: nifti((6, 5, 4)),
    "NIfTI-2": lambda: nifti((6, 5, 4), kind=nibabel.Nifti2Image),
    "gzipped NIfTI-1": lambda: gzip.compress(random_volume(nibabel.Nifti1Image)),
    "gzipped NIfTI-2": lambda: gzip.compress(random_volume(nibabel.Nifti2Image)),
    "MGH": lambda: nifti((6, 5, 4), kind=nibabel.MGHImage),
    "gzipped MGH": lambda: gzip.compress(nifti((6, 5, 4), kind=nibabel.MGHImage)),
}  # fmt: skip


def random_volume(kind: Any) -> bytes:
    """What gzip cannot make smaller."""
    values = np.random.default_rng(0).integers(-30000, 30000, (40, 50, 6), np.int16)
    return bytes(kind(values, np.eye(4)).to_bytes())


NAMES = (
    "photo",
    "a.jpg.1",
    "a.mpo",
    "a.pjpeg",
    "a.svs",
    "a.JPG~",
    "a.png.part",
    "a.txt",
    "a.json",
    "a.gz",
    "a.dcm",
)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_scan_by_its_content_whatever_it_is_called(content: str) -> None:
    data = CONTENTS[content]()
    found = look_at(data, NAMES[0])
    assert found.reason is None
    is_volume = "NIfTI" in content or "MGH" in content
    assert len(found.frames) == (2 if content == "BigTIFF" else (6 if len(data) > 9000 else 4) if is_volume else 0)
    assert [look_at(data, name) for name in NAMES] == [found] * len(NAMES)
    worker(data).picture(found.frames[0] if found.frames else None, lambda *_: None)


@pytest.mark.parametrize(
    "text",
    [b"BM and other shops\n" * 90, b"GIF8 is short for\n", b"RIFF files are many\n", b"II* is no number",
     b"path,label\na,normal\n", b"\x1f\x8bcut", gzip.compress(b"path,label\n" * 100, mtime=0),
     b"\xff\xd8", b"{}", b""],
)  # fmt: skip
@pytest.mark.parametrize("name", ["notes.txt", "README", "a.csv.gz"])
def test_text_that_begins_as_a_picture_does_is_none(name: str, text: bytes) -> None:
    assert look_at(text, name).reason == (NO_KNOWN_CONTENT if name == "README" else NOT_AN_IMAGE)


@pytest.mark.parametrize("name", ["README", "a.xyz", "a.0001", ".nii", "x.png/a", "a.", "", "a.png."])
def test_files_that_are_no_images(name: str) -> None:
    for content in (b"", b"x", b"\0" * 5000, bytes(range(256)) * 40, b"\x08\0" * 40, b"PK\3\4" + b"x" * 200):
        assert look_at(content, name) == Look(reason=NO_KNOWN_CONTENT)


@pytest.mark.parametrize("name", ["a.dcm", "a.IMA", "a.nii", "a.nii.gz", "a.mgz", "a.tif", "a.dicom"])
def test_what_is_called_a_scan_fails_where_it_is_seen(name: str) -> None:
    for content in (
        b"",
        b"x",
        b"\0" * 5000,
        b"\x1f\x8b",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"x", mtime=0),
        b"II*\0",
        b"MM\0+",
    ):
        assert look_at(content, name) == Look()
    assert look_unopened(name) == Look()


def test_what_holds_several(tmp_path: Path) -> None:
    for name in ("a.zip", "a.TAR.gz", "a.nii", "a.nii.gz", "a.mgz", "x/a.dcm", "a.tif"):
        assert holds_several(tmp_path / name)
    for name in ("a.png", "a", "a.gz", "zip", "a.nii/b"):
        assert not holds_several(tmp_path / name)
    for data in (dicom(tmp_path / "a.dcm"), tiff(coloured(0)), nifti((6, 5, 4)), gzip.compress(nifti((6, 5, 4)))):
        (tmp_path / "a").write_bytes(data)
        assert holds_several(tmp_path / "a")
    (tmp_path / "a").write_bytes(picture("PNG"))
    assert not holds_several(tmp_path / "a")


def never_opened() -> BinaryIO:
    raise AssertionError("the name alone tells")


# -------------------------------------------------------------------------------------------------------- damaged


def test_what_is_cut_short_is_a_scan(tmp_path: Path) -> None:
    """It fails in the worker, where it is seen. No reason may hide it, and nothing may stop discovery."""
    volume = nifti((6, 5, 4))
    big = gzip.compress(nifti((6, 5, 4), kind=nibabel.Nifti2Image))
    for data, name in (
        (dicom(tmp_path / "a.dcm"), "a.dcm"),
        (dicom(tmp_path / "a.dcm", **frames_of(3)), "a.dcm"),
        (volume, "a.nii"),
        (big, "a.nii.gz"),
        (nifti((6, 5, 4), kind=nibabel.MGHImage), "a.mgh"),
        (tiff(coloured(0), coloured(1)), "a.tif"),
    ):
        for length in {*range(0, min(1200, len(data)), 3), *range(0, len(data), 1 + len(data) // 50)}:
            assert look_at(data[:length], name).reason is None, (name, length)


def test_what_is_damaged_raises_nothing(tmp_path: Path) -> None:
    """Bytes at random are others: what they were need not be seen, but nothing may be raised."""
    random = np.random.default_rng(0)
    for data, name in (
        (dicom(tmp_path / "a.dcm", **frames_of(3)), "a"),
        (nifti((6, 5, 4)), "a.nii"),
        (nifti((6, 5, 4), kind=nibabel.Nifti2Image), "a.nii"),
        (gzip.compress(nifti((6, 5, 4)), mtime=0), "a.nii.gz"),
        (nifti((6, 5, 4), kind=nibabel.MGHImage), "a.mgh"),
        (tiff(coloured(0), coloured(1)), "a.tif"),
    ):
        for _ in range(150):
            content = np.frombuffer(data, np.uint8).copy()
            places = random.integers(0, min(len(content), 600), random.integers(1, 6))
            content[places] = random.choice(
                np.array([0, 1, 127, 128, 255, random.integers(256)], np.uint8), len(places)
            )
            found = look_at(content.tobytes(), name)
            assert name == "a" or found.reason is None


def test_a_damaged_dicom_keeps_its_group(tmp_path: Path) -> None:
    data = dicom(tmp_path / "a.dcm")
    whole = look_at(data, "a")
    start = data.index(b"\xe0\x7f\x10\x00")
    for length in (start, start + 4, start + 12, start + 100, data.index(b"\x28\x00\x10\x00")):
        assert look_at(data[:length], "a")[:3] == whole[:3]


@pytest.mark.parametrize("count", ["0", "-1", "x", "1e9", "100001", "99999999999", "2\\3", "1.5"])
def test_a_number_of_frames_that_cannot_be_right_is_one(tmp_path: Path, count: str) -> None:
    data = dicom(tmp_path / "a.dcm", **frames_of(3))
    start = data.index(b"\x28\x00\x08\x00IS")
    text = count.encode() + b" " * (len(count) % 2)
    changed = data[:start] + b"\x28\x00\x08\x00IS" + len(text).to_bytes(2, "little") + text + data[start + 10 :]
    assert look_at(data, "a").frames == ("frame/0", "frame/1", "frame/2")
    assert look_at(changed, "a")[::3] == ((), None)


# -------------------------------------------------------------------------------------------------------- privacy


def test_no_value_of_a_header_is_shown(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    warnings.simplefilter("always")
    write_nifti(tmp_path / "a.nii", [GREY, GREY])
    single, several, volume = (
        dicom(tmp_path / "a.dcm"),
        dicom(tmp_path / "a.dcm", **frames_of(3)),
        (tmp_path / "a.nii").read_bytes(),
    )
    without = dicom(tmp_path / "a.dcm", PixelData=None, Rows=None, SOPClassUID=f"{MARKS[-1]}.5")
    shown = []
    random = np.random.default_rng(1)
    caplog.clear()
    recwarn.clear()
    for data, name in ((single, "a"), (several, "a"), (without, "a.dcm"), (volume, "a.nii")):
        assert all(mark.encode() in data for mark in (MARKS[:2] if name == "a.nii" else MARKS))
        variants = [data, gzip.compress(data), *(data[:length] for length in range(0, len(data), 41))]
        for mark in MARKS:
            for kind in (b"IS", b"DS", b"DA", b"UI", b"SQ", b"UN", b"XX"):
                start = data.find(mark.encode())
                if start >= 8:
                    variants.append(data[: start - 4] + kind + data[start - 2 :])
        for _ in range(100):
            content = np.frombuffer(data, np.uint8).copy()
            content[random.integers(0, min(len(content), 900), 3)] = random.integers(0, 256, 3)
            variants.append(content.tobytes())
        for variant in variants:
            shown.append(repr(look_at(variant, name)))
    assert any("patient-" in text for text in shown)
    assert any("DICOM without a picture" in text for text in shown)
    out, err = capfd.readouterr()
    shown += [out, err, caplog.text, *(str(warning.message) for warning in recwarn.list)]
    for mark in MARKS:
        assert not [text for text in shown if mark in text]
    assert not recwarn.list
    assert not caplog.text


def test_errors_of_files_and_keys_come_through_without_a_value(tmp_path: Path) -> None:
    data = dicom(tmp_path / "a.dcm")

    def no_key() -> bytes:
        raise UsageError("no key")

    with pytest.raises(UsageError, match=r"^no key$"):
        look("a", lambda: io.BytesIO(data), Slices(), Pseudonyms(no_key))

    def gone() -> BinaryIO:
        raise FileNotFoundError(2, "gone")

    with pytest.raises(FileNotFoundError):
        look("a", gone, Slices(), KEY)


# -------------------------------------------------------------------------------------------------------- streams


class Counting(io.BytesIO):
    """Counts what is read."""

    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.bytes_read += len(part)
        return part


class Flowing(Counting):
    """Cannot be gone about in, and gives less than it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size, 1000) if size is not None and size > 0 else size)

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("not seekable")


def contents(tmp_path: Path) -> list[tuple[bytes, str]]:
    volume = nifti((60, 50, 40))
    return [
        (dicom(tmp_path / "a.dcm"), "a.dcm"),
        (dicom(tmp_path / "a.dcm", **frames_of(300)), "a"),
        (volume, "a.nii"),
        (gzip.compress(volume), "a.nii.gz"),
        (tiff(coloured(0)), "a.tif"),
    ]


def test_streams_that_only_flow(tmp_path: Path) -> None:
    for data, name in contents(tmp_path):
        assert look(name, lambda data=data: Flowing(data), Slices(), KEY) == look_at(data, name)
    # Pages may lie before those they follow: what cannot be reached fails in the worker.
    pages = tiff(*(coloured(number) for number in range(3)))
    found = look("a.tif", lambda: Flowing(pages), Slices(), KEY)
    assert found.reason is None
    assert found.frames in (("page/0", "page/1", "page/2"), ())


def test_members_of_archives(tmp_path: Path) -> None:
    for data, name in [*contents(tmp_path), (tiff(coloured(0), coloured(1), coloured(2)), "a.tif")]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            found = look(name, lambda archive=archive, name=name: archive.open(name), Slices(), KEY)
        assert found == look_at(data, name)


def big_dicom(path: Path) -> bytes:
    return dicom(path, Rows=5000, Columns=5000, PixelData=bytes(50_000_000))


def big_private_element(path: Path) -> bytes:
    """Before the picture: it is passed over, and not kept."""
    data = dicom(path)
    start = data.index(b"\x10\x00\x10\x00PN")
    return (
        data[:start]
        + b"\x09\x00\x10\x10OB\0\0"
        + (50_000_000).to_bytes(4, "little")
        + bytes(50_000_000)
        + data[start:]
    )


def big_nifti(path: Path) -> bytes:
    return bytes(nibabel.Nifti1Image(np.zeros((500, 500, 100), np.int16), np.eye(4)).to_bytes())


@pytest.mark.parametrize(
    ("make", "name"),
    [(big_dicom, "a"), (big_private_element, "a"), (big_nifti, "a.nii"), (lambda _: bytes(50_000_000), "a.x")],
)
def test_little_is_read_of_a_large_file(tmp_path: Path, make: Callable[[Path], bytes], name: str) -> None:
    stream = Counting(make(tmp_path / "a.dcm"))
    assert stream.seek(0, os.SEEK_END) > 50_000_000 - 1
    stream.seek(0)
    found = look(name, lambda: stream, Slices(), KEY)
    assert found.reason == (NO_KNOWN_CONTENT if name == "a.x" else None)
    assert name == "a.x" or found.group or found.frames
    assert stream.bytes_read <= 1 << 16
    assert stream.closed


def test_a_large_element_of_a_stream_that_only_flows(tmp_path: Path) -> None:
    data = big_private_element(tmp_path / "a.dcm")
    assert look("a", lambda: Flowing(data), Slices(), KEY) == look_at(dicom(tmp_path / "a.dcm"), "a")


def test_what_inflates_to_much_ends() -> None:
    """100 MB of zeros, gzipped, which are no header: their beginning tells."""
    stream = Counting(gzip.compress(bytes(100_000_000), 1))
    assert look("a.nii.gz", lambda: stream, Slices(), KEY) == Look()
    assert stream.bytes_read <= 1 << 16


@pytest.mark.parametrize(("megabytes", "is_reached"), [(1, True), (80, False)])
def test_a_small_deflated_file_that_stands_for_a_large_one_ends(megabytes: int, is_reached: bool) -> None:
    """What comes after an element of so many zeros."""
    syntax = b"1.2.840.10008.1.2.1.99"
    size = megabytes * 1_000_000
    pack = zlib.compressobj(1, wbits=-15)
    elements = pack.compress(b"\x09\0\x10\x10OB\0\0" + size.to_bytes(4, "little") + bytes(size))
    elements += pack.compress(b"\x10\0\x20\0LO\4\0one " + b"\x28\0\x10\0US\2\0\x20\0" + b"\x28\0\x11\0US\2\0\x20\0")
    meta = b"\2\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    found = look_at(bytes(128) + b"DICM" + meta + elements + pack.flush(), "a")
    assert found == Look((), KEY.name("patient", "one", "") if is_reached else None)


def test_empty_slices_are_frames_too() -> None:
    """Whether a slice is empty is seen in the worker alone."""
    values = np.zeros((8, 8, 3), np.int16)
    values[2:6, 2:6, 1] = 100
    data = bytes(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())
    assert look_at(data, "a.nii").frames == ("axial/0", "axial/1", "axial/2")
    with pytest.raises(EmptySlice):
        worker(data).picture("axial/0", lambda *_: None)
