"""Submissions that take what others need: places, time, memory."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scanomaly.models.errors import SourceError
from scanomaly.models.settings import Settings
from scanomaly.producer.server import submissions
from scanomaly.producer.server.problems import problem_of
from scanomaly.producer.server.submissions import NoPlaceError, Submissions

from ..acceptance.conftest import write_image
from ..unit.test_bounded_files import NO_FILES
from .conftest import Service

T = TypeVar("T")
SILENT = "exec sleep 600"
TELLS_JOB = 'echo \'{"job": "j1"}\''
FINDS = "for n in $(seq 30); do echo '{\"files\": 1}'; sleep 0.1; done; " + TELLS_JOB


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Take submissions whose processes run a program of the test's: what matters is what it does to others."""

    def act(code: str, work: Callable[[Submissions], Awaitable[T]], **bounds: float) -> T:
        monkeypatch.setattr(submissions, "python_command", lambda _: ["sh", "-c", code])
        for name, value in bounds.items():
            monkeypatch.setattr(submissions, f"_{name.upper()}", value)

        async def taken() -> T:
            made = Submissions(Settings(api_roots=(tmp_path,), api_submits_per_minute=1000, store_seconds=0.1))
            try:
                return await work(made)
            finally:
                await made.close()

        return asyncio.run(taken())

    return act


def test_one_that_finds_nothing_is_ended_and_its_place_is_free(act: Callable[..., Any], tmp_path: Path) -> None:
    async def nine(taken: Submissions) -> list[Any]:
        asked = (taken.submit(str(tmp_path), None, {}) for _ in range(9))
        return await asyncio.gather(*asked, return_exceptions=True)

    for error in act(SILENT, nine, silent_seconds=1.0, place_seconds=600.0):
        assert isinstance(error, SourceError)
        assert "gave no scan for 1 s" in str(error)
        assert problem_of(error).status_code == 422


def test_one_that_finds_scans_may_take_longer(act: Callable[..., Any], tmp_path: Path) -> None:
    """Three seconds, of which it is never silent for two."""
    assert act(FINDS, lambda taken: taken.submit(str(tmp_path), None, {}), silent_seconds=2.0) == "j1"


def test_one_that_has_told_its_job_is_ended_too(act: Callable[..., Any], tmp_path: Path) -> None:
    async def five(taken: Submissions) -> list[str]:
        return [await taken.submit(str(tmp_path), None, {}) for _ in range(5)]

    code = f"{TELLS_JOB}; {SILENT}"
    assert act(code, five, silent_seconds=2.0, place_seconds=600.0) == ["j1"] * 5


def test_who_finds_no_place_is_told_so(act: Callable[..., Any], tmp_path: Path) -> None:
    async def five(taken: Submissions) -> Any:
        tasks = [asyncio.create_task(taken.submit(str(tmp_path), None, {})) for _ in range(5)]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(ended) == 1
        found = ended.pop().exception()
        await taken.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    error = act(SILENT, five, place_seconds=0.1)
    assert isinstance(error, NoPlaceError)
    problem = problem_of(error)
    assert problem.status_code == 503
    assert int(problem.headers["Retry-After"]) > 0


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link to a pipe"])
@pytest.mark.parametrize("option", ["labels_file", "weights"])
def test_a_file_that_one_would_wait_for_is_refused(service: Service, root: Path, option: str, kind: str) -> None:
    named = root / f"{option} {kind}"
    if not os.path.lexists(named):
        NO_FILES[kind](named)
    more = {"encoder": "ViT-B-32"} if option == "weights" else {}
    assert "cannot be read" in service.submit(root / "scans", 422, **{option: str(named)}, **more)["detail"]


def test_an_expression_that_never_ends_elsewhere_ends(service: Service, root: Path) -> None:
    """Where an engine tries one way after the other, it takes longer than the universe is old."""
    write_image(root / "long" / "no" / f"{'a' * 120}!.png")
    service.submit(root / "long", 201, group="(?:.|.|.|.|.|.|.|.)*,|(a+)+!")
    problem = service.submit(root / "long", 422, group="(.|.|.|.|.|.|.|.)*,")
    assert "gives none of the 1 images a group" in problem["detail"]
    assert "no look-around" in service.submit(root / "long", 422, group="(?=a)")["detail"]


def test_one_that_needs_more_memory_than_it_may_is_told_so(tmp_path: Path) -> None:
    """In a process of its own: the limit holds until its end."""
    for number in range(3):
        write_image(tmp_path / "no" / f"{number}.png")
    rows = "".join(f"{'x' * 100}{number}.png,normal\n" for number in range(1_000_000))
    (tmp_path / "labels.csv").write_text("path,label\n" + rows)
    program = (
        "import sys\nfrom scanomaly.producer.server import submitter\n"
        "submitter._MOST_BYTES = 128 * 2**20\nsys.exit(submitter.main())"
    )
    asked = {
        "source": str(tmp_path),
        "key": None,
        "resolved": None,
        "options": {"labels_file": str(tmp_path / "labels.csv"), "encoder": "efficientnet_lite0"},
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=os.environ | {"SCANOMALY_HOME": str(tmp_path / "home")},
        check=False,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["type"] == "urn:scanomaly:usage", done.stderr
    assert "GiB of memory" in told["detail"]
