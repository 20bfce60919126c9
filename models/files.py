"""What files held when they were last read, so that one that did not change since need not be read again."""

import hashlib
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from .contents import known
from .database import Database, upsert
from .encoders import EncoderSpec
from .records import AUTO_INTENSITY, FileState
from .tables import FileRow


class Files:
    """The files that were read. Every method raises StoreUnreachableError when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def embedded(
        self, root: str, intensity: str, paths: Sequence[str], encoder: EncoderSpec
    ) -> dict[str, FileState]:
        """Of some files below a root, those whose content was known when they were last read, by path.

        Args:
            root: the absolute folder that the paths are relative to, as the job names it.
            intensity: how they are read.
            paths: of the files.
            encoder: what is to be known of their contents is what a job with it needs.
        """
        path_of = {_digest(root, intensity, path): path for path in paths}
        query = select(FileRow).where(FileRow.path_digest.in_(path_of), known(FileRow.sha256, encoder))
        with self._database.read() as session:
            return {
                path_of[row.path_digest]: FileState(row.size, row.modified_ns, row.sha256)
                for row in session.scalars(query)
            }


def remember(session: Session, root: str, intensity: str, files: Mapping[str, FileState]) -> None:
    """Note what files held that were read; what was noted before is replaced."""
    if not files:
        return
    by_digest = {_digest(root, intensity, path): file for path, file in files.items()}
    # Sorted, so that two workers with the same files take PostgreSQL's row locks in one order.
    rows = [
        {"path_digest": digest, "size": file.size, "modified_ns": file.modified_ns, "sha256": file.sha256}
        for digest, file in sorted(by_digest.items())
    ]
    statement = upsert(session, FileRow)
    new = {name: statement.excluded[name] for name in ("size", "modified_ns", "sha256")}
    session.execute(statement.on_conflict_do_update(index_elements=[FileRow.path_digest], set_=new), rows)


def _digest(root: str, intensity: str, path: str) -> bytes:
    """Stands for the absolute path, which would take more room than all else that is known of a file."""
    how = "" if intensity == AUTO_INTENSITY else f"\0{intensity}"
    return hashlib.blake2b(f"{root.rstrip('/')}/{path}{how}".encode(), digest_size=16).digest()
