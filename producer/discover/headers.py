"""What is to be known of a file before it becomes scans: its frames, its group, its volume, or why it is none.

What is called a picture is one scan, without being opened: the worker looks into it. Of all else the beginning
tells, whatever it is called, and of that no more is kept than numbers of frames and pseudonyms. A file that is
damaged becomes a scan all the same: it fails in the worker, which says why.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...models.sources.archives import archive_ending
from ...models.sources.beneath import open_regular
from ...models.sources.dicom import is_bare_dicom, is_dicom
from .dicom_headers import class_name, read_dicom
from .nifti_headers import slice_names
from .pseudonyms import Pseudonyms
from .reader import CutError, Reader
from .signatures import is_picture, is_volume
from .slices import Slices, frame_names
from .tiff_headers import count_pages, is_tiff

NOT_AN_IMAGE = "not an image by its ending"
NO_KNOWN_CONTENT = "not an image by its content"


def _endings(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PICTURES = _endings(".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp")
_TIFF = frozenset({".tif", ".tiff"})
_VOLUMES = frozenset({".nii", ".nii.gz", ".mgh", ".mgh.gz", ".mgz"})
_DICOM = frozenset({".dcm", ".dicom", ".ima"})
# No worker reads these. They are scans nevertheless: as failures they are seen.
_OTHER_SCANS = _endings("""
    .hdr .hdr.gz .mnc .mnc.gz .minc .nrrd .nhdr .mha .mhd .par .head .mif .mif.gz .mih .ecat
    .nii.bz2 .nii.xz .nii.zst .dcm.gz .dcm.bz2 .dcm.xz
""")
_HEADER_OF = {".img": ".hdr", ".rec": ".par", ".brik": ".head"}
# To open a file costs more than all else here, so that at a server, where it is a request, these are believed. Some
# are of what goes with scans: BIDS, FreeSurfer, FSL.
_NO_IMAGES = _endings("""
    .csv .tsv .txt .json .jsonl .md .rst .pdf .html .htm .css .xml .xsl .log .ini .cfg .conf .toml .yml .yaml .rtf
    .doc .docx .xls .xlsx .ppt .pptx .odt .ods .odp .tex .bib .eml .msg
    .py .pyc .ipynb .js .ts .sh .bat .ps1 .exe .dll .so .c .cpp .h .java .jar .class .r .m .lnk .url
    .mat .rds .rda .rdata .npy .npz .pkl .pickle .joblib .h5 .hdf5 .parquet .feather .arrow .pt .pth .onnx
    .safetensors .ckpt .db .sqlite .sqlite3 .sql .lock .bak .tmp .md5 .sha1 .sha256
    .mp4 .avi .mov .mkv .webm .wmv .mpg .mpeg .mp3 .wav .svg .ico .eps .ps .psd .heic
    .bval .bvec .trk .tck .gii .stl .obj .ply .vtk .lut .xfm .annot
    .zip .tar .tgz .7z .rar .gz .bz2 .xz .zst
""")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_HEAD_BYTES = 1024


class Look(NamedTuple):
    """What a look at a file told."""

    frames: Sequence[str] = ()
    """Its frames that become scans; none where the file is one picture."""
    group: str | None = None
    """The patient's pseudonym."""
    volume: str | None = None
    """The series' pseudonym, or that of a file with many frames."""
    reason: str | None = None
    """Why the file is ignored."""


def holds_several(path: Path, open_file: Callable[[Path], BinaryIO] = open_regular) -> bool:
    """Whether a single file may be a source, by its name or its content: an archive, DICOM, TIFF or a volume."""
    if archive_ending(path.name) is not None or _ending(path.name) in _VOLUMES | _DICOM | _TIFF:
        return True
    try:
        with open_file(path) as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return is_dicom(head) or is_tiff(head) or is_bare_dicom(head) or is_volume(_unpacked(head))


def look_unopened(name: str) -> Look:
    """What is known of a file that cannot be opened.

    One that is called a scan is one: it fails in the worker, which says why. But of what else lies about, not all
    need be readable.
    """
    ending = _ending(name)
    if ending in _PICTURES | _VOLUMES | _DICOM | _OTHER_SCANS:
        return Look()
    return Look(reason=NOT_AN_IMAGE if _is_no_image(ending) else "it cannot be opened to see what it is")


def look(
    name: str,
    open_file: Callable[[], BinaryIO],
    slices: Slices,
    pseudonyms: Pseudonyms,
    *,
    is_there: Callable[[str], bool] = lambda name: False,
    is_remote: bool = False,
) -> Look:
    """Look at a file.

    Args:
        name: its name, or its path with `/` between the parts.
        open_file: opens its content, which is read from its beginning on, a few KiB at a time, and closed.
        slices: which frames are wanted of a file with many.
        pseudonyms: what names patients and series.
        is_there: whether there is another file of that name, or path.
        is_remote: whether to open a file is a request to a server: endings of what hardly is an image are believed.

    Returns:
        What is to be known. No value of a header is in it, except as a pseudonym.

    Raises:
        OSError: the file cannot be opened or read.
        UsageError: a pseudonym is needed, and its key cannot be loaded.
    """
    ending = _ending(name)
    if (ending in _PICTURES and ending not in _TIFF) or ending in _OTHER_SCANS:
        return Look()
    if reason := _reason_before_opening(name, ending, is_there, is_remote):
        return Look(reason=reason)
    with open_file() as stream:
        return _look_into(Reader(stream), ending, slices, pseudonyms)


