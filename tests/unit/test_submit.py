"""From a source to the rows of a job, over a real store: in one part or in many."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import SourceError, StoppedError
from scanomaly.models.records import Job
from scanomaly.models.settings import Settings
from scanomaly.models.states import JobState, Label
from scanomaly.models.store import Store
from scanomaly.producer import submit
from scanomaly.producer.submit import Prepared, Request, prepare, store_job
from tests.hospital import write_nifti

from ..waiting import HANGS

OFFLINE = parse_encoder("efficientnet_lite0")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings)
    yield store
    store.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_PART_FILES", 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten normal scans, ten anomalies, and a note after every second one."""
    root = tmp_path / "scans"
    for name in ("no", "yes"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            (root / name / f"{number:02}.png").touch()
            if number % 2:
                (root / name / f"{number:02}.txt").touch()
    return root


def prepared(folder: Path, settings: Settings, batch_size: int = 3) -> Prepared:
    return prepare(Request(str(folder), OFFLINE, batch_size=batch_size), settings)


def stored_paths(store: Store, job: Job) -> list[list[str]]:
    """The paths of each batch."""
    batches = [store.batches.begin(batch_id, "w1") for batch_id in store.batches.unfinished(job.id)]
    return [[scan.path for scan in batch.scans] for batch in batches if batch]


def no_call(_job_id: str) -> None:
    pass


def test_a_source_is_counted_before_anything_is_stored(folder: Path, settings: Settings) -> None:
    counts = prepared(folder, settings).counts
    assert counts.labels == {Label.NORMAL: 10, Label.ANOMALY: 10}
    assert counts.ignored == {"not an image by its ending": 10}


def test_a_source_without_images(folder: Path, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty holds no image: "):
        prepared(tmp_path / "empty", settings)
    for file in folder.rglob("*.png"):
        file.unlink()
    with pytest.raises(SourceError, match="among its 10 files"):
        prepared(folder, settings)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_a_job_in_parts_is_the_job_in_one(
    folder: Path, settings: Settings, store: Store, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store_job(prepared(folder, settings, batch_size), store, settings, no_call)
    monkeypatch.setattr(submit, "_PART_FILES", 4)
    told: list[int] = []
    parts = store_job(
        prepared(folder, settings, batch_size), store, settings, no_call, lambda _, files: told.append(files)
    )
    assert len(told) > 2
    assert told[-1] == 30
    assert parts.whole
    assert stored_paths(store, parts) == stored_paths(store, whole)
    assert list(store.scores.ignored(parts.id)) == list(store.scores.ignored(whole.id))
    for job in (parts, whole):
        assert (job.scans, job.normal, job.anomaly, job.ignored) == (20, 10, 10, 10)


def test_workers_are_called_while_a_job_is_stored(
    folder: Path, settings: Settings, store: Store, small_parts: None
) -> None:
    called = threading.Event()
    parts: list[bool] = []

    def stored(job_id: str, _files: int) -> None:
        parts.append(store.find_job(job_id).whole)
        if len(parts) == 2:  # the next part waits until the workers were called
            assert called.wait(HANGS)

    store_job(prepared(folder, settings, 2), store, settings, lambda _: called.set(), stored)
    assert parts == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 2


def test_what_was_counted_is_stored(folder: Path, settings: Settings, store: Store, small_parts: None) -> None:
    """Files come and go while a large source is looked through: the numbers that a person was told hold."""
    ready = prepared(folder, settings)
    (folder / "no" / "00.png").unlink()
    (folder / "yes" / "more.jpg").touch()
    job = store_job(ready, store, settings, no_call)
    assert (job.scans, job.normal, job.anomaly) == (20, 10, 10)
    paths = [path for batch in stored_paths(store, job) for path in batch]
    assert ("no/00.png" in paths, "yes/more.jpg" in paths) == (True, False)


def test_slices_of_a_volume_stay_in_one_batch(
    folder: Path, settings: Settings, store: Store, small_parts: None
) -> None:
    write_nifti(folder / "no" / "b.nii", [np.full((8, 8), number, np.uint8) for number in range(14)])
    job = store_job(prepared(folder, settings), store, settings, no_call)
    batches = [[path for path in batch if "b.nii/" in path] for batch in stored_paths(store, job)]
    assert [len(batch) for batch in batches if batch] == [14]
    assert job.scans == 34


def test_ctrl_c_fails_what_is_not_whole(folder: Path, settings: Settings, store: Store, small_parts: None) -> None:
    def stored(_job_id: str, files: int) -> None:
        if files > 4:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="submit it again"):
        store_job(prepared(folder, settings), store, settings, no_call, stored)
    (job,) = store.lists.jobs()
    assert (job.state, job.whole) == (JobState.FAILED, False)
    assert "stopped before it was whole; submit it again" in str(job.error)


def test_ctrl_c_leaves_a_job_alone_that_is_whole(folder: Path, settings: Settings, store: Store) -> None:
    def stored(_job_id: str, _files: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_job(prepared(folder, settings), store, settings, no_call, stored)
    (job,) = store.lists.jobs()
    assert (job.state, job.whole) == (JobState.EMBEDDING, True)


def test_a_job_that_is_cancelled_takes_no_more(
    folder: Path, settings: Settings, store: Store, small_parts: None
) -> None:
    def stored(job_id: str, _files: int) -> None:
        store.cancel(job_id)

    job = store_job(prepared(folder, settings), store, settings, no_call, stored)
    assert (job.state, job.whole) == (JobState.CANCELLED, False)
    assert job.scans < 20


_PEAK = """
import resource, sys
from pathlib import Path
from scanomaly.models.encoders import parse_encoder
from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.submit import Request, prepare, store_job

settings = Settings(home=Path(sys.argv[2]))
request = Request(sys.argv[1], parse_encoder("efficientnet_lite0"), normal=["*"])
job = store_job(prepare(request, settings), Store.open(settings), settings, lambda job_id: None)
print(job.scans, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(folder: Path, files: int) -> int:
    """Of a process that submits a folder of so many files, in bytes."""
    for number in range(files):
        if number % 1000 == 0:
            (folder / f"{number:06}").mkdir(parents=True)
        open(f"{folder}/{number // 1000 * 1000:06}/{number:06}.png", "x").close()
    command = [sys.executable, "-c", _PEAK, str(folder), f"{folder}-home"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    scans, kibibytes = map(int, done.stdout.split())
    assert scans == files
    return kibibytes * 1024


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    grown = peak_memory(tmp_path / "large", 100_000) - peak_memory(tmp_path / "small", 1_000)
    assert grown < 15_000_000  # the rows of one part; whoever keeps all paths needs twice as much
