"""What the form for a job offers: encoders that a worker has, and scorers that can work with one of them."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ...models.encoders import DEFAULT_ENCODER, OFFLINE_ENCODER, EncoderSpec, parse_encoder
from ...models.errors import UsageError
from ...models.records import JobFilter
from ...models.scorers import SCORERS, workable_scorers
from ...models.states import JobState
from ...models.store import Store


@dataclass(frozen=True)
class Choices:
    """What can be chosen in the form; others can be typed."""

    encoders: tuple[str, ...]
    """Names; the first is taken where none is given."""
    scorers: tuple[str, ...]

    @property
    def encoder(self) -> str:
        return self.encoders[0]


def find_choices(store: Store) -> Choices:
    """What the living workers can do; where none of them has an encoder, what the last done job was made with.

    Raises:
        StoreUnreachableError: the database cannot be used.
    """
    names = dict.fromkeys(name for worker in store.workers.all() if worker.alive for name in worker.encoders)
    if not names:
        names = dict.fromkeys(encoder_name(job.encoder) for job in store.lists.jobs(JobFilter((JobState.DONE,)), 1))
    known = list(names)
    if not known:
        return Choices((DEFAULT_ENCODER, OFFLINE_ENCODER), SCORERS)
    usual = [name for name in (DEFAULT_ENCODER, OFFLINE_ENCODER) if name in known]
    workable = {scorer for spec in _specs(known) for scorer in workable_scorers(spec)}
    return Choices(
        tuple(dict.fromkeys([*usual, *known])), tuple(name for name in SCORERS if name in workable) or SCORERS
    )


def encoder_name(spec: EncoderSpec) -> str:
    """An encoder as a person names it."""
    return spec.options[1]


def _specs(names: list[str]) -> Iterator[EncoderSpec]:
    for name in names:
        with suppress(UsageError):  # a plug-in that only the worker has installed
            yield parse_encoder(name)
