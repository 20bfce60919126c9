"""Damaged files end as pixels or as an ImageFailure: no other exception, crash, hang or heap of memory."""

import io
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import decode

from .mutations import mutated_files, samples
from .scans import draw_scans
from .world import World

COUNT = 2000
PROGRAM = """
    import json, os, re, resource, signal, sys, time, warnings
    from pathlib import Path
    from scanomaly.worker.encoding.files import ScanFiles
    from scanomaly.worker.encoding.images import ImageFailure
    from scanomaly.models.intensity import Intensity
    from scanomaly.worker.encoding.formats.opening import open_content
    from scanomaly.worker.encoding.places import LocalFolder

    def peak():
        # Linux hands a parent's ru_maxrss on to its child.
        status = Path("/proc/self/status")
        if status.exists():
            return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    folder, kinds, slowest = Path(sys.argv[1]), {}, 0.0
    files = ScanFiles(LocalFolder(folder, False, 1 << 30), 1 << 30)
    before = peak()
    for path in sorted(folder.iterdir()):
        print(path.name, file=sys.stderr)  # the last one, if the process dies
        signal.alarm(20)
        start = time.monotonic()
        try:
            data = files.read(files.find(path.name))
            content = open_content(data, Intensity("auto"), 1_000_000, lambda size: None, False)
            image = content.picture(None, lambda size, need: None)
            kind = image.mode
            image.tobytes()
        except ImageFailure as failure:
            kind = failure.kind.value
            assert failure.detail.endswith(".") and "\\n" not in failure.detail
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - start)
        kinds[kind] = kinds.get(kind, 0) + 1
    print(json.dumps({"kinds": kinds, "slowest": slowest, "grown": peak() - before}))
"""


def test_the_samples_are_images() -> None:
    assert {Image.open(io.BytesIO(data)).format for data in samples().values()} == {
        *("JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
    }
    for data in samples().values():
        assert decode(data, 1_000_000).mode == "RGB"


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        paths = mutated_files(tmp_path / name, 50, seed)
        contents.append([(path.name, path.read_bytes()) for path in paths])
    assert contents[0] == contents[1] != contents[2]
    assert sum(path.read_bytes() in samples().values() for path in paths) < 5


@pytest.mark.parametrize("seed", [1])
def test_pixels_or_a_failure(tmp_path: Path, seed: int) -> None:
    mutated_files(tmp_path, COUNT, seed)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)
    assert sum(found["kinds"].values()) == COUNT
    assert {"RGB", "truncated", "not_an_image", "too_large"} <= set(found["kinds"])
    assert found["kinds"]["RGB"] > COUNT / 20
    assert found["slowest"] < 10
    assert found["grown"] < 100 << 20


def test_a_job_of_damaged_files_accounts_for_each_and_loses_no_worker(tmp_path: Path) -> None:
    draw_scans(tmp_path / "scans", 20)
    mutated_files(tmp_path / "scans" / "yes", COUNT, 2)
    with World("sqlite", workers=1) as world:
        world.submit(tmp_path / "scans", "--encoder", "chaos").wait()
        world.until(world.ended, "the job ends")
        assert world.state() == "done", world.describe()
        states = dict(world.rows("SELECT state, count(*) FROM scans GROUP BY state"))
        assert {"embedded", "failed"} <= set(states) <= {"embedded", "failed", "skipped"}
        # A damaged directory of a TIFF may tell of several pages: the scans then are these.
        paths = [path for (path,) in world.rows("SELECT path FROM scans")]
        assert len({re.sub("/page/[0-9]+$", "", path) for path in paths}) == COUNT + 20
        assert world.rows("SELECT count(*) FROM scans WHERE failure_kind = 'crashed_worker'") == [(0,)]
        assert world.rows("SELECT max(deaths) FROM batches") == [(0,)], world.describe()
        assert world.workers[0].exit_codes == []
