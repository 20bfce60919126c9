"""Links that take the place of what a service has checked, through the service itself."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.server.app import make_app
from scanomaly.worker.encoding.files import open_files
from scanomaly.worker.encoding.images import ImageFailure

from ..acceptance.conftest import write_image
from ..swapping import PLANTED, Swap, descriptors, swapping
from .conftest import DONE, Service, serving

REPORT = f"/api/v1/jobs/{DONE}/report"
SCANS = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`root/job/no/` with scans, labels and weights beside it; and the same outside, with other content."""
    folder = tmp_path_factory.mktemp("folders")
    for name in ("root", "outside"):
        write_image(folder / name / "job" / "no" / "0.png")
        for number in range(1, SCANS):
            shutil.copy(folder / name / "job" / "no" / "0.png", folder / name / "job" / "no" / f"{number}.png")
        (folder / name / "labels.csv").write_text("path,label\nno/0.png,normal\n")
    for file in (folder / "outside" / "job" / "no").iterdir():
        file.write_bytes(PLANTED)
    (folder / "outside" / "job" / "no" / f"{PLANTED.decode()}.png").write_bytes(PLANTED)
    (folder / "outside" / "labels.csv").write_text(f"path,label\nno/0.png,{PLANTED.decode()}\n")
    return folder / "root", folder / "outside"


@pytest.fixture(scope="module")
def running(new_home: Callable[[], Path], folders: tuple[Path, Path]) -> Iterator[Service]:
    with serving(new_home(), folders[0], SCANOMALY_API_SUBMITS_PER_MINUTE="100000") as service:
        yield service


def stored(running: Service, job: str) -> tuple[str, list[str]]:
    """The root that workers open, and the paths of the scans."""
    store = Store.open(Settings(home=running.user.home))
    root = store.find_job(job).root
    store.close()
    scans = running.ask("GET", f"/api/v1/jobs/{job}/scans", 200).json()["scans"]
    return root, [scan["path"] for scan in scans]


def read(running: Service, root: str, paths: list[str]) -> bytes:
    """What a worker reads of a job's scans; each that it does not read is outside."""
    files = open_files(root, False, Settings(home=running.user.home))
    content = b""
    for path in paths:
        try:
            content += files.read(files.find(path))
        except ImageFailure as failure:
            content += failure.kind.encode()
    return content


@pytest.mark.parametrize("replaced", ["job", "job/no", ""])
def test_a_source_that_becomes_a_link_after_its_check_is_not_followed(
    running: Service, folders: tuple[Path, Path], replaced: str
) -> None:
    root, outside = folders
    status = running.submit(root / "job", 201)
    assert status["source"] == str(root / "job")
    where, paths = stored(running, status["job"])
    assert len(paths) == SCANS
    swap = Swap(root / replaced, outside / replaced)
    swap()
    try:
        assert read(running, where, paths) == b"outside_root" * SCANS
    finally:
        swap.undo()
    assert b"outside_root" not in read(running, where, paths)


@pytest.mark.parametrize("replaced", ["", "job"])
def test_a_root_of_the_service_that_becomes_a_link_opens_nothing_else(
    running: Service, folders: tuple[Path, Path], replaced: str
) -> None:
    root, outside = folders
    swap = Swap(root / replaced, outside / replaced)
    swap()
    try:
        running.submit(root / "job", 403)
    finally:
        swap.undo()


def test_a_link_below_a_root_is_shown_as_it_was_named_and_stored_as_what_it_led_to(
    running: Service, folders: tuple[Path, Path]
) -> None:
    root, outside = folders
    (root / "alias").symlink_to("job")
    status = running.submit(root / "alias", 201)
    assert status["source"] == str(root / "alias")
    where, paths = stored(running, status["job"])
    assert where == str(root / "job")
    (root / "alias").unlink()
    (root / "alias").symlink_to(outside / "job")
    assert PLANTED not in read(running, where, paths)
    running.submit(root / "alias", 403)


