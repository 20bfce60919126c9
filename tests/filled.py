"""Stores with large jobs that only wait to be scored: nothing was decoded or encoded for them."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, create_engine, insert, text, update

from scanomaly.models.contents import signed
from scanomaly.models.encoders import parse_encoder
from scanomaly.models.records import FoundScan, IgnoredFile, NewJob, Traits
from scanomaly.models.states import BatchState, FailureKind, JobState, Label, ScanState
from scanomaly.models.store import Store
from scanomaly.models.tables import BatchRow, ContentRow, EmbeddingRow, JobRow, ScanRow

BATCH = 32
_PAGE = 100 * BATCH


def fill(
    url: str, report: Path, scans: int, dimension: int = 512, ignored: int = 0, failed: int = 0, job_id: str = "job"
) -> None:
    """Write a job that is to be scored: random vectors, every second scan a normal, the last `failed` ones failed.

    As workers do, it writes the scans first, and batches of embeddings in order of submission later.
    """
    encoder = parse_encoder()
    found = [FoundScan(f"{n % 7}/scan {n}.png", (Label.NORMAL, Label.ANOMALY)[n % 2]) for n in range(scans)]
    left_out = [IgnoredFile(f"{n}.txt", "not an image by its ending") for n in range(ignored)]
    store = Store(url)
    store.submissions.add(NewJob(job_id, ".", "/scans", str(report), encoder, BATCH), found, left_out)
    store.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        rng = np.random.default_rng(0)
        ids = connection.scalars(
            text("SELECT id FROM scans WHERE job_id = :job ORDER BY id"), {"job": job_id}
        ).all()
        connection.commit()
        for start in range(0, scans - failed, _PAGE):
            _embed(connection, ids[start : min(start + _PAGE, scans - failed)], encoder.key, dimension, rng)
        of_job = ScanRow.job_id == job_id
        lost = {
            "state": ScanState.FAILED,
            "failure_kind": FailureKind.EMPTY,
            "failure_detail": "The file is empty.",
        }
        connection.execute(update(ScanRow).where(of_job, ScanRow.state == ScanState.PENDING).values(lost))
        _finish(connection, job_id, failed)
        connection.commit()
        if engine.dialect.name == "postgresql":  # what its autovacuum does while a job is embedded
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    engine.dispose()


def _embed(
    connection: Connection, ids: list[int], encoder_key: str, dimension: int, rng: np.random.Generator
) -> None:
    vectors = rng.standard_normal((len(ids), dimension), np.float32) + np.float32(0.3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    digests = [rng.bytes(32).hex() for _ in ids]
    # The order within a batch is that of the digests: see `Batches.finish`.
    order = sorted(range(len(ids)), key=lambda row: (row // BATCH, digests[row]))
    rows = [{"sha256": digests[row], "encoder_key": encoder_key, "vector": vectors[row].tobytes()} for row in order]
    connection.execute(insert(EmbeddingRow), rows)
    connection.execute(insert(ContentRow), [_traits(digests[row], rng) for row in order])
    statement = text("UPDATE scans SET state = :state, sha256 = :sha256 WHERE id = :id")
    scans = zip(ids, digests, strict=True)
    connection.execute(
        statement, [{"id": scan, "state": ScanState.EMBEDDED.value, "sha256": digest} for scan, digest in scans]
    )
    connection.commit()


def _traits(digest: str, rng: np.random.Generator) -> dict[str, str | int | float]:
    """Those of a picture of random looks: half of the bits of its hash are set."""
    bits = rng.permutation(64)[:32]
    number = sum(1 << int(bit) for bit in bits)
    traits = Traits("PNG", 40_000, 256, 256, 90.0, 50.0, 0.25, number)
    return {"sha256": digest} | asdict(traits) | {"perceptual_hash": signed(number)}


def _finish(connection: Connection, job_id: str, failed: int) -> None:
    """Mark all as done. The failures are counted for one batch: only the sums over a job's batches matter."""
    now = datetime.now(UTC)
    done = {"state": BatchState.DONE, "started_at": now, "finished_at": now, "embedded": BatchRow.scans}
    connection.execute(update(BatchRow).where(BatchRow.job_id == job_id).values(done))
    last = text("SELECT max(id) FROM batches WHERE job_id = :job")
    batch = connection.scalar(last, {"job": job_id})
    counts = {"embedded": BatchRow.embedded - failed, "failed": failed}
    connection.execute(update(BatchRow).where(BatchRow.id == batch).values(counts))
    connection.execute(update(JobRow).where(JobRow.id == job_id).values(state=JobState.SCORING))
