"""The pipeline: what becomes of a batch, how much memory it takes, and what its watch is told. Without torch."""

import io
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanomaly.models.errors import EncoderError
from scanomaly.models.records import BatchScan
from scanomaly.models.states import FailureKind
from scanomaly.worker.encoding.files import ScanFiles
from scanomaly.worker.encoding.images import ImageFailure
from scanomaly.worker.encoding.memory import MemoryBudget, NoRoomError, Share
from scanomaly.worker.encoding.pipeline import Embedded, LazyEncoder, Pipeline

MIB = 1 << 20


class MeanColour:
    """An encoder of three dimensions that needs no torch."""

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
    return Pipeline(LazyEncoder(load), threads, 100_000_000, memory)


def embed(pipe: Pipeline, scans: Sequence[BatchScan], folder: Path, **options: object) -> Embedded:
    files = ScanFiles(folder, False, 1 << 30)
    return pipe.embed(scans, files, options.pop("is_known", lambda sha256: False), **options)


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
                deadline = time.monotonic() + 5
                while len(budget._queue) < (90, 10, 20).index(size) + 1 and time.monotonic() < deadline:
                    time.sleep(0.001)
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
            tries = list(pool.map(work, range(400), timeout=60))
        assert max(tries) <= 3  # empty-handed, for the file, for the whole
        assert 50 < most <= 100


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
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


class Log:
    """A watch that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.threads: set[str] = set()

    def progress(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.told.append("progress")

    @contextmanager
    def suspend(self) -> Iterator[None]:
        self.told.append("suspended")
        yield
        self.told.append("resumed")


class TestWatch:
    def test_every_scan_and_every_chunk_is_progress(self, tmp_path: Path) -> None:
        log = Log()

        class Logged(MeanColour):
            def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
                log.told.append("encoded")
                return super().encode(pixels)

        embed(pipeline(load=Logged), save(tmp_path, 70), tmp_path, watch=log)
        assert log.told.count("progress") >= 70 + 3
        assert log.told.count("encoded") == 3
        assert log.told[-2:] == ["encoded", "progress"]
        assert log.told.count("suspended") == 1
        assert log.threads == {threading.current_thread().name}

    def test_loading_is_suspended_even_when_it_fails(self, tmp_path: Path) -> None:
        log = Log()

        def load() -> object:
            assert log.told == ["suspended"]
            return MeanColour()

        embed(pipeline(load=load), save(tmp_path, 1), tmp_path, watch=log)
        assert log.told[:2] == ["suspended", "resumed"]

    def test_scans_that_are_done_out_of_turn_are_progress(self, tmp_path: Path) -> None:
        """The first is slow; the others must not be taken for stuck with it."""
        scans, log = save(tmp_path, 10), Log()
        (tmp_path / "0.png").write_bytes(b"slow")
        at_the_end: list[int] = []

        def is_known(sha256: str) -> bool:
            if sha256.startswith("5e0cf7bd"):  # of b"slow"
                deadline = time.monotonic() + 20
                while log.told.count("progress") < 3 and time.monotonic() < deadline:
                    time.sleep(0.005)
                at_the_end.append(log.told.count("progress"))
            time.sleep(0.02)  # one after the other, so that each is heard of
            return True

        embed(pipeline(threads=2), scans, tmp_path, is_known=is_known, watch=log)
        assert at_the_end[0] >= 3
