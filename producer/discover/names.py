"""What a name alone tells of a file or a folder: that it is hidden, the operating system's, or a mask of scans.

Nothing here depends on what else there is, so a folder, an archive and a bucket with the same names hold the same
scans. What a person names, the source itself or a file of a list, is never ignored for being called a mask.
"""

import re

HIDDEN = "hidden"
SYSTEM = "what an operating system or a file server keeps for itself"
OFFICE = "what an office program keeps while a file is open"
MASK = "a mask by its name, not a scan: give its folder, or a list of files, as the source to take it"

_SYSTEM_FOLDERS = frozenset({
    # Windows, macOS, Linux
    "$recycle.bin", "recycler", "system volume information", "found.000", "__macosx", "lost+found",
    # Synology, QNAP, NetApp
    "@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot",
})  # fmt: skip
_MASK_FOLDERS = frozenset({
    "ground_truth", "groundtruth", "ground-truth", "ground truth", "gt",  # MVTec AD, LOCO and 3D, BTAD
    "mask", "masks", "anomaly_mask",  # VisA, MPDD
    "segmentation", "segmentations", "labelstr", "labelsts", "labelsval",  # nnU-Net, Medical Segmentation Decathlon
})  # fmt: skip

_MASK_FILE = re.compile(
    r"""
    .* [ _.-] (?:
        masks? (?: [ _-]? [0-9]+ )?             # BUSI: x_mask_1.png; LGG: x_12_mask.tif; MVTec AD: 000_mask.png
      | segmentations? | ground[ _-]?truth      # ISIC: x_segmentation.png
      | d?seg (?= \.nii | \.mg[hz] | \.nrrd | \.mh[ad] )     # BraTS: x_seg.nii.gz; BIDS: x_dseg.nii.gz
    )
    (?: \.nii )? \. [a-z0-9~]+                  # its ending
    """,
    re.VERBOSE | re.DOTALL,
)


class NameRules:
    """Which names below a source are no scans'."""

    def __init__(self, root: str) -> None:
        """Take the source's folder or URL: below one that is called a mask folder, masks are what is wanted."""
        self._takes_masks = any(part.lower() in _MASK_FOLDERS for part in root.split("/"))

    def folder_reason(self, name: str) -> str | None:
        """Why a folder is ignored with all that is in it; None where it is not."""
        if name[:1] == ".":
            return HIDDEN
        name = name.lower()
        if name in _SYSTEM_FOLDERS:
            return SYSTEM
        return MASK if name in _MASK_FOLDERS and not self._takes_masks else None

    def file_reason(self, name: str) -> str | None:
        """Why a file is ignored; None where it is not."""
        if name[:1] == ".":
            return HIDDEN
        if name[:2] == "~$":
            return OFFICE
        name = name.lower()
        # Of a million names few need the pattern.
        is_candidate = not self._takes_masks and ("mask" in name or "seg" in name or "truth" in name)
        return MASK if is_candidate and _MASK_FILE.fullmatch(name) else None

    def path_reason(self, path: str) -> tuple[str, str] | None:
        """Of a path: the folder or the file for which it is ignored, and why; None where it is not."""
        start = 0
        while (end := path.find("/", start)) >= 0:
            if reason := self.folder_reason(path[start:end]):
                return path[:end], reason
            start = end + 1
        reason = self.file_reason(path[start:])
        return (path, reason) if reason else None
