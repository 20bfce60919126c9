"""The installed command line, run as a user runs it: subprocesses, a real broker, real workers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
import pytest
from filelock import FileLock
from PIL import Image

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.cli import main
from scanomaly.producer.status import JobStatus, job_status

from ..waiting import HANGS, until

COMMAND = str(Path(sys.executable).parent / "scanomaly")
_ROOT = Path(__file__).parents[2]
_SCHEMAS = {
    "status": _ROOT / "producer" / "status.schema.json",
    "report": _ROOT / "docs" / "report.schema.json",
}
OFFLINE = ("--encoder", "efficientnet_lite0")
PLUGIN = {"PYTHONPATH": str(_ROOT / "tests" / "chaos" / "plugin")}
LIGHT = ("--encoder", "chaos")
"""That plugin's, which needs no torch: where a test is about what is around an encoder."""

_BRIEF = ("status", "jobs", "workers", "pause", "resume", "cancel", "retry")
"""They only ask the store, or change a row of it: a process of its own would take longer to start than they do."""


class Scanomaly:
    """One user: a home of their own, and the commands that they type."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        cleared = {name: value for name, value in os.environ.items() if not name.startswith("SCANOMALY_")}
        # Several workers share these cores: each with a thread for every core, they would wait for one another.
        self.environment = cleared | {"SCANOMALY_HOME": str(home), "OMP_NUM_THREADS": "1"} | variables

    def __call__(self, *arguments: str | Path, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and check its exit code."""
        if arguments[0] in _BRIEF and not options:
            return self.here(*arguments, code=code)
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
            **options,
        )
        shown = (
            f"scanomaly {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        assert done.returncode == code, shown
        assert "Traceback" not in done.stdout + done.stderr, shown
        return done

    def here(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in this process: the start of another takes longer than most commands."""
        streams = [TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
        with (
            patch.dict(os.environ, self.environment, clear=True),
            redirect_stdout(streams[0]),
            redirect_stderr(streams[1]),
            pytest.raises(SystemExit) as ended,
        ):
            main([*map(str, arguments)])
        for stream in streams:
            stream.seek(0)
        stdout, stderr = (stream.read() for stream in streams)
        shown = f"scanomaly {' '.join(map(str, arguments))}: exit code {ended.value.code}\n{stdout}\n{stderr}"
        assert ended.value.code == code, shown
        assert "Traceback" not in stdout + stderr, shown
        return subprocess.CompletedProcess(arguments, code, stdout, stderr)

    def look(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """What a command in this process prints as JSON."""
        document: dict[str, Any] = json.loads(self.here(*arguments, "--json", code=code).stdout)
        return document

    def json(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """Run a command with --json: its standard output is one document and nothing else."""
        document: dict[str, Any] = json.loads(self(*arguments, "--json", code=code).stdout)
        return document

    @contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on while the block runs, and is stopped after it."""
        with open(self.home / "started.log", "w") as log:
            process = subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(HANGS)

    @contextmanager
    def serving(self, *options: str | Path) -> Iterator[str]:
        """The HTTP service, while the block runs; yields its URL."""
        log = self.home / "serve.log"
        with open(log, "w") as file:
            command = [COMMAND, "serve", "--port", "0", *map(str, options)]
            process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stderr=file)
        try:
            until(lambda: "serving on" in log.read_text() or process.poll() is not None, "it does not start")
            found = re.search(r"serving on (\S+)", log.read_text())
            assert found, log.read_text()
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(HANGS)
        assert code == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()

    def wait(self, job: str, reached: Callable[[JobStatus], bool]) -> dict[str, Any]:
        """Wait for a job to be so. In the store: a command for every look would take the workers' time."""
        with self.store() as store:
            return until(lambda: job_status(store, job), job, reached).to_json()

    def alive(self) -> dict[int, str]:
        """The workers whose hearts beat: device by process id."""
        with self.store() as store:
            return {worker.pid: worker.device for worker in store.workers.all() if worker.alive}

    def store(self) -> AbstractContextManager[Store]:
        return closing(Store.open(Settings.from_environment(self.environment)))

    def job(self, source: Path, *options: str | Path, code: int = 0) -> dict[str, Any]:
        """Submit a job, and watch it to its end: for tests that have a worker running."""
        job = self.here("submit", source, *options).stdout.strip()
        return self.look("watch", job, code=code)


@pytest.fixture
def scanomaly(home: Path) -> Scanomaly:
    return Scanomaly(home)


@pytest.fixture
def light(home: Path) -> Scanomaly:
    """A user of the encoder LIGHT."""
    return Scanomaly(home, **PLUGIN)


@pytest.fixture
def scans(drawn: Path, tmp_path: Path) -> Path:
    """The same, for a test to change."""
    return Path(shutil.copytree(drawn, tmp_path / "my scans"))


@pytest.fixture(scope="session")
def served() -> Iterator[Scanomaly]:
    """A user whose worker is running: loading torch takes longer than most tests."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        user = Scanomaly(Path(folder))
        with user.started("worker"):
            yield user


@pytest.fixture(scope="session")
def done_job(served: Scanomaly, drawn: Path) -> tuple[Scanomaly, str]:
    """A finished job, for the tests that only look at it."""
    return served, served.job(drawn, *OFFLINE)["job"]


@dataclass(frozen=True)
class BrainMri:
    """The finished job of the 253 brain MRI scans, in a home of its own, for tests that only look at it."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def status(self) -> dict[str, Any]:
        """What `run` printed when it was done."""
        document: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
        return document

    @property
    def report(self) -> Path:
        """The report with all scorers that need no text tower, the centroid as its headline."""
        return self.folder / "report"

    def make(self, scans: Path) -> None:
        scorers = "centroid,knn,mahalanobis,patch_knn,patch_knn_mirror"
        status = Scanomaly(self.home).json("run", scans, *OFFLINE, "--scorer", scorers, "--out", self.report)
        (self.folder / "status.json").write_text(json.dumps(status))


@pytest.fixture(scope="session")
def brain_job(brain_mri: Path, tmp_path_factory: pytest.TempPathFactory) -> BrainMri:
    """Made once for all processes of pytest-xdist: they take more than a minute to embed and score."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made = BrainMri(folder / "brain-mri")
    with FileLock(folder / "brain-mri.lock"):
        if not (made.folder / "status.json").exists():
            shutil.rmtree(made.folder, ignore_errors=True)  # of one that failed
            made.home.mkdir(parents=True)
            made.make(brain_mri)
    return made


def check_schema(document: dict[str, Any], name: str) -> None:
    jsonschema.validate(document, json.loads(_SCHEMAS[name].read_text()))


def write_image(path: Path, size: tuple[int, int] = (64, 48), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 90).save(path)


def processes_of(home: Path) -> list[str]:
    """The processes that belong to a user: what a command starts and must not leave behind."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        # The embedded broker writes its title over its environment.
        if command and (f"SCANOMALY_HOME={home}\0" in environment or f"{home}/" in command):
            found.append(command)
    return found


def nothing_is_left(home: Path) -> bool:
    """Whether all processes of a user are gone. One that was told to stop may take a moment to vanish."""
    until(lambda: processes_of(home), home, lambda found: not found)
    return True
