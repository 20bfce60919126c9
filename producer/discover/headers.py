"""What is to be known of a file before it becomes scans: its frames, its group, its volume, or why it is none.

A name decides where it can. Else the beginning of the file does, and of that no more is kept than numbers of frames
and pseudonyms. A file that is damaged becomes a scan all the same: it fails in the worker, which says why.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import BinaryIO, NamedTuple

from ...models.sources.archives import archive_ending
from ...models.sources.dicom import is_bare_dicom, is_dicom
from .dicom_headers import Dicom, class_name, read_dicom
from .nifti_headers import slice_names
from .pseudonyms import Pseudonyms
from .reader import CutError, Reader
from .slices import Slices, frame_names
from .tiff_headers import count_pages, is_tiff

NOT_AN_IMAGE = "not an image by its ending"


def _endings(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PICTURES = _endings(".jpg .jpeg .jpe .jfif .png .bmp .dib .tif .tiff .webp")
_TIFF = frozenset({".tif", ".tiff"})
_VOLUMES = frozenset({".nii", ".nii.gz", ".mgh", ".mgh.gz", ".mgz"})
_DICOM = frozenset({".dcm", ".dicom", ".ima"})
# No worker reads these. They are scans nevertheless: as failures they are seen.
_OTHER_SCANS = _endings("""
    .hdr .hdr.gz .mnc .mnc.gz .minc .nrrd .nhdr .mha .mhd .par .head .mif .mif.gz .mih .ecat
    .nii.bz2 .nii.xz .nii.zst .dcm.gz .dcm.bz2 .dcm.xz
""")
_HEADER_OF = {".img": ".hdr", ".img.gz": ".hdr", ".rec": ".par", ".brik": ".head", ".brik.gz": ".head"}
# To open a file costs more than all else here. Some endings are of what goes with scans: BIDS, FreeSurfer, FSL.
_NO_IMAGES = _endings("""
    .csv .tsv .txt .json .jsonl .md .rst .pdf .html .htm .css .xml .xsl .log .ini .cfg .conf .toml .yml .yaml .rtf
    .doc .docx .xls .xlsx .ppt .pptx .odt .ods .odp .tex .bib .eml .msg
    .py .pyc .ipynb .js .ts .sh .bat .ps1 .exe .dll .so .c .cpp .h .java .jar .class .r .m .lnk .url
    .mat .rds .rda .rdata .npy .npz .pkl .pickle .joblib .h5 .hdf5 .parquet .feather .arrow .pt .pth .onnx
    .safetensors .ckpt .db .sqlite .sqlite3 .sql .lock .bak .tmp .md5 .sha1 .sha256
    .mp4 .avi .mov .mkv .webm .wmv .mpg .mpeg .mp3 .wav .gif .svg .ico .eps .ps .psd .heic
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


def holds_several(name: str) -> bool:
    """Whether a single file may be a source: an archive, or a volume."""
    return archive_ending(name) is not None or _ending(name) in _VOLUMES | _DICOM | _TIFF


def is_named_as_scan(name: str) -> bool:
    """Whether a file that cannot be opened is a scan all the same, by its ending: it will fail, and be seen."""
    ending = _ending(name)
    return ending in _PICTURES | _VOLUMES | _DICOM | _OTHER_SCANS


def look(name: str, open_file: Callable[[], BinaryIO], slices: Slices, pseudonyms: Pseudonyms) -> Look:
    """Look at a file.

    Args:
        name: its name, or its path with `/` between the parts.
        open_file: opens its content, which is read from its beginning on, a few KiB at a time, and closed.
        slices: which frames are wanted of a file with many.
        pseudonyms: what names patients and series.

    Returns:
        What is to be known. No value of a header is in it, except as a pseudonym.

    Raises:
        OSError: the file cannot be opened or read.
        UsageError: a pseudonym is needed, and its key cannot be loaded.
    """
    ending = _ending(name)
    told = _by_ending(ending)
    if told is not None:
        return told
    with open_file() as stream:
        return _look_into(Reader(stream), ending, slices, pseudonyms)


def _by_ending(ending: str) -> Look | None:
    """What the ending alone tells; None where the content must be looked into."""
    if (ending in _PICTURES and ending not in _TIFF) or ending in _OTHER_SCANS:
        return Look()
    if ending in _HEADER_OF:
        return Look(reason=f"the data that belongs to a {_HEADER_OF[ending]} file")
    if ending in _VOLUMES:
        return None if _is_installed("nibabel") else Look(reason="NIfTI or MGH: pip install 'scanomaly[medical]'")
    if ending in _NO_IMAGES or ending.endswith(_COMPRESSED):
        return Look(reason=NOT_AN_IMAGE)
    return None


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
    if ending in _VOLUMES:
        return Look(slice_names(reader, slices))
    if is_dicom(head) or (_may_be_bare(ending) and is_bare_dicom(head)):
        if not _is_installed("pydicom"):
            return Look(reason="DICOM: pip install 'scanomaly[medical]'")
        return _of_dicom(read_dicom(reader), slices, pseudonyms)
    if ending in _TIFF:
        return Look(_page_names(reader, slices) if is_tiff(head) else ())
    # What is called DICOM and is not fails in the worker; of all else there may be anything.
    return Look(reason=None if ending in _DICOM else NOT_AN_IMAGE)


def _may_be_bare(ending: str) -> bool:
    """Whether a name lets expect DICOM, so that a file without preamble may be taken for it."""
    return ending in _DICOM or not ending or ending[1:].isdigit()


def _of_dicom(header: Dicom, slices: Slices, pseudonyms: Pseudonyms) -> Look:
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
