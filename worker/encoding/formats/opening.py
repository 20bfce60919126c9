"""A file's content, whatever its format: which reader opens it is decided by its first bytes, never by its name."""

import re

from ....models.intensity import Intensity
from ....models.sources.dicom import is_bare_dicom, is_dicom
from ....models.states import FailureKind
from ..images import ImageFailure
from . import dicom, nifti, tiff
from .content import Content, Reserve
from .pictures import PictureContent
from .tiff_directory import is_tiff

_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8", b"RIFF")

#: What is known and not read. Only what a file begins with is looked at: halves of pairs that hold plain values,
#: such as `.img`, `.REC` and `.BRIK`, begin with anything.
_UNREAD = {
    "NRRD": rb"NRRD\d{4}",
    "MetaImage": rb"(?:Comment[^\n]*\n)?ObjectType\s*=\s*Image",
    "netCDF (MINC 1)": rb"CDF[\x01\x02\x05]",
    "HDF5 (MINC 2)": rb"\x89HDF\r\n\x1a\n",
    "Philips PAR/REC": rb"# === DATA DESCRIPTION FILE",
    "AFNI HEAD/BRIK": rb"\s*type\s*=\s*(?:string|integer|float)-attribute",
    "ECAT": rb"MATRIX7[0-9]",
    "MRtrix": rb"mrtrix image",
    "an Analyze header": rb"(?:\x5c\x01\x00\x00|\x00\x00\x01\x5c)(?=[\s\S]{344})",
}
_UNREAD_BEGINNINGS = [(name, re.compile(pattern)) for name, pattern in _UNREAD.items()]


def open_content(data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve, has_frames: bool) -> Content:
    """Open a file's content. Safe to call from several threads, with the same `max_pixels` in all.

    Args:
        data: the whole file.
        intensity: how grey of more than 8 bits, and the values of DICOM and NIfTI, become 8 bits.
        max_pixels: width × height above which a picture is not made.
        reserve: called with a number of bytes before they are allocated here.
        has_frames: whether the frames of the file are scans of their own. A TIFF file without is its first page.

    Returns:
        The content; what is wrong with a picture is told when it is asked for.

    Raises:
        ImageFailure: it cannot be opened; UNSUPPORTED also where a format is known and not read.
    """
    if is_dicom(data):
        return dicom.open_dicom(data, intensity, max_pixels, reserve)
    if is_tiff(data):
        return tiff.open_tiff(data, intensity, max_pixels, reserve, has_frames)
    if data.startswith(_PICTURES):
        return PictureContent(data, intensity, max_pixels)
    return _open_other(data, intensity, max_pixels, reserve)


def _open_other(data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> Content:
    """Open what does not begin as a picture."""
    if nifti.is_nifti(data):
        return nifti.open_nifti(data, intensity, max_pixels, reserve)
    if is_bare_dicom(data):
        return dicom.open_dicom(data, intensity, max_pixels, reserve)
    beginning = nifti.start(data)
    for name, pattern in _UNREAD_BEGINNINGS:
        if pattern.match(beginning):
            detail = f"The file is {name}, which is not read: convert it to NIfTI."
            raise ImageFailure(FailureKind.UNSUPPORTED, detail)
    return PictureContent(data, intensity, max_pixels)
