"""Commands that go wrong, and the words they say it with."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scanomaly.producer.sample import NAME as SAMPLE

from ..waiting import HANGS
from .conftest import COMMAND, LIGHT, OFFLINE, PLUGIN, Scanomaly, check_schema, write_image

README = Path(__file__).parents[2] / "README.md"


def error_line(stderr: str) -> str:
    """The one line of an error: it comes last, and says who speaks."""
    line = stderr.splitlines()[-1]
    assert line.startswith("scanomaly: "), stderr
    assert stderr.count("scanomaly: ") == 1
    return line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "none"], 2, "none is not there"),
        (["run", "empty"], 1, "empty holds no image"),
        (["run", "unlabelled"], 2, "none of the 1 images is known to be normal: name them with --normal"),
        (["run", "good", "--normal", "x*"], 2, "--normal x* matches none of the 1 images"),
        (["run", "good", "--encoder", "ViT-X"], 2, "unknown encoder 'ViT-X'"),
        (["run", "good", "--weights", "none.pt"], 2, "'none.pt' does not exist"),
        (["run", "good", *OFFLINE, "--out", "full"], 1, "holds other files"),
        (["run", "good", *OFFLINE, "--out", "/proc/report"], 1, "cannot be written"),
        (["run"], 2, "give a SOURCE"),
        (["run", "good", "--no-such"], 2, "No such option"),
        (["nonsense"], 2, "No such command"),
        (["submit", "kaggle:nonsense"], 2, "kaggle:"),
        (["status", "none"], 1, "there is no job 'none': `scanomaly jobs` lists them"),
        (["watch", "none"], 1, "there is no job"),
        (["cancel", "none"], 1, "there is no job"),
        (["retry", "none"], 1, "there is no job"),
        (["report", "none"], 1, "there is no job"),
        (["run", "--resume", "none"], 1, "there is no job"),
    ],
)
def test_an_error_is_one_line(
    scanomaly: Scanomaly,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder in ("empty", "full"):
        (tmp_path / folder).mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    write_image(tmp_path / "unlabelled" / "a.png")
    write_image(tmp_path / "good" / "normal" / "a.png")
    monkeypatch.chdir(tmp_path)
    done = scanomaly.here(*arguments, code=code)
    assert words in error_line(done.stderr)
    assert done.stdout == ""


def test_json_has_the_error_too(scanomaly: Scanomaly) -> None:
    document = scanomaly.json("status", "none", code=1)
    assert document == {"error": "there is no job 'none': `scanomaly jobs` lists them", "exit_code": 1}


def test_debug_shows_where_it_went_wrong(scanomaly: Scanomaly) -> None:
    with pytest.raises(AssertionError, match="Traceback"):
        scanomaly("status", "none", "--debug", code=1)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("SCANOMALY_BROKER_URL", "redis://ann:secret@127.0.0.1:1/0"),
        ("SCANOMALY_STORE_URL", "postgresql://ann:secret@127.0.0.1:1/none"),
    ],
)
@pytest.mark.parametrize("command", ["run", "resume", "worker"])
def test_a_service_that_is_not_there_is_69(home: Path, drawn: Path, command: str, variable: str, url: str) -> None:
    user = Scanomaly(home, **{variable: url})
    arguments = [drawn, *OFFLINE] if command == "run" else []
    line = error_line(user(command, *arguments, code=69).stderr)
    assert variable in line
    assert "secret" not in line


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many files that they come in parts."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(100_000):
        if number % 1000 == 0:
            (folder / "no" / f"{number}").mkdir(parents=True)
        (folder / "no" / f"{number // 1000 * 1000}" / f"{number}.png").touch()
    return folder


def stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@contextmanager
def submitting(user: Scanomaly, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A job whose submitter stands still, with some of it stored. It goes on after the block."""
    user("store", "upgrade")  # so that there is a store
    with user.started("submit", folder, *OFFLINE) as process:
        with closing(sqlite3.connect(user.home / "store.sqlite", timeout=0, isolation_level=None)) as connection:
            while not (jobs := connection.execute("SELECT id FROM jobs").fetchall()):
                assert process.poll() is None
            while True:
                process.send_signal(signal.SIGSTOP)
                while not stands_still(process.pid):  # which takes a moment
                    assert process.poll() is None
                    time.sleep(0.001)
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("ROLLBACK")
                    break
                except sqlite3.OperationalError:  # it stands still in the middle of a transaction
                    process.send_signal(signal.SIGCONT)
                    time.sleep(0.01)
        try:
            yield jobs[0][0], process
        finally:
            process.send_signal(signal.SIGCONT)


