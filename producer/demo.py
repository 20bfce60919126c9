"""What `make demo` runs: the real data set and CLIP where they can be had, else what comes along, said aloud."""

from collections.abc import Callable

from ..models.encoders import OFFLINE_ENCODER, EncoderSpec, parse_encoder
from ..models.errors import HubUnreachableError, KaggleUnreachableError
from ..models.scorers import SCORERS, TEXT_SCORER
from ..models.settings import Settings
from .datasets import resolve
from .local import require_encoder
from .submit import Request

KAGGLE_SOURCE = "kaggle:navoneel/brain-mri-images-for-brain-tumor-detection"
SAMPLE_SOURCE = "sample:"
# All that learn from the normals, the reference method first.
_SCORERS = tuple(name for name in SCORERS if name != TEXT_SCORER)


def demo_request(source: str | None, settings: Settings, say: Callable[[str], None]) -> Request:
    """Choose the source and the encoder, and note why where it is not the first choice.

    Args:
        source: what the user wants to see scored; None for the data set of the reference method.
        settings: the settings.
        say: is told what takes a while.
    """
    notes: dict[str, str] = {}
    if source is None:
        say(f"Looking for {KAGGLE_SOURCE}")
        source = _source(settings, notes, say)
    say(f"Looking for the weights of {parse_encoder().key}")
    encoder = _encoder(notes, say)
    return Request(source, encoder, batch_size=settings.batch_size, scorers=_SCORERS, notes=notes)


def _source(settings: Settings, notes: dict[str, str], say: Callable[[str], None]) -> str:
    try:
        resolve(KAGGLE_SOURCE, settings)
        return KAGGLE_SOURCE
    except KaggleUnreachableError as error:
        say("Kaggle cannot be reached: taking the built-in sample")
        notes["source"] = (
            f"the built-in sample, drawn by the program, stands in for the Kaggle data set: {_reason(error)}"
        )
        return SAMPLE_SOURCE


def _encoder(notes: dict[str, str], say: Callable[[str], None]) -> EncoderSpec:
    encoder = parse_encoder()
    try:
        require_encoder(encoder, fetch=True)
        return encoder
    except HubUnreachableError as error:
        say(f"The model hub cannot be reached: taking {OFFLINE_ENCODER}")
        notes["encoder"] = f"the offline encoder {OFFLINE_ENCODER} stands in for {encoder.model}: {_reason(error)}"
        return parse_encoder(OFFLINE_ENCODER)


def _reason(error: Exception) -> str:
    """What is wrong, without the ways out: one was taken."""
    return str(error).split(": ")[0]
