"""The pipeline: what becomes of batches, what is encoded together, how much memory it takes. Without torch."""

import gzip
import io
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanomaly.models.errors import EncoderError
from scanomaly.models.records import BatchScan, FileState
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding import opened as pipeline_opened
from scanomaly.worker.encoding.files import ScanFiles
from scanomaly.worker.encoding.images import ImageFailure
from scanomaly.worker.encoding.memory import MemoryBudget, NoRoomError, Share
from scanomaly.worker.encoding.pipeline import Embedded, Pipeline
from scanomaly.worker.encoding.places import FileVersion, LocalFolder

from ..waiting import HANGS, until

MIB = 1 << 20


class MeanColour:
    """An encoder of three dimensions that needs no torch."""

    key = "test/mean-colour"
    device = "cpu"
    image_size = (8, 8)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize(self.image_size), np.float32).mean(axis=(0, 1)) + 1

    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.stack(pixels)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def save(folder: Path, count: int, size: tuple[int, int] = (20, 10), suffix: str = "png") -> list[BatchScan]:
    for number in range(count):
        Image.new("RGB", size, (number % 256, number // 256, 99)).save(folder / f"{number}.{suffix}")
    return [BatchScan(number, f"{number}.{suffix}") for number in range(count)]


def pipeline(memory: int = 1 << 30, threads: int = 4, load: Callable[[], object] = MeanColour) -> Pipeline:
    return Pipeline(load, threads, 100_000_000, memory)


def embed(
    pipe: Pipeline,
    scans: Sequence[BatchScan],
    folder: Path,
    is_known: Callable[[str], bool] = lambda sha256: False,
    unchanged: Mapping[str, FileState] | None = None,
) -> Embedded:
    with pipe.embedded(
        scans, ScanFiles(LocalFolder(folder, False, 1 << 30), 1 << 30), is_known, unchanged
    ) as embedded:
        return embedded


def overwrite(file: Path, modified_ns: int) -> None:
    """Put other bytes of the same number into a file, and set its time."""
    file.write_bytes(b"x" * file.stat().st_size)
    os.utime(file, ns=(modified_ns, modified_ns))


class TestEmbed:
    def test_results_come_in_the_order_of_the_scans(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 100)
        found = embed(pipeline(), scans, tmp_path)
        assert [result.scan_id for result in found.results] == list(range(100))
        assert len(found.vectors) == 100
        for number, result in enumerate(found.results):
            expected = np.array([number + 1, 1, 100], np.float32)
            assert np.allclose(found.vectors[result.sha256], expected / np.linalg.norm(expected))

    def test_one_failure_stops_nothing(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 3)
        (tmp_path / "1.png").write_bytes(b"text")
        found = embed(pipeline(), [*scans, BatchScan(9, "../x.png"), BatchScan(10, "gone.png")], tmp_path)
        assert [result.failure for result in found.results] == [
            None,
            FailureKind.NOT_AN_IMAGE,
            None,
            FailureKind.OUTSIDE_ROOT,
            FailureKind.MISSING,
        ]

    def test_a_file_that_did_not_change_is_not_read(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 3)
        for scan in scans:
            os.utime(tmp_path / scan.path, ns=(10**18, 10**18))
        first = embed(pipeline(), scans, tmp_path)
        assert set(first.files) == {scan.path for scan in scans}
        overwrite(tmp_path / "0.png", 10**18)
        overwrite(tmp_path / "1.png", 10**18 + 1)
        (tmp_path / "2.png").write_bytes(b"another size")
        os.utime(tmp_path / "2.png", ns=(10**18, 10**18))
        second = embed(pipeline(), scans, tmp_path, unchanged=first.files)
        assert second.results[0] == first.results[0]
        assert [result.failure for result in second.results[1:]] == [FailureKind.NOT_AN_IMAGE] * 2
        assert second.vectors == {}
        assert set(second.files) == {"1.png", "2.png"}

    def test_a_file_that_was_changed_just_now_is_not_trusted(self, tmp_path: Path) -> None:
        """It may be changed again without another time."""
        assert embed(pipeline(), save(tmp_path, 2), tmp_path).files == {}

    def test_known_contents_never_load_the_encoder(self, tmp_path: Path) -> None:
        def load() -> object:
            raise AssertionError("loaded")

        found = embed(pipeline(load=load), save(tmp_path, 5), tmp_path, is_known=lambda sha256: True)
        assert all(result.sha256 for result in found.results)
        assert found.vectors == {}

    def test_an_encoder_that_does_not_load_ends_the_batch_and_holds_nothing(self, tmp_path: Path) -> None:
        def load() -> object:
            raise EncoderError("no weights")

        pipe = pipeline(load=load)
        with pytest.raises(EncoderError, match="no weights"):
            embed(pipe, save(tmp_path, 50), tmp_path)
        with pipe._memory.hold(0) as share:
            share.reserve(1 << 30)


class TestMemoryBudget:
    def test_a_share_grows_as_far_as_there_is_room(self) -> None:
        budget = MemoryBudget(100)
        with budget.hold(0) as first, budget.hold(50) as second:
            first.reserve(30)
            second.reserve(40)
            second.reserve(30)
            assert (first.size, second.size) == (30, 70)
            with pytest.raises(NoRoomError) as full:
                first.reserve(1)
            assert full.value.need == 31
        with budget.hold(0) as third:
            third.reserve(100)

    def test_more_than_there_ever_is(self) -> None:
        with MemoryBudget(3 * MIB).hold(0) as share:
            share.reserve(2 * MIB)
            with pytest.raises(ImageFailure) as caught:
                share.reserve(2 * MIB)
        assert caught.value.kind is FailureKind.TOO_LARGE
        assert caught.value.detail == (
            "The scan takes up to 4 MiB of memory; the limit is 3 MiB (SCANOMALY_BATCH_MEMORY)."
        )

    def test_first_come_first_served(self) -> None:
        """A large need is not passed for ever by small ones."""
        budget = MemoryBudget(100)
        order: list[int] = []

        def take(size: int) -> None:
            with budget.hold(size):
                order.append(size)

        with ThreadPoolExecutor(4) as pool, budget.hold(60):
            for size in (90, 10, 20):
                pool.submit(take, size)
                queued = (90, 10, 20).index(size) + 1
                until(lambda: len(budget._queue), size, lambda found, queued=queued: found == queued)
            with budget.hold(0) as late, pytest.raises(NoRoomError):  # there is room, but others came first
                late.reserve(5)
            assert order == []
        assert order[0] == 90

    @pytest.mark.parametrize("threads", [2, 8])
    def test_many_threads_end_and_never_hold_more_than_there_is(self, threads: int) -> None:
        budget, held, most = MemoryBudget(100), 0, 0
        lock = threading.Lock()

        def grow(share: Share, size: int) -> None:
            nonlocal held, most
            before = share.size
            share.reserve(size)
            with lock:
                held += share.size - before
                most = max(most, held)

        def work(seed: int) -> int:
            nonlocal held
            random, need, tries = np.random.default_rng(seed), 0, 0
            file, pixels = int(random.integers(1, 40)), int(random.integers(1, 60))
            while True:
                tries += 1
                try:
                    with budget.hold(need) as share:
                        with lock:
                            held += need
                        try:
                            grow(share, file)
                            time.sleep(0.0005)
                            grow(share, pixels)
                            time.sleep(0.0005)
                        finally:
                            with lock:
                                held -= share.size
                        return tries
                except NoRoomError as full:
                    need = full.need

        with ThreadPoolExecutor(threads) as pool:
            tries = list(pool.map(work, range(400), timeout=HANGS))
        assert max(tries) <= 3  # empty-handed, for the file, for the whole
        assert 50 < most <= 100

    def test_what_is_refused_or_undone_is_free(self) -> None:
        budget = MemoryBudget(100)
        with budget.hold(0) as share:
            share.reserve(30)
            for _ in range(3):
                with pytest.raises(ImageFailure):
                    share.reserve(71)
            with budget.hold(50), pytest.raises(NoRoomError):
                share.reserve(30)
            share.reserve(60)
            share.go_back(30)
            assert (share.used, share.size) == (30, 30)
            with budget.hold(70):
                pass
            share.reserve(70)
        with budget.hold(100):
            pass


class TestMemoryOfABatch:
    def test_a_scan_that_never_fits(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 2)
        Image.new("L", (4000, 4000)).save(tmp_path / "1.png")
        small, large = embed(pipeline(32 * MIB), scans, tmp_path).results
        assert small.failure is None
        assert large.failure is FailureKind.TOO_LARGE
        assert re.fullmatch(
            r"The scan takes up to 15\d\.\d MiB of memory; the limit is 32 MiB \(SCANOMALY_BATCH_MEMORY\)\.",
            large.detail or "",
        )

    def test_a_narrow_scan_costs_what_it_is_resized_to(self, tmp_path: Path) -> None:
        Image.new("L", (4, 3000)).save(tmp_path / "0.png")

        class Large(MeanColour):
            image_size = (224, 224)

        (result,) = embed(pipeline(32 * MIB, load=Large), [BatchScan(0, "0.png")], tmp_path).results
        assert result.failure is FailureKind.TOO_LARGE

    def test_all_of_a_batch_get_through_a_budget_for_one(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 60, (900, 700))
        found = embed(pipeline(11 * MIB, threads=8), scans, tmp_path)
        assert len(found.vectors) == 60

    @pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
    def test_a_budget_bounds_the_process(self, tmp_path: Path, kind: str) -> None:
        """24 scans of 4 million pixels, 8 threads: as many at one time as the budget lets through."""
        image = Image.effect_noise((500, 500), 50).convert("RGB").resize((2000, 2000), Image.Resampling.NEAREST)
        options: dict[str, object] = {"png": {"compress_level": 1}, "webp": {"method": 0}}.get(kind, {})
        buffer = io.BytesIO()
        image.save(buffer, {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP"}[kind], **options)
        for number in range(24):
            (tmp_path / f"{number}.{kind}").write_bytes(buffer.getvalue() + bytes([number]))
        budget = 96 * MIB
        with_it, without = (grown(tmp_path, kind, memory) for memory in (budget, 1 << 40))
        assert with_it < budget * 1.25
        assert without > budget * 1.5

    def test_files_count_before_they_are_decoded(self, tmp_path: Path) -> None:
        """Large files of small images: it is their content that fills the memory."""
        start = io.BytesIO()
        Image.new("RGB", (10, 10)).save(start, "PNG")
        for number in range(24):
            (tmp_path / f"{number}.png").write_bytes(start.getvalue() + bytes([number]) * (20 * MIB))
        assert grown(tmp_path, "png", 60 * MIB) < 75 * MIB
        assert grown(tmp_path, "png", 1 << 40) > 90 * MIB


def grown(folder: Path, suffix: str, memory: int) -> int:
    """How much a process grows in which a pipeline embeds 24 scans, in bytes."""
    program = """
        import re, resource, sys
        from pathlib import Path
        from tests.unit.test_pipeline import MeanColour, embed, pipeline, save
        from scanomaly.models.records import BatchScan

        def peak():
            # Linux hands a parent's ru_maxrss on to its child.
            status = Path("/proc/self/status")
            if status.exists():
                return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        folder, suffix, memory = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
        scans = [BatchScan(number, f"{number}.{suffix}") for number in range(24)]
        before = peak()
        found = embed(pipeline(memory, threads=8), scans, folder)
        assert len(found.vectors) == 24, found.results
        print(peak() - before)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder), suffix, str(memory)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def cut_volume(shape: tuple[int, int, int], cut: int = 200) -> bytes:
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.int16)
    data = gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), 1)
    return data[: len(data) - cut]


def zipped(name: str, data: bytes, cut: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()[: len(buffer.getvalue()) - cut]


MANY = 256
#: By the path of a file or member with 256 frames: the file's content, how often it is read, and what is wrong.
BROKEN: dict[str, tuple[Callable[[], bytes | None], int, FailureKind]] = {
    "cut.nii.gz/axial": (lambda: cut_volume((64, 64, MANY)), 1, FailureKind.TRUNCATED),
    "cut.nii/axial": (lambda: gzip.decompress(cut_volume((64, 64, MANY), 0))[:-1], 1, FailureKind.TRUNCATED),
    "cut.dcm/frame": (lambda: bytes(128) + b"DICM" + bytes(100), 1, FailureKind.TRUNCATED),
    "cut.tif/page": (lambda: b"II*\0" + bytes(100), 1, FailureKind.TRUNCATED),
    "text.nii/axial": (lambda: b"text" * 99, 1, FailureKind.MISSING),
    "empty.nii/axial": (lambda: b"", 1, FailureKind.EMPTY),
    "large.nii/axial": (lambda: bytes(9 * MIB), 1, FailureKind.TOO_LARGE),
    "gone.nii/axial": (lambda: None, 0, FailureKind.MISSING),
    "a.zip/cut.nii.gz/axial": (lambda: zipped("cut.nii.gz", cut_volume((64, 64, MANY))), 0, FailureKind.TRUNCATED),
    "a.zip/gone.nii.gz/axial": (lambda: zipped("a.nii.gz", b"a"), 0, FailureKind.MISSING),
    "cut.zip/a.nii.gz/axial": (lambda: zipped("a.nii.gz", b"a", 9), 0, FailureKind.TRUNCATED),
}


class CountingFolder(LocalFolder):
    def __init__(self, root: Path) -> None:
        super().__init__(root, False, 8 * MIB)
        self.calls: Counter[tuple[str, str]] = Counter()

    def version(self, path: str) -> FileVersion:
        self.calls["version", path] += 1
        return super().version(path)

    def read(self, path: str, reserve: Callable[[int], None]) -> bytes:
        self.calls["read", path] += 1
        return super().read(path, reserve)

    def open(self, path: str) -> BinaryIO:
        self.calls["open", path] += 1
        return super().open(path)


class TestFilesThatCannotBeOpened:
    @pytest.mark.parametrize("name", BROKEN)
    def test_are_opened_once_for_all_their_frames(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And what was reserved for the first does not add up: there is room for two."""
        content, reads, kind = BROKEN[name]
        file, _, _ = name.partition("/")
        data = content()
        if data is not None:
            (tmp_path / file).write_bytes(data)
        opened = count_calls(monkeypatch, pipeline_opened, "open_content")
        folder = CountingFolder(tmp_path)
        scans = [BatchScan(index, f"{name}/{index:03}") for index in range(MANY)]
        pipe = pipeline(128 * MIB)
        with pipe.embedded(scans, ScanFiles(folder, 8 * MIB), lambda sha256: False) as embedded:
            results = embedded.results
        assert {(result.failure, result.detail) for result in results} == {(kind, results[0].detail)}
        assert folder.calls["version", file] <= 1
        assert folder.calls["read", file] == reads
        assert folder.calls["open", file] == (".zip/" in name)
        assert len(opened) <= 1
        with pipe._memory.hold(128 * MIB):
            pass

    def test_a_want_of_room_is_no_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It waits, and all frames come."""
        values = np.random.default_rng(0).integers(0, 999, (64, 64, 20)).astype(np.int16)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), 1))
        opened = count_calls(monkeypatch, pipeline_opened, "open_content")
        pipe = pipeline(64 * MIB, threads=1)
        scans = [BatchScan(index, f"a.nii.gz/axial/{index:02}") for index in range(20)]
        with ThreadPoolExecutor(1) as pool:
            with pipe._memory.hold(60 * MIB):
                future = pool.submit(embed, pipe, scans, tmp_path)
                wait_until(lambda: pipe._memory._queue)
            found = future.result(60)
        assert len(found.vectors) == 20
        assert 2 <= len(opened) <= 3

    def test_a_page_that_is_too_large_takes_nothing_from_the_others(self, tmp_path: Path) -> None:
        small, large = Image.effect_noise((100, 100), 50), Image.new("L", (4000, 4000))
        pages = [large, small, large, large, large, small]
        small.save(tmp_path / "a.tif", save_all=True, append_images=pages, compression="tiff_deflate")
        scans = [BatchScan(index, f"a.tif/page/{index}") for index in range(7)]
        results = embed(pipeline(40 * MIB), scans, tmp_path).results
        assert [result.failure for result in results] == [
            FailureKind.TOO_LARGE if index in (1, 3, 4, 5) else None for index in range(7)
        ]
        assert len({result.detail for result in results if result.failure}) == 1

    def test_leave_nothing_in_memory(self, tmp_path: Path) -> None:
        """Not by the tracebacks of their failures either."""
        data = cut_volume((128, 128, 100))
        for number in range(8):
            (tmp_path / f"{number}.nii.gz").write_bytes(data)
        scans = [BatchScan(number, f"{number}.nii.gz/axial/{number:02}") for number in range(8)]
        tracemalloc.start()
        try:
            results = embed(pipeline(256 * MIB, threads=1), scans, tmp_path).results
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert {result.failure for result in results} == {FailureKind.TRUNCATED}
        assert peak < 2 * (128 * 128 * 100 * 2 + len(data))


def count_calls(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[object]:
    """What a function of a module was called with first, call by call."""
    function, calls = getattr(module, name), []

    def counted(first: object, *rest: object) -> object:
        calls.append(first)
        return function(first, *rest)

    monkeypatch.setattr(module, name, counted)
    return calls


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class TestEncoding:
    def test_batches_are_encoded_together_and_each_gets_its_own(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 60)
        sizes: list[int] = []
        prepared: list[int] = []
        go = threading.Event()

        class Slow(MeanColour):
            at_once = 16

            def preprocess(self, image: Image.Image) -> np.ndarray:
                prepared.append(1)
                return super().preprocess(image)

            def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
                go.wait(HANGS)
                sizes.append(len(pixels))
                return super().encode(pixels)

        pipe = pipeline(load=Slow)
        with ThreadPoolExecutor(3) as pool:
            batches = [scans[0:20], scans[20:40], scans[40:60]]
            futures = [pool.submit(embed, pipe, batch, tmp_path) for batch in batches]
            until(lambda: len(prepared) >= 16, "as many are prepared as may be")
            go.set()
            found = [future.result(HANGS) for future in futures]
        assert [len(one.vectors) for one in found] == [20, 20, 20]
        assert [r.scan_id for one in found for r in one.results] == list(range(60))
        assert sum(sizes) == 60
        assert max(sizes) == 16
        assert sizes[1] == 16  # more than that waited while the first were encoded

    @pytest.mark.parametrize(("where", "most"), [("cpu", 4), ("cuda:0", 8)])
    def test_beside_an_encoder_the_next_scans_are_prepared_but_not_on_its_cores(
        self, tmp_path: Path, where: str, most: int
    ) -> None:
        prepared = 0
        go = threading.Event()

        class Stuck(MeanColour):
            at_once = 4
            device = where

            def preprocess(self, image: Image.Image) -> np.ndarray:
                nonlocal prepared
                prepared += 1
                return super().preprocess(image)

            def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
                go.wait(HANGS)
                return super().encode(pixels)

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(embed, pipeline(load=Stuck, threads=8), save(tmp_path, 60), tmp_path)
            until(lambda: prepared >= most, most)
            time.sleep(0.2)  # and no more come
            assert prepared == most
            go.set()
            assert len(future.result(HANGS).vectors) == 60

    def test_one_content_is_encoded_once(self, tmp_path: Path) -> None:
        encoded: list[int] = []

        class Counting(MeanColour):
            def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
                encoded.append(len(pixels))
                return super().encode(pixels)

        scans = save(tmp_path, 40)
        for scan in scans[1:]:
            (tmp_path / scan.path).write_bytes((tmp_path / "0.png").read_bytes())
        found = embed(pipeline(load=Counting), scans, tmp_path)
        assert sum(encoded) == len(found.vectors) == 1
        assert {result.sha256 for result in found.results} == set(found.vectors)

    def test_one_content_is_encoded_once_for_all_batches_under_way(self, tmp_path: Path) -> None:
        scans, files = save(tmp_path, 1), ScanFiles(LocalFolder(tmp_path, False, 1 << 30), 1 << 30)
        pipe, known = pipeline(), False
        with pipe.embedded(scans, files, lambda sha256: known) as first:
            with pipe.embedded(scans, files, lambda sha256: known) as second:
                assert (first.encoded, second.encoded) == (1, 0)
            # Each stores it: the other may not come to that.
            assert first.vectors.keys() == second.vectors.keys() == {first.results[0].sha256}
            known = True
        with pipe.embedded(scans, files, lambda sha256: known) as third:
            assert (third.encoded, third.vectors) == (0, {})

    def test_one_broken_content_fails_each_of_its_scans(self, tmp_path: Path) -> None:
        scans = save(tmp_path, 20)
        half = (tmp_path / "0.png").read_bytes()[:-30]
        for scan in scans:
            (tmp_path / scan.path).write_bytes(half)
        found = embed(pipeline(), scans, tmp_path)
        assert {result.failure for result in found.results} == {FailureKind.TRUNCATED}

    def test_an_error_of_the_encoder_ends_every_batch_in_it(self, tmp_path: Path) -> None:
        class Broken(MeanColour):
            def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
                raise EncoderError("no memory")

        pipe, scans = pipeline(load=Broken), save(tmp_path, 80)
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(embed, pipe, part, tmp_path) for part in (scans[:40], scans[40:])]:
                with pytest.raises(EncoderError, match="no memory"):
                    future.result(HANGS)

    def test_an_encoder_that_did_not_load_is_tried_again(self, tmp_path: Path) -> None:
        errors = [EncoderError("the hub is away")]

        def load() -> object:
            if errors:
                raise errors.pop()
            return MeanColour()

        pipe, scans = pipeline(load=load, threads=1), save(tmp_path, 1)
        with pytest.raises(EncoderError):
            embed(pipe, scans, tmp_path)
        assert len(embed(pipe, scans, tmp_path).vectors) == 1

    def test_each_step_is_watched_and_no_waiting_is(self, tmp_path: Path) -> None:
        watched = 0

        @contextmanager
        def watch() -> Iterator[None]:
            nonlocal watched
            watched += 1
            yield
            watched -= 1

        class Watched(MeanColour):
            def preprocess(self, image: Image.Image) -> np.ndarray:
                assert watched == 1
                return super().preprocess(image)

            def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
                assert watched == 1
                return super().encode(pixels)

        def load() -> object:
            assert watched == 0
            return Watched()

        pipe = Pipeline(load, 1, 100_000_000, 1 << 30, watch)
        scans = save(tmp_path, 1)
        assert len(embed(pipe, scans, tmp_path, lambda sha256: watched != 0).vectors) == 1
