"""Who types a command: another user than the home's owner, one without a home folder, one whose output is lost."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.worker.aggregate import Aggregator

from ..filled import fill
from ..waiting import HANGS
from .conftest import COMMAND, OFFLINE, write_image

_OWNER, _READER = 65533, 65532
_AS_ROOT = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can be two users, with Linux's setpriv"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that anybody may read, below a folder that anybody may enter."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder, "home")
        home.mkdir()
        yield home


@cache
def becoming_another() -> tuple[str, ...]:
    """What turns root into `{user}`. Who may not enter where Python is installed, as in root's own home, has to be
    let read everything: but not write."""
    plain = ("setpriv", "--reuid={user}", "--regid={user}", "--clear-groups")
    # The system's own Python may stand in for the one that they cannot enter.
    tried = [*(part.format(user=_READER) for part in plain), sys.executable, "-c", "import sys; print(sys.version)"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=HANGS, check=False)
    if done.stdout.strip() == sys.version:
        return plain
    return (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def typed(
    home: Path, *arguments: str | Path, user: int | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A command as another user types it, whose name no list of users has, and who has no HOME."""
    becoming = becoming_another() if user is not None else ()
    environment = {"PATH": os.environ["PATH"], "SCANOMALY_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*(part.format(user=user) for part in becoming), COMMAND, *map(str, arguments)],
        env=environment | options.pop("variables", {}),
        text=True,
        timeout=HANGS,
        check=False,
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )


@_AS_ROOT
def test_who_only_looks_does_not_lock_the_owner_out(home: Path) -> None:
    os.chown(home, _OWNER, _OWNER)
    home.chmod(0o777)  # the reader could make files there: what a shared folder is like
    assert typed(home, "store", "upgrade", user=_OWNER).returncode == 0
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    job = "d0e0000001"
    fill(f"sqlite:///{home}/store.sqlite", home / "reports" / job, 4, 8, job_id=job)
    settings = Settings(home=home)
    with closing(Store.open(settings)) as store:
        Aggregator(store, settings).aggregate(job, "w1")
    for path in [home, *home.rglob("*")]:
        os.chown(path, _OWNER, _OWNER)
    for number in range(4):
        write_image(elsewhere / "no" / f"{number}.png", size=(64 + number, 64))
    done = typed(home, "submit", elsewhere, *OFFLINE, user=_OWNER)
    assert done.returncode == 0, done.stderr
    waiting = done.stdout.strip()
    before = {path for path in home.rglob("*") if "store.sqlite-" not in path.name}
    looking = [("status", job), ("jobs",), ("workers",), ("store", "check"), ("report", job), ("watch", job)]
    for arguments in [
        *looking,
        ("export", job, "--vectors", "npy", "--out", elsewhere / "vectors"),
        ("doctor", *OFFLINE),
    ]:
        done = typed(home, *arguments, user=_READER)
        assert done.returncode == 0, done.stderr
        assert job in done.stdout or arguments[0] in ("workers", "store", "export", "doctor"), done.stdout
    refused = typed(home, "cancel", waiting, user=_READER)
    assert refused.returncode == 1
    assert refused.stderr.startswith("scanomaly: the store ")
    assert "may only be read here" in refused.stderr
    assert refused.stderr.count("\n") == 1
    left = set(home.rglob("*"))
    assert {path for path in left if path.stat().st_uid == _READER} == set()
    assert {path for path in left if "store.sqlite-" not in path.name} == before
    done = typed(home, "cancel", waiting, user=_OWNER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments", [("status", "x"), ("jobs",), ("workers",), ("report", "x"), ("store", "check")]
)
def test_who_only_looks_makes_no_home(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = typed(tmp_path / "none", *arguments)
    assert done.returncode == (1 if "x" in arguments else 0), done.stderr
    assert list(tmp_path.iterdir()) == []


@_AS_ROOT
def test_a_user_without_a_home_folder_runs_a_job(home: Path) -> None:
    """As in a container: neither a name nor a HOME, and only the home that the settings name may be written."""
    os.chown(home, _OWNER, _OWNER)
    scans = home / "scans"
    for number in range(4):
        write_image(scans / "no" / f"{number}.png", size=(64 + number, 64))
    done = typed(home, "run", scans, *OFFLINE, user=_OWNER, variables={"HOME": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    assert not Path("/nonexistent").exists()


@_AS_ROOT
def test_a_user_without_any_home_is_told_what_to_set(home: Path) -> None:
    done = typed(home, "jobs", user=_OWNER, variables={"SCANOMALY_HOME": ""})
    assert done.returncode == 2
    assert done.stderr.startswith(f"scanomaly: user {_OWNER} has no home folder here: set SCANOMALY_HOME")


@pytest.mark.parametrize("source", ["~nosuchuser/scans", "~nosuchuser"])
def test_a_home_of_nobody_as_source(home: Path, source: str) -> None:
    done = typed(home, "submit", source, "--encoder", "efficientnet_lite0")
    assert done.returncode in (1, 2)
    assert "~nosuchuser, and no home folder is known for that" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def looked_at() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        settings = Settings(home=Path(folder))
        Store.open(settings).close()
        fill(f"sqlite:///{folder}/store.sqlite", Path(folder, "reports", "job1"), 4, 8, job_id="job1")
        yield Path(folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
@pytest.mark.parametrize(
    "arguments", [("jobs",), ("jobs", "--json"), ("status", "job1"), ("--help",), ("workers", "--json")]
)
def test_a_full_disk_below_standard_output_is_told(looked_at: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = typed(looked_at, *arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("scanomaly: standard output cannot be written (No space left")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("command", ["jobs", "jobs --json", "status nothing", "--help"])
def test_closed_output_is_no_error_of_ours(looked_at: Path, command: str, closed: str) -> None:
    script = f'"{COMMAND}" {command} {closed}'
    done = subprocess.run(
        ["sh", "-c", script],
        env=os.environ | {"SCANOMALY_HOME": str(looked_at)},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1, done.stderr
    assert done.returncode == (1 if "nothing" in command else 0)


@pytest.mark.parametrize("arguments", [("jobs", "--json"), ("status", "job1"), ("--help",)])
def test_a_reader_that_has_enough_is_no_error(looked_at: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = typed(looked_at, *arguments, stdout=writing)
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1  # not all was written
