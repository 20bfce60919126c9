"""What each scorer's number means, in words."""

AXES = {
    "centroid": "Cosine distance to the normal reference",
    "knn": "Mean cosine distance to the 5 nearest normals",
    "mahalanobis": "Mahalanobis distance to the mean of the normals",
}

MEANINGS = {
    "centroid": "its cosine distance to the mean of the normal scans: 0 is the same direction, higher is less like "
    "them",
    "knn": "its mean cosine distance to the 5 normal scans nearest to it: 0 is the same direction, higher is less "
    "like any of them",
    "mahalanobis": "its distance to the mean of the normal scans, measured in each direction by how far the normal "
    "scans spread there",
}