def test_a_job_is_looked_at_while_it_is_submitted(scanomaly: Scanomaly, many: Path) -> None:
    with submitting(scanomaly, many) as (job, process):
        status = scanomaly.json("status", job)
        check_schema(status, "status")
        assert (status["state"], status["submitting"], status["eta_seconds"]) == ("embedding", True, None)
        assert 0 < status["scans"]["total"] < 100_000
        assert f"Scans           {status['scans']['total']} or more: " in scanomaly("status", job).stdout
        assert f"/{status['scans']['total']} or more  " in scanomaly("jobs").stdout
        assert "still running" in error_line(scanomaly("retry", job, code=1).stderr)
        process.send_signal(signal.SIGCONT)
        assert process.wait(HANGS) == 0
    status = scanomaly.json("status", job)
    assert (status["submitting"], status["scans"]["total"]) == (False, 100_000)
    assert (scanomaly.home / "started.log").read_text().splitlines()[1] == job


def test_a_job_is_cancelled_while_it_is_submitted(scanomaly: Scanomaly, many: Path) -> None:
    with submitting(scanomaly, many) as (job, process):
        assert scanomaly.json("cancel", job)["submitting"] is False
        process.send_signal(signal.SIGCONT)
        assert process.wait(HANGS) == 5
    assert error_line((scanomaly.home / "started.log").read_text()) == f"scanomaly: job {job} was cancelled"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_submission_is_stopped(scanomaly: Scanomaly, many: Path, number: signal.Signals) -> None:
    with submitting(scanomaly, many) as (job, process):
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        assert process.wait(HANGS) == 130
    line = error_line((scanomaly.home / "started.log").read_text())
    assert line == f"scanomaly: stopped before job {job} was whole: submit it again"
    assert "submit it again" in scanomaly.json("status", job)["error"]
    assert "was never whole: submit it again" in error_line(scanomaly("retry", job, code=1).stderr)


def test_a_paused_job_waits_while_one_that_was_submitted_without_a_broker_is_done(home: Path, drawn: Path) -> None:
    user = Scanomaly(home, **PLUGIN)
    paused = user("submit", drawn, *LIGHT, "--priority", "high").stdout.strip()
    status = user.json("pause", paused)
    assert (status["state"], status["priority"]) == ("paused", "high")
    assert "only a job that is being embedded" in user("pause", paused, code=1).stderr
    assert "takes it up again" in user("status", paused).stdout

    away = Scanomaly(home, SCANOMALY_BROKER_URL="redis://ann:secret@127.0.0.1:1/0", **PLUGIN)
    done = away("submit", drawn, *LIGHT, "--priority", "low")
    job = done.stdout.strip()
    assert f"Note: job {job} is stored, and the workers hear of it when the broker is back" in done.stderr
    assert "secret" not in done.stderr
    assert user.look("status", job)["stalled"]

    with user.started("worker"):
        assert user.look("watch", job)["state"] == "done"
        status = user.look("status", paused)
        assert (status["state"], status["scans"]["embedded"], status["stalled"]) == ("paused", 0, False)
        # A worker may be done with it before the command looks: it has no content that is new.
        assert user.json("resume", paused)["state"] in ("embedding", "scoring", "done")
        assert user.look("watch", paused)["state"] == "done"
        assert user.json("resume")["calls_sent"] == 0
    assert "is done: `scanomaly retry" in user("resume", paused, code=1).stderr
    (worker,) = user.json("workers")["workers"]
    assert worker["state"] == "stopped"
    user("workers", "--here", code=1)


