"""Which reader opens what, and what is said of formats that are known and not read."""

import contextlib
import gzip
import io
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scanomaly.models.intensity import parse_intensity
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.formats.content import EmptySlice
from scanomaly.worker.encoding.formats.opening import open_content
from scanomaly.worker.encoding.images import ImageFailure, decoding_bytes

from ..waiting import HANGS

LIMIT = 1_000_000
AUTO = parse_intensity("auto")
BUNDLED = Path(nib.__file__).parent / "tests" / "data"
# pytest takes away the filters that images.py sets.
pytestmark = pytest.mark.filterwarnings("ignore")

DEEP = np.random.default_rng(0).integers(100, 4000, (30, 40)).astype(np.uint16)


def nothing(*_: object) -> None:
    pass


def picture(
    data: bytes, frame: str | None = None, intensity: str = "auto", has_frames: bool = False
) -> Image.Image:
    content = open_content(data, parse_intensity(intensity), LIMIT, nothing, has_frames)
    return content.picture(frame, nothing)


def failure(data: bytes, frame: str | None = None, has_frames: bool = False) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        picture(data, frame, has_frames=has_frames)
    assert caught.value.detail.endswith(".")
    assert "\n" not in caught.value.detail
    return caught.value


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def colours(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8))


def run_alone(program: str, *arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()


class TestPictures:
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
    def test_pixels_are_the_reference_methods(self, file_format: str) -> None:
        data = encoded(colours(), file_format)
        content = open_content(data, AUTO, LIMIT, nothing, False)
        image = content.picture(None, nothing)
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert content.format == image.format == file_format

    def test_is_announced(self) -> None:
        data = encoded(colours(), "PNG")
        told: list[tuple[tuple[int, int], int]] = []
        content = open_content(data, AUTO, LIMIT, nothing, False)
        content.picture(None, lambda size, need: told.append((size, need)))
        assert told == [((40, 30), decoding_bytes(Image.open(io.BytesIO(data)), len(data)))]

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    @pytest.mark.parametrize("intensity", ["auto", "minmax"])
    def test_deep_grey_has_its_own_range_by_default(self, file_format: str, intensity: str) -> None:
        shown = np.asarray(picture(encoded(Image.fromarray(DEEP), file_format), None, intensity))[..., 0]
        low, high = int(DEEP.min()), int(DEEP.max())
        assert np.array_equal(shown, np.rint((DEEP - float(low)) * (255 / (high - low))))

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
    def test_deep_grey_in_a_window(self, file_format: str) -> None:
        shown = np.asarray(picture(encoded(Image.fromarray(DEEP), file_format), None, "window:1000,501"))[..., 0]
        expected = np.clip((DEEP - 749.5) * (255 / 500), 0, 255)
        assert np.abs(shown - expected).max() <= 1

    def test_deep_grey_by_percentiles(self) -> None:
        shown = np.asarray(picture(encoded(Image.fromarray(DEEP), "PNG"), None, "percentile:10,90"))[..., 0]
        low, high = np.percentile(DEEP, (10, 90))
        assert np.abs(shown - np.clip((DEEP - low) * (255 / (high - low)), 0, 255)).max() <= 1

    @pytest.mark.parametrize("intensity", ["window:10,5", "percentile:40,60", "minmax"])
    def test_8_bits_are_as_stored(self, intensity: str) -> None:
        for image in (colours(), colours().convert("L")):
            data = encoded(image, "PNG")
            assert np.array_equal(np.asarray(picture(data, None, intensity)), np.asarray(image.convert("RGB")))

    def test_has_no_frames(self) -> None:
        assert failure(encoded(colours(), "PNG"), "page/0").kind is FailureKind.MISSING

    def test_a_tiff_without_frames_is_its_first_page(self) -> None:
        data = encoded(colours(), "TIFF", save_all=True, append_images=[colours(1)])
        assert np.array_equal(np.asarray(picture(data)), np.asarray(colours()))
        assert np.array_equal(np.asarray(picture(data, "page/1", has_frames=True)), np.asarray(colours(1)))

    def test_bad_pictures(self) -> None:
        assert failure(b"").kind is FailureKind.EMPTY
        assert failure(b"this is text\n" * 50).kind is FailureKind.NOT_AN_IMAGE
        assert failure(encoded(colours(), "PNG")[:100]).kind is FailureKind.TRUNCATED
        assert failure(gzip.compress(b"this is text")).kind is FailureKind.NOT_AN_IMAGE


class TestDicom:
    @pytest.mark.parametrize("name", ["0.dcm", "1.dcm"])
    def test_is_opened(self, name: str) -> None:
        content = open_content((BUNDLED / name).read_bytes(), AUTO, LIMIT, nothing, False)
        assert content.format == "DICOM"
        assert content.picture(None, nothing).mode == "RGB"

    def test_without_its_preamble(self) -> None:
        data = (BUNDLED / "0.dcm").read_bytes()
        assert np.array_equal(np.asarray(picture(data[132:])), np.asarray(picture(data)))

    def test_that_begins_as_tiff(self) -> None:
        data = (BUNDLED / "0.dcm").read_bytes()
        both = encoded(colours(), "TIFF")[:128] + data[128:]
        for has_frames in (False, True):
            assert open_content(both, AUTO, LIMIT, nothing, has_frames).format == "DICOM"


#: What comes of nibabel's own files: a picture in a format, or a failure. Files of tracks are no images.
OWN_FILES: dict[str, str | FailureKind] = {
    "0.dcm": "DICOM",
    "1.dcm": "DICOM",
    "analyze.hdr": FailureKind.UNSUPPORTED,
    "anatomical.nii": "NIfTI",
    "bad_attribute+orig.HEAD": FailureKind.UNSUPPORTED,
    "bad_datatype+orig.HEAD": FailureKind.UNSUPPORTED,
    "example4d+orig.BRIK.gz": FailureKind.NOT_AN_IMAGE,
    "example4d+orig.HEAD": FailureKind.UNSUPPORTED,
    "example4d.nii.gz": "NIfTI",
    "example_nifti2.nii.gz": "NIfTI",
    "functional.nii": "NIfTI",
    "minc1-no-att.mnc": FailureKind.UNSUPPORTED,
    "minc1_1_scale.mnc": FailureKind.UNSUPPORTED,
    "minc1_4d.mnc": FailureKind.UNSUPPORTED,
    "minc2-4d-d.mnc": FailureKind.UNSUPPORTED,
    "minc2-no-att.mnc": FailureKind.UNSUPPORTED,
    "minc2_1_scale.mnc": FailureKind.UNSUPPORTED,
    "minc2_4d.mnc": FailureKind.UNSUPPORTED,
    "minc2_baddim.mnc": FailureKind.UNSUPPORTED,
    "nifti1.hdr": FailureKind.UNSUPPORTED,
    "nifti2.hdr": FailureKind.UNSUPPORTED,
    "phantom_EPI_asc_CLEAR_2_1.REC": FailureKind.NOT_AN_IMAGE,
    "phantom_truncated.REC": FailureKind.NOT_AN_IMAGE,
    "phantom_varscale.REC": FailureKind.NOT_AN_IMAGE,
    "reoriented_anat_moved.nii": "NIfTI",
    "resampled_anat_moved.nii": "NIfTI",
    "row_major.dconn.nii": FailureKind.UNSUPPORTED,
    "scaled+tlrc.BRIK": FailureKind.NOT_AN_IMAGE,
    "scaled+tlrc.HEAD": FailureKind.UNSUPPORTED,
    "small.mnc": FailureKind.UNSUPPORTED,
    "standard.nii.gz": "NIfTI",
    "test.mgz": "MGH",
    "tiny.mnc": FailureKind.UNSUPPORTED,
    "tinypet.v": FailureKind.UNSUPPORTED,
}
NO_IMAGES = {".m", ".py", ".rst", ".tck", ".trk"}


def own_files() -> list[Path]:
    return sorted(path for path in BUNDLED.iterdir() if path.suffix not in NO_IMAGES and path.name[0] not in "._")


class TestNibabelsOwnFiles:
    def test_none_is_left_out(self) -> None:
        assert {path.name for path in own_files() if path.suffix != ".PAR"} == set(OWN_FILES)

    @pytest.mark.parametrize("path", own_files(), ids=lambda path: path.name)
    def test_has_an_answer(self, path: Path) -> None:
        expected = FailureKind.UNSUPPORTED if path.suffix == ".PAR" else OWN_FILES[path.name]
        data = path.read_bytes()
        if isinstance(expected, FailureKind):
            bad = failure(data)
            assert bad.kind is expected
            assert expected is not FailureKind.UNSUPPORTED or "convert" in bad.detail or "CIFTI" in bad.detail
        else:
            content = open_content(data, AUTO, LIMIT, nothing, True)
            assert content.format == expected
            with contextlib.suppress(EmptySlice):
                assert content.picture(None, nothing).mode == "RGB"


class TestUnread:
    @pytest.mark.parametrize(
        ("beginning", "name"),
        [
            (b"NRRD0004\ntype: short\n", "NRRD"),
            (b"ObjectType = Image\nNDims = 3\n", "MetaImage"),
            (b"Comment = of a scanner\nObjectType = Image\n", "MetaImage"),
            (b"mrtrix image\ndim: 3,4,5\n", "MRtrix"),
        ],
    )
    @pytest.mark.parametrize("packed", [False, True])
    def test_is_named(self, beginning: bytes, name: str, packed: bool) -> None:
        data = beginning + b"\0" * 400
        bad = failure(gzip.compress(data) if packed else data)
        assert bad.kind is FailureKind.UNSUPPORTED
        assert name in bad.detail
        assert "NIfTI" in bad.detail


LIBRARIES = ("pydicom", "nibabel")


class TestLibraries:
    def test_pictures_need_neither(self, tmp_path: Path) -> None:
        for name in ("JPEG", "PNG", "TIFF"):
            (tmp_path / f"{name}.x").write_bytes(encoded(colours(), name))
        (tmp_path / "text").write_bytes(b"this is text\n" * 50)
        loaded = run_alone(
            """
            import sys
            from pathlib import Path
            from scanomaly.models.intensity import parse_intensity
            from scanomaly.worker.encoding.formats.opening import open_content
            from scanomaly.worker.encoding.images import ImageFailure
            for path in Path(sys.argv[1]).iterdir():
                for has_frames in (False, True):
                    try:
                        content = open_content(
                            path.read_bytes(), parse_intensity("auto"), 10**6, lambda size: None, has_frames
                        )
                        content.picture(None, lambda size, need: None)
                    except ImageFailure:
                        assert path.name == "text"
            print(*({"pydicom", "nibabel"} & sys.modules.keys()))
            """,
            tmp_path,
        )
        assert loaded == ""

    @pytest.mark.parametrize("name", ["0.dcm", "anatomical.nii", "standard.nii.gz", "test.mgz"])
    def test_says_what_to_install(self, name: str) -> None:
        said = run_alone(
            """
            import sys
            from pathlib import Path
            sys.modules["pydicom"] = sys.modules["nibabel"] = None  # as if they were not installed
            from scanomaly.models.intensity import parse_intensity
            from scanomaly.worker.encoding.formats.opening import open_content
            from scanomaly.worker.encoding.images import ImageFailure
            try:
                open_content(
                    Path(sys.argv[1]).read_bytes(), parse_intensity("auto"), 10**6, lambda size: None, False
                ).picture(None, lambda size, need: None)
            except ImageFailure as failure:
                print(failure)
            """,
            BUNDLED / name,
        )
        assert said.startswith("unsupported: ")
        assert "pip install 'scanomaly[medical]'" in said
        assert said.endswith(".")


def test_random_damage_gives_pixels_or_a_failure() -> None:
    """Of whatever format, and of the beginnings by which they are told apart."""
    files = [
        (BUNDLED / name).read_bytes()[:60_000]
        for name in ("0.dcm", "anatomical.nii", "standard.nii.gz", "tiny.mnc")
    ]
    files += [encoded(colours(), name) for name in ("PNG", "TIFF", "JPEG")]
    random = np.random.default_rng(3)
    for turn in range(350):
        data = bytearray(files[turn % len(files)])
        for place in random.integers(0, 400 if turn % 3 else len(data), 4):
            data[min(place, len(data) - 1)] = random.integers(0, 256)
        with contextlib.suppress(ImageFailure, EmptySlice):  # any other exception fails the test
            content = open_content(bytes(data), AUTO, LIMIT, nothing, bool(turn % 2))
            assert content.picture(None, nothing).mode == "RGB"
