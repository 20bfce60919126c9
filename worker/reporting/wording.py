"""What each scorer's number means, in words."""

AXES = {
    "centroid": "Cosine distance to the normal reference",
    "knn": "Mean cosine distance to the 5 nearest normals",
    "mahalanobis": "Mahalanobis distance to the mean of the normals",
    "patch_knn": "Distance of the 3 worst patches to the nearest normals'",
    "patch_knn_mirror": "Distance of the 3 worst patches, with their mirrored difference",
    "text": "Cosine to “abnormal” less cosine to “normal”",
}

MEANINGS = {
    "centroid": "its cosine distance to the mean of the normal scans: 0 is the same direction, higher is less like "
    "them",
    "knn": "its mean cosine distance to the 5 normal scans nearest to it: 0 is the same direction, higher is less "
    "like any of them",
    "mahalanobis": "its distance to the mean of the normal scans, measured in each direction by how far the normal "
    "scans spread there",
    "patch_knn": "how far its 3 most unusual patches are from the patches most like them in the 3 nearest normal "
    "scans: 0 is found there as it is",
    "patch_knn_mirror": "the same as patch_knn, where each patch counts with its difference from the patch at the "
    "mirrored place, left for right: fit for pictures of what is nearly symmetric",
    "text": "how much nearer the encoder puts it to descriptions of abnormal scans than to those of normal ones",
}