def _reason_before_opening(name: str, ending: str, is_there: Callable[[str], bool], is_remote: bool) -> str | None:
    """Why a file is ignored without a look into it, or None."""
    data, packed, _ = ending.partition(".gz")
    if data in _HEADER_OF:
        header = _HEADER_OF[data]
        beside = name[: -len(ending)] + (header if name.endswith(ending) else header.upper())
        if is_there(beside) or (packed and is_there(beside + name[-len(packed) :])):
            return f"the data that belongs to a {header} file"
    return NOT_AN_IMAGE if is_remote and _is_no_image(ending) else None


def _is_no_image(ending: str) -> bool:
    return ending in _NO_IMAGES or (ending.endswith(_COMPRESSED) and ending not in _VOLUMES)


def _ending(name: str) -> str:
    """The ending in small letters, with the one before it where it says how the file is compressed."""
    stem, dot, last = name[name.rfind("/") + 1 :].lower().rpartition(".")
    if not stem:
        return ""
    ending = dot + last
    before = stem.rfind(".")
    return stem[before:] + ending if ending in _COMPRESSED and before > 0 else ending


def _look_into(reader: Reader, ending: str, slices: Slices, pseudonyms: Pseudonyms) -> Look:
    try:
        head = reader.peek(_HEAD_BYTES)
    except CutError:
        head = b""
    found = _of_content(reader, head, ending, slices, pseudonyms)
    if found is not None:
        return found
    # What is called a scan and is not fails in the worker; of all else there may be anything.
    if ending in _DICOM | _TIFF:
        return Look()
    return Look(reason=NOT_AN_IMAGE if _is_no_image(ending) else NO_KNOWN_CONTENT)


def _of_content(reader: Reader, head: bytes, ending: str, slices: Slices, pseudonyms: Pseudonyms) -> Look | None:
    """In the order in which the worker asks: `worker/encoding/formats/opening.py`."""
    if is_dicom(head):
        return _of_dicom(reader, slices, pseudonyms)
    if is_tiff(head):
        return Look(_page_names(reader, slices))
    if is_picture(head):
        return Look()
    if ending in _VOLUMES or is_volume(_unpacked(head)):
        return _of_volume(reader, slices)
    # Two elements are little to go by: what is called text, or numbers, is believed.
    if is_bare_dicom(head) and ending not in _NO_IMAGES:
        return _of_dicom(reader, slices, pseudonyms)
    return None


def _unpacked(head: bytes) -> bytes:
    """What a file begins with, unpacked where it is gzipped."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(31).decompress(head, _HEAD_BYTES)
    except zlib.error:
        return b""


def _of_volume(reader: Reader, slices: Slices) -> Look:
    if not _is_installed("nibabel"):
        return Look(reason="NIfTI or MGH: pip install 'scanomaly[medical]'")
    return Look(slice_names(reader, slices))


def _of_dicom(reader: Reader, slices: Slices, pseudonyms: Pseudonyms) -> Look:
    if not _is_installed("pydicom"):
        return Look(reason="DICOM: pip install 'scanomaly[medical]'")
    header = read_dicom(reader)
    if not header.has_picture:
        name = class_name(header.sop_class)
        # What says that it is an image, or ends before it says what it is, was cut short: it fails in the worker.
        if header.sop_class and not (name and " Image " in name):
            return Look(reason="DICOM without a picture" + (f" ({name})" if name else ""))
    group = volume = None
    if header.patient:
        group = pseudonyms.name("patient", header.patient, header.issuer)
    elif header.study:
        group = pseudonyms.name("study", header.study)
    count = header.frames or 1
    if count > 1:
        if header.instance:
            volume = pseudonyms.name("volume", header.series, header.instance)
        return Look(tuple(frame_names("frame", count, slices.choose(count))), group, volume)
    if header.series:
        volume = pseudonyms.name("series", header.series)
    return Look((), group, volume)


def _page_names(reader: Reader, slices: Slices) -> Sequence[str]:
    pages = count_pages(reader)
    if pages.number < 2:
        return ()
    # Pages that are lost are not to vanish: one more, which fails in the worker, stands for them.
    count = pages.number + (not pages.whole)
    return tuple(frame_names("page", count, slices.choose(count)))


@cache
def _is_installed(library: str) -> bool:
    """Without importing it: that takes half a second."""
    return find_spec(library) is not None
