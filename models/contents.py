"""What is known of a content, whatever files and jobs it comes in: its embedding, its traits, its patches."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from .database import Database, upsert
from .encoders import EncoderSpec
from .records import NewContent, Traits
from .tables import Base, ContentRow, EmbeddingRow, PatchesRow

_SIGN = 1 << 63
_PAGE = 1000


class Contents:
    """The contents of a store. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_known(self, sha256: str, encoder: EncoderSpec) -> bool:
        """Whether the store has all of a content that a job with this encoder needs."""
        with self._database.read() as session:
            return bool(session.scalar(select(known(literal(sha256), encoder))))

    def vectors(self, digests: Sequence[str], encoder: EncoderSpec) -> dict[str, bytes]:
        """The embeddings of contents by their digests: float32, little-endian."""
        return self._read(
            EmbeddingRow.sha256, EmbeddingRow.vector, EmbeddingRow.encoder_key == encoder.key, digests
        )

    def patches(self, digests: Sequence[str], encoder: EncoderSpec) -> dict[str, bytes]:
        """The patches of contents by their digests, as `worker/patches.py` packs them."""
        return self._read(
            PatchesRow.sha256, PatchesRow.patches, PatchesRow.patches_key == encoder.patches_key, digests
        )

    def _read(
        self,
        digest: InstrumentedAttribute[str],
        value: InstrumentedAttribute[bytes],
        condition: ColumnElement[bool],
        digests: Sequence[str],
    ) -> dict[str, bytes]:
        wanted = sorted(set(digests))
        found: dict[str, bytes] = {}
        for start in range(0, len(wanted), _PAGE):
            page = digest.in_(wanted[start : start + _PAGE])
            with self._database.read() as session:
                for sha256, content in session.execute(select(digest, value).where(condition, page)):
                    found[sha256] = content
        return found


def known(sha256: ColumnElement[str] | InstrumentedAttribute[str], encoder: EncoderSpec) -> ColumnElement[bool]:
    """The condition that the store has all of a content that a job with this encoder needs."""
    parts = [
        exists().where(EmbeddingRow.sha256 == sha256, EmbeddingRow.encoder_key == encoder.key),
        exists().where(ContentRow.sha256 == sha256),
    ]
    if encoder.patches:
        parts.append(exists().where(PatchesRow.sha256 == sha256, PatchesRow.patches_key == encoder.patches_key))
    return and_(*parts)


def add_contents(session: Session, encoder: EncoderSpec, new: Mapping[str, NewContent]) -> None:
    """Write contents by digest; what is there already stays."""
    # Sorted, so that two workers with the same content take PostgreSQL's row locks in one order.
    ordered = [(sha256, new[sha256]) for sha256 in sorted(new)]
    vectors = [
        {"sha256": sha256, "encoder_key": encoder.key, "vector": content.vector} for sha256, content in ordered
    ]
    traits = [{"sha256": sha256} | _values(content.traits) for sha256, content in ordered]
    patches = [
        {"sha256": sha256, "patches_key": encoder.patches_key, "patches": content.patches}
        for sha256, content in ordered
        if content.patches is not None
    ]
    tables: list[tuple[type[Base], list[dict[str, Any]]]] = [
        (EmbeddingRow, vectors),
        (ContentRow, traits),
        (PatchesRow, patches),
    ]
    for table, rows in tables:
        if rows:
            session.execute(upsert(session, table).on_conflict_do_nothing(), rows)


def signed(number: int) -> int:
    """64 bits as the databases have them: the highest is the sign."""
    return number - 2 * _SIGN if number >= _SIGN else number


def _values(traits: Traits) -> dict[str, Any]:
    return asdict(traits) | {"perceptual_hash": signed(traits.perceptual_hash)}
