"""Scans as hospitals have them, made of drawn pictures: DICOM series, NIfTI volumes, archives."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

MARKS = (
    "MARKNAME^ANNA",
    "MARKPATIENT77",
    "19991231",
    "MARKACCESSION",
    "MARKHOSPITAL",
    "MARKPRIVATE",
    "1.2.826.0.1.3680043.8.498.777",
)
"""Values of headers that name a patient, a place or a day; the last begins every UID."""


def write_dicom(path: Path, grey: np.ndarray, patient: str = "1", series: str = "1", number: int = 1) -> None:
    """Write grey of 8 bits as an MR image of 12, with identifiers wherever headers have room for them."""
    name, patient_id, day, accession, hospital, private, uid = MARKS
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{uid}.{patient}.{series}.{number}"
    dataset.PatientName, dataset.PatientID = name, f"{patient_id}-{patient}"
    dataset.PatientBirthDate = dataset.StudyDate = dataset.AcquisitionDate = day
    dataset.AccessionNumber, dataset.InstitutionName = accession, hospital
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{uid}.{patient}", f"{uid}.{patient}.{series}"
    dataset.add_new(0x00091001, "LO", private)
    dataset.InstanceNumber = number
    dataset.Rows, dataset.Columns = grey.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelSpacing = [1, 1]
    dataset.PixelData = (grey.astype("<u2") * 16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_nifti(path: Path, slices: Sequence[np.ndarray]) -> None:
    """Write slices of grey as an axial volume, the last on top, with identifiers in its header."""
    voxels = np.stack([grey.T[:, ::-1] for grey in slices], axis=-1).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, np.diag([-1, 1, 1, 1]))
    image.header["descrip"] = MARKS[0].encode()
    image.header["aux_file"] = MARKS[1].encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def grey(file: Path, side: int = 96) -> np.ndarray:
    """A picture file as grey of 8 bits, side × side."""
    with Image.open(file) as image:
        return np.asarray(image.convert("L").resize((side, side)))


def write_zip(path: Path, files: dict[str, Path]) -> None:
    """Write picture files as PNGs, by their names in the archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, file in files.items():
            content = io.BytesIO()
            Image.fromarray(grey(file)).save(content, "PNG")
            archive.writestr(name, content.getvalue())


def mixed_folder(root: Path, normal: Sequence[Path], anomaly: Sequence[Path]) -> None:
    """A folder of JPEGs, two DICOM series of two patients, a NIfTI volume and a zip of PNGs.

    Args:
        root: the folder.
        normal: 16 picture files.
        anomaly: 8 picture files.
    """
    for label, files in (("no", normal[:4]), ("yes", anomaly[:2])):
        (root / label).mkdir(parents=True)
        for file in files:
            Image.fromarray(grey(file)).save(root / label / f"{file.stem}.jpg")
    for number, file in enumerate(normal[4:8]):
        write_dicom(root / "no" / "series" / f"IM{number:04}", grey(file), "1", "1", number)
    for number, file in enumerate(anomaly[2:6]):
        write_dicom(root / "yes" / "series" / f"{number}.dcm", grey(file), "2", "1", number)
    black = np.zeros((96, 96), np.uint8)
    write_nifti(root / "no" / "brain.nii.gz", [black, *(grey(file) for file in normal[8:12]), black])
    members = {f"no/{file.stem}.png": file for file in normal[12:16]}
    write_zip(root / "more.zip", members | {f"yes/{file.stem}.png": file for file in anomaly[6:8]})
