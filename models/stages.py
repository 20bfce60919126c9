"""What is being done for a job, in the words that a person reads."""

from collections.abc import Sequence

WAITING = "waiting for a worker"
LOADING_ENCODER = "loading encoder"
EMBEDDING = "embedding"
SCORING = "scoring"
WRITING_REPORT = "writing report"


def scoring(scorers: Sequence[str], number: int) -> str:
    """Args:
    scorers: those that a job is scored with.
    number: which of them is at work, from 0.
    """
    place = f" {number + 1} of {len(scorers)}" if len(scorers) > 1 else ""
    return f"{SCORING} {scorers[number]}{place}"
