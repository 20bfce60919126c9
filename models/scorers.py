"""The names of the scorers. What they compute is in `worker/scoring/`, which needs NumPy."""

from collections.abc import Sequence

from .encoders import EncoderSpec
from .errors import UsageError
from .nearest import nearest

DEFAULT_SCORERS = ("centroid",)
PATCH_SCORERS = ("patch_knn", "patch_knn_mirror")
TEXT_SCORER = "text"
SCORERS = ("centroid", "knn", "mahalanobis", *PATCH_SCORERS, TEXT_SCORER)


def parse_scorers(text: str) -> tuple[str, ...]:
    """Read names of scorers with commas between them; one that comes twice counts once.

    Raises:
        UsageError: there is none, or one is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in SCORERS:
            raise UsageError(f"unknown scorer {name!r}{nearest(name, SCORERS)}: choose from {', '.join(SCORERS)}")
    if not names:
        raise UsageError(f"no scorer is named: choose from {', '.join(SCORERS)}")
    return names


def check_scorers(names: Sequence[str], encoder: EncoderSpec) -> None:
    """Find out whether the scorers can work with what an encoder makes.

    Raises:
        UsageError: one cannot.
    """
    if TEXT_SCORER in names and not encoder.library == "open_clip":
        raise UsageError(f"the scorer text needs a text tower, which {encoder.model} has not: leave it out")
    if needs_patches(names) and encoder.plugin:
        raise UsageError(f"patch_knn needs patches, which {encoder.model} does not make: leave it out")


def workable_scorers(encoder: EncoderSpec, stored: bool = False) -> tuple[str, ...]:
    """The scorers that can work with what an encoder makes.

    Args:
        encoder: the encoder.
        stored: whether it made all that it ever will, so that patches that it did not make are not there.
    """

    def works(name: str) -> bool:
        try:
            check_scorers((name,), encoder)
        except UsageError:
            return False
        return not (stored and needs_patches((name,)) and not encoder.patches)

    return tuple(filter(works, SCORERS))


def needs_patches(names: Sequence[str]) -> bool:
    """Whether a scorer compares patches, which the encoder then has to make."""
    return any(name in PATCH_SCORERS for name in names)
