"""Write the vectors of a job into files, for other programs."""

import argparse
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ..models.errors import ReportError
from ..models.hiding import Hiding
from ..models.records import Job, VectorPage
from ..models.settings import Settings
from ..models.store import Store
from .answer import answer

_SCAN = [("id", pa.int64()), ("image_path", pa.string()), ("label", pa.string()), ("sha256", pa.string())]


def export(store: Store, job: Job, form: str, folder: Path) -> int:
    """Write the embeddings of a job's embedded scans, in order of submission, into a new folder.

    Args:
        store: the store.
        job: a job that has ended.
        form: `npy` for what clip-retrieval reads: `img_emb/img_emb_0.npy`, (n, dimension) float32, and
            `metadata/metadata_0.parquet` with a row for each; `parquet` for `vectors.parquet`, with a column
            `vector`.
        folder: is made; one that is there must be empty.

    Returns:
        How many vectors there are.

    Raises:
        ReportError: the folder holds something, or cannot be written.
    """
    staging = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ReportError(f"{folder} is there already, and is not an empty folder: name a new one with --out")
        staging.mkdir(parents=True)
        count = _write_npy(store, job, staging) if form == "npy" else _write_parquet(store, job, staging)
        if folder.exists():
            folder.rmdir()
        staging.rename(folder)
    except OSError as error:
        raise ReportError(
            f"{folder} cannot be written ({error.strerror or error}): name another folder with --out"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return count


def _write_npy(store: Store, job: Job, folder: Path) -> int:
    vectors, metadata = folder / "img_emb", folder / "metadata"
    vectors.mkdir()
    metadata.mkdir()
    total = sum(len(page.scan_ids) for page in store.scores.outline(job.id))
    array: np.memmap | None = None
    count = 0
    schema = _schema(job, _SCAN)
    with parquet.ParquetWriter(metadata / "metadata_0.parquet", schema) as writer:
        for page, matrix in _pages(store, job):
            if array is None:
                shape = (total, matrix.shape[1])
                array = np.lib.format.open_memmap(vectors / "img_emb_0.npy", "w+", np.float32, shape)
            array[count : count + len(matrix)] = matrix
            writer.write_table(pa.table(_columns(store, job, page), schema=schema))
            count += len(matrix)
    if array is None:
        np.save(vectors / "img_emb_0.npy", np.empty((0, 0), np.float32))
    else:
        array.flush()
    return count


def _write_parquet(store: Store, job: Job, folder: Path) -> int:
    writer: parquet.ParquetWriter | None = None
    count = 0
    try:
        for page, matrix in _pages(store, job):
            kind = pa.list_(pa.float32(), matrix.shape[1])
            schema = _schema(job, [*_SCAN, ("vector", kind)])
            writer = writer or parquet.ParquetWriter(folder / "vectors.parquet", schema)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
            writer.write_table(pa.table([*_columns(store, job, page), vectors], schema=schema))
            count += len(matrix)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        parquet.write_table(_schema(job, _SCAN).empty_table(), folder / "vectors.parquet")
    return count


def _pages(store: Store, job: Job) -> Iterator[tuple[VectorPage, np.ndarray]]:
    for page in store.scores.vectors(job.id):
        yield page, np.frombuffer(page.vectors, "<f4").reshape(len(page.scan_ids), -1)


def _columns(store: Store, job: Job, page: VectorPage) -> list[pa.Array]:
    hiding = Hiding(job.path_key)
    scans = [scan._replace(path=hiding.path(scan.path)) for scan in store.scores.named(list(page.scan_ids))]
    return [pa.array(column, kind) for column, (_, kind) in zip(zip(*scans, strict=True), _SCAN, strict=True)]


def _schema(job: Job, columns: list[tuple[str, pa.DataType]]) -> pa.Schema:
    root = Hiding(job.path_key).place(job.root)
    return pa.schema(columns, metadata={"scanomaly_job": job.id, "encoder_key": job.encoder.key, "root": root})


def main() -> int:
    """Write the vectors and print how many there are. Returns the exit code: see `answer`."""
    parser = argparse.ArgumentParser(prog="python -m scanomaly.worker.export")
    parser.add_argument("job")
    parser.add_argument("form", choices=["npy", "parquet"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()

    def work() -> None:
        store = Store.open(Settings.from_environment(), read_only=True)
        sys.stdout.write(f"{export(store, store.find_job(options.job), options.form, options.folder)}\n")

    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