def test_the_store_is_checked_and_upgraded(scanomaly: Scanomaly) -> None:
    assert "there is no store" in scanomaly("store", "check").stdout
    assert list(scanomaly.home.iterdir()) == []
    assert "was made" in scanomaly("store", "upgrade").stdout
    assert "as this program needs it" in scanomaly("store", "check").stdout
    with sqlite3.connect(scanomaly.home / "store.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (["store", "check"], ["store", "upgrade"], ["worker"], ["jobs"]):
        assert "newer than this program's" in error_line(scanomaly(*command, code=69).stderr)


def test_a_bad_setting_is_named(home: Path) -> None:
    line = error_line(Scanomaly(home, SCANOMALY_BATCH_SIZE="many")("jobs", code=2).stderr)
    assert line == "scanomaly: SCANOMALY_BATCH_SIZE='many' is not a whole number above 0"


def test_a_bad_weights_file_fails_the_job(served: Scanomaly, drawn: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_text("<html>please log in</html>")
    job = served.job(drawn, "--weights", weights, code=4)["job"]
    assert str(weights) in error_line(served("watch", job, code=4).stderr)


def test_a_hub_that_cannot_be_reached_names_the_three_ways_out(home: Path, drawn: Path, tmp_path: Path) -> None:
    user = Scanomaly(home, HF_ENDPOINT="http://127.0.0.1:1", HF_HOME=str(tmp_path), HF_HUB_DISABLE_XET="1")
    for command in ("run", "submit"):
        line = error_line(user(command, drawn, code=1).stderr)
        assert "--weights" in line
        assert "--encoder efficientnet_lite0" in line
        assert "connection" in line
    assert user.json("jobs") == {"jobs": []}


def test_normals_that_all_fail_fail_the_job(served: Scanomaly, scans: Path) -> None:
    for file in (scans / "no").iterdir():
        file.write_bytes(b"")
    status = served.job(scans, *OFFLINE, code=4)
    assert "none of the 12 normal scans could be embedded" in status["error"]


def test_every_command_that_programs_call_speaks_json(done_job: tuple[Scanomaly, str]) -> None:
    user, job = done_job
    assert user.json("status", job)["job"] == job
    assert user.json("watch", job)["state"] == "done"
    assert job in [status["job"] for status in user.json("jobs", "--limit", "99")["jobs"]]
    assert Path(user.json("report", job)["report"]).is_dir()
    assert user.json("doctor", *OFFLINE)["ok"] is True
    assert "error" in user.json("cancel", job, code=1)
    assert "error" in user.json("retry", job, code=1)


def test_a_finished_job_is_shown_to_a_person(done_job: tuple[Scanomaly, str]) -> None:
    user, job = done_job
    text = user("status", job[:5]).stdout
    assert f"Job             {job}  done" in text
    assert "24 embedded, 0 failed, 0 to go" in text
    assert job in user("jobs", "--limit", "99").stdout
    assert re.search(r"^Scans  ", user("watch", job).stdout, re.M)


def test_the_readme_names_every_command_and_exit_code(scanomaly: Scanomaly) -> None:
    readme = README.read_text()
    grouped = scanomaly("--help").stdout.split("Start a job:")[1].split("Examples:")[0]
    commands = re.findall(r"^  (\w+) {2,}", grouped, re.M)
    assert len(commands) >= 11
    for command in commands:
        assert f"scanomaly {command}" in readme, command
        scanomaly(command, "--help")
    for code in (0, 1, 2, 3, 4, 5, 69, 130):
        assert re.search(rf"^\| `?{code}`? \|", readme, re.M), code


def test_the_demo_says_what_it_fell_back_to(home: Path, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, home / SAMPLE)  # where it is drawn once, and of five times as many scans
    user = Scanomaly(
        home,
        HF_ENDPOINT="http://127.0.0.1:1",
        HF_HOME=str(tmp_path / "hf"),
        KAGGLE_API_ENVIRONMENT="LOCALHOST",
        KAGGLEHUB_CACHE=str(tmp_path / "kaggle"),
    )
    done = user("demo")
    assert "the built-in sample" in done.stdout
    assert "the offline encoder efficientnet_lite0 stands in for ViT-B-32" in done.stdout
    report = Path(user.json("jobs")["jobs"][0]["report"])
    notes = json.loads((report / "report.json").read_text())
    assert "stands in for the Kaggle data set" in notes["source_note"]
    assert "stands in for ViT-B-32" in notes["encoder_note"]
    page = (report / "report.html").read_text()
    assert "stands in for the Kaggle data set" in page
    assert "stands in for ViT-B-32" in page


HEAVY = {"torch", "open_clip", "timm", "torchvision", "matplotlib", "sklearn", "huggingface_hub", "numpy", "PIL"}


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        (["--help"], {"sqlalchemy", "celery", "redis"}),
        (["jobs"], {"celery", "redis", "alembic"}),
        (["submit", "{scans}", *OFFLINE], {"celery", "redis", "alembic"}),  # there is no worker that it could call
    ],
)
def test_a_command_imports_only_what_it_needs(
    scanomaly: Scanomaly, drawn: Path, arguments: list[str], spared: set[str]
) -> None:
    """What it imports is most of the time that it takes."""
    scanomaly("store", "upgrade")  # makes the store, which takes Alembic
    command = [sys.executable, "-X", "importtime", COMMAND, *(part.format(scans=drawn) for part in arguments)]
    done = subprocess.run(command, env=scanomaly.environment, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "scanomaly" in imported
    assert not imported & (HEAVY | spared)


def test_the_precision_that_suits_the_device_is_chosen_and_said(scanomaly: Scanomaly, drawn: Path) -> None:
    done = scanomaly("submit", drawn, *OFFLINE, "--precision", "auto")
    sentence = "--precision auto took fp32: the device here is cpu"
    assert f"Note: {sentence}" in done.stderr
    status = scanomaly.json("status", done.stdout.strip())
    assert status["notes"]["encoder"] == sentence
    assert "/fp32/" in status["encoder_key"]