def test_a_thousand_swaps_beside_submissions_show_nothing(running: Service, folders: tuple[Path, Path]) -> None:
    root, outside = folders
    names = ("job/no/0.png", "labels.csv", "job/no", "job")
    answers: list[Any] = []
    with swapping(*(Swap(root / name, outside / name) for name in names)):
        for options in ({}, {"labels_file": str(root / "labels.csv")}) * 2:
            answers.append(running.submit(root / "job", **options))
            if "job" in answers[-1]:
                where, paths = stored(running, answers[-1]["job"])
                assert not [path for path in paths if PLANTED.decode() in path]
                for _ in range(20):
                    assert PLANTED not in read(running, where, paths)
    assert PLANTED.decode() not in json.dumps(answers)
    assert running.submit(root / "job", labels_file=str(root / "labels.csv"))["state"] == "embedding"


# Reports


class App:
    """The service in this process, asked for the files of a report."""

    def __init__(self, home: Path) -> None:
        self._app = make_app(Settings(home=home))

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        named = [(b"host", b"localhost")] + [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "headers": named, "query_string": b""}
        await self._app(scope | {"asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send)
        answer = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], answer, b"".join(message.get("body", b"") for message in sent[1:])

    def run(self, ask: Callable[["App"], Any]) -> Any:
        async def asked() -> Any:
            async with self._app.router.lifespan_context(self._app):
                return await ask(self)

        return asyncio.run(asked())


@pytest.fixture
def report(filled_home: Path, tmp_path: Path) -> Path:
    """The folder of a report; what has its names in `outside` beside it is longer than any of its files."""
    folder = filled_home / "reports" / DONE
    (tmp_path / "outside" / DONE).mkdir(parents=True)
    for file in folder.iterdir():
        (tmp_path / "outside" / DONE / file.name).write_bytes(PLANTED * 100_000)
    return folder


def test_a_thousand_swaps_beside_downloads_show_nothing(filled_home: Path, report: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / DONE
    swaps = (
        Swap(report / "scores.csv", outside / "scores.csv"),
        Swap(report, outside),
        Swap(report.parent, outside.parent),
    )
    right = (report / "scores.csv").read_bytes()

    async def ask(app: App) -> tuple[set[bytes], set[bytes]]:
        files, lists = set(), set()
        with swapping(*swaps) as enough:
            for _ in range(100):
                files.add((await app.get(f"{REPORT}/scores.csv"))[2])
                lists.add((await app.get(REPORT))[2])
            while not enough():
                files.add((await app.get(f"{REPORT}/scores.csv"))[2])
        return files, lists

    before = descriptors()
    files, lists = App(filled_home).run(ask)
    assert not [found for found in files if PLANTED in found]
    assert not [found for found in lists if str(len(PLANTED) * 100_000).encode() in found]
    assert right in files, "nothing was ever seen"
    assert descriptors() <= before + 1


def test_what_is_sent_is_the_file_that_was_opened(filled_home: Path, report: Path) -> None:
    """Whole, in part, in several parts, or not at all; by its own media type."""
    content = (report / "scores.csv").read_bytes()

    async def ask(app: App) -> list[Any]:
        whole = await app.get(f"{REPORT}/scores.csv")
        etag = whole[1]["etag"]
        return [
            whole,
            await app.get(f"{REPORT}/scores.csv", range="bytes=2-9"),
            await app.get(f"{REPORT}/scores.csv", range="bytes=0-1,5-6"),
            await app.get(f"{REPORT}/scores.csv", range="bytes=-3", **{"if-range": etag}),
            await app.get(f"{REPORT}/scores.csv", **{"if-none-match": etag}),
            await app.get(f"{REPORT}/scores.csv", range=f"bytes={len(content)}-"),
            await app.get(f"{REPORT}/roc.png"),
        ]

    before = descriptors()
    whole, part, parts, end, same, beyond, picture = App(filled_home).run(ask)
    assert whole[0] == 200
    assert whole[2] == content
    assert whole[1]["content-type"].startswith("text/csv")
    assert whole[1]["content-length"] == str(len(content))
    assert (part[0], part[2]) == (206, content[2:10])
    assert parts[0] == 206
    assert all(piece in parts[2] for piece in (content[0:2], content[5:7]))
    assert (end[0], end[2]) == (206, content[-3:])
    assert (same[0], same[2]) == (304, b"")
    assert beyond[0] == 416
    assert picture[1]["content-type"] == "image/png"
    assert picture[2].startswith(b"\x89PNG")
    assert descriptors() <= before + 1
