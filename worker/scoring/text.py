"""What a text tower says: nearer to "abnormal" than to "normal" (Radford et al., Learning Transferable Visual
Models From Natural Language Supervision, ICML 2021; states as in Jeong et al., WinCLIP, CVPR 2023)."""

from collections.abc import Iterable
from typing import Self

import numpy as np

from .scorer import Chunk, Scores, Units, Vectors, unit_rows

_SUBJECTS = ("scan", "medical image", "picture")
PROMPTS = {
    "normal": tuple(f"a {state} {subject}" for subject in _SUBJECTS for state in ("normal", "healthy", "flawless")),
    "abnormal": tuple(
        f"a {subject} {state}"
        for subject in _SUBJECTS
        for state in ("of a disease", "with a lesion", "with an abnormality")
    ),
}


class TextScorer:
    """Scores a scan by how much nearer it is to descriptions of abnormal scans than to those of normal ones.

        score(x) = cos(x, a) − cos(x, n),      −2 ≤ score ≤ 2

    n and a are the means of the unit vectors of `PROMPTS`. It learns nothing from the normals, so there is nothing
    to leave out.
    """

    name = "text"

    def __init__(self, normal: Vectors, abnormal: Vectors) -> None:
        """Take the embeddings of the prompts of each kind: (k, d)."""
        means = np.stack([unit_rows(vectors).mean(axis=0) for vectors in (normal, abnormal)])
        normal_mean, abnormal_mean = unit_rows(means)
        self._direction = abnormal_mean - normal_mean

    def fit(self, chunks: Iterable[Chunk]) -> Self:
        """See `Scorer.fit`. Reads nothing."""
        return self

    def score(self, vectors: Vectors) -> Scores:
        """See `Scorer.score`."""
        scores: Scores = unit_rows(vectors) @ self._direction
        return scores

    def score_left_out(self, vectors: Vectors, units: Units) -> Scores:
        """See `Scorer.score_left_out`."""
        return self.score(vectors)
