"""DICOM, for which pydicom is loaded when the first file of it comes."""

from importlib.util import find_spec

from ....models.intensity import Intensity
from ....models.states import FailureKind
from ..images import ImageFailure
from .content import Content, Reserve


def open_dicom(data: bytes, intensity: Intensity, max_pixels: int, reserve: Reserve) -> Content:
    """Open a DICOM file: see `open_content`.

    Raises:
        ImageFailure: it has no picture, or one that cannot be read; UNSUPPORTED where pydicom is not installed.
    """
    if find_spec("pydicom") is None:
        raise ImageFailure(
            FailureKind.UNSUPPORTED, "The file is DICOM: pip install 'scanomaly[medical]' on the worker."
        )
    from .dicom_pixels import DicomContent

    return DicomContent(data, intensity, max_pixels, reserve)
