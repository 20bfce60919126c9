"""The command line in this process: help, errors, tables and progress, in a pipe and on a terminal."""

import io
import json
import os
import pty
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click
import pytest

from scanomaly.models.states import JobState
from scanomaly.producer import watch
from scanomaly.producer.cli import cli, main
from scanomaly.producer.cli.terminal import Field, plain, print_fields, print_table
from scanomaly.producer.status import JobStatus

from .test_status import BEGUN, JOB, PROGRESS

ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANOMALY_HOME", str(tmp_path))
    for name in ("SCANOMALY_SERVER_URL", "NO_COLOR", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else 1


@contextmanager
def terminal(
    monkeypatch: pytest.MonkeyPatch, name: str, columns: int, term: str = "xterm"
) -> Iterator[Callable[[], str]]:
    """A pseudo-terminal as standard output or standard error, and what was written on it."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(columns))
    leader, follower = pty.openpty()
    stream = os.fdopen(follower, "w", encoding="utf-8")
    monkeypatch.setattr(sys, name, stream)

    def written() -> str:
        stream.flush()
        os.set_blocking(leader, False)
        found = b""
        while True:
            try:
                found += os.read(leader, 65536)
            except BlockingIOError:
                return found.decode().replace("\r\n", "\n")

    try:
        yield written
    finally:
        monkeypatch.undo()
        stream.close()
        os.close(leader)


@pytest.mark.parametrize("group", [[], ["store"]])
def test_a_group_alone_shows_its_help_in_lines(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*group) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Usage: scanomaly")
    assert any(line.startswith("  check ") or line.startswith("  run ") for line in lines)
    assert "Examples:" in lines


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["export", "x"],
            "scanomaly: Missing option '--vectors'. Choose from: npy, parquet (see `scanomaly export --help`)",
        ),
        (["statuss"], "scanomaly: No such command 'statuss'. Did you mean 'status'? (see `scanomaly --help`)"),
        (["run", "a\nb\x1b[31m\udcff"], "scanomaly: a\\nb\\x1b[31m\\xff is not there"),
        (["status", "a\nb"], "scanomaly: there is no job 'a\\nb': `scanomaly jobs` lists them"),
        (["run", "--q\nz"], "scanomaly: No such option '--q\\nz' (see `scanomaly run --help`)"),
    ],
)
def test_every_error_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) in (1, 2)
    assert capsys.readouterr().err == line + "\n"


def test_an_id_that_is_no_text_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "\udcff", "--json") == 2
    captured = capsys.readouterr()
    assert "is not text in UTF-8" in captured.err
    assert json.loads(captured.out)["exit_code"] == 2


def test_a_full_disk_below_standard_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["jobs", "--json"], ["status", "none", "--json"], ["--help"]):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert run(*arguments) == 1
            monkeypatch.undo()
        line = capfd.readouterr().err.splitlines()[-1]
        assert line.startswith("scanomaly: standard output cannot be written (No space left on device)")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_commands_help_has_examples_that_are_understood(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, "--help") == 0
    text = capsys.readouterr().out
    assert ESCAPE not in text
    examples = [line.strip() for line in text.split("Examples:")[1].splitlines() if line.startswith("  scanomaly ")]
    assert examples
    command: click.Command = cli.commands[name]
    for example in examples:
        words = example.split()
        assert words[:2] == ["scanomaly", name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
    assert "More: " in text


def test_commands_come_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")
    lines = capsys.readouterr().out.splitlines()
    titles = ["Start a job:", "Follow jobs:", "Steer a job:", "Use its results:", "Operate:"]
    assert [line for line in lines if line in titles] == titles
    shown = {line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in cli.commands}
    assert shown == set(cli.commands)


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_not_forced_on_a_terminal(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, "stdout", 80) as written:
        run("--help")
        assert ESCAPE + "[1m" in written()
        monkeypatch.setenv(variable, value)
        run("--help")
        print_fields([Field("Report", "/x", Path("/x"), "red")])
        print_table(["A", "B"], [["1", "2"]])
        assert ESCAPE not in written()


def test_a_narrow_terminal_has_options_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, "stdout", 20) as written:
        monkeypatch.setenv("NO_COLOR", "1")
        run("run", "--help")
        lines = written().splitlines()
    assert "  --false-alarm-rate SHARE" in lines
    assert max(len(line) for line in lines if line.startswith("     ")) <= 20


def test_paths_are_links_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Field("Report", "/a b/report.html", Path("/a b/report.html"))
    print_fields([report])
    assert capsys.readouterr().out == "Report          /a b/report.html\n"
    with terminal(monkeypatch, "stdout", 20) as written:
        print_fields([report])
        text = written()
    assert "file:///a%20b/report.html" in text
    assert ESCAPE + "]8;" in text


ROWS = [["abc", "12", "a folder with a long name, which may be broken"], ["d", "3", "\x1b[31mx\ny"]]


def test_a_table_in_a_pipe_has_headers_and_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["JOB", "SCANS", "SOURCE"], ROWS, numbers=["SCANS"])
    assert capsys.readouterr().out.splitlines() == [
        "JOB  SCANS  SOURCE",
        "abc     12  a folder with a long name, which may be broken",
        "d        3  \\x1b[31mx\\ny",
    ]


def test_a_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for columns, first in ((30, "JOB  SCANS  SOURCE"), (22, "JOB  SOURCE"), (12, "JOB             abc")):
        with terminal(monkeypatch, "stdout", columns) as written:
            monkeypatch.setenv("NO_COLOR", "1")
            print_table(["JOB", "SCANS", "SOURCE"], ROWS, spared=["SCANS"])
            assert written().splitlines()[0] == first


def test_names_do_not_steer_the_terminal() -> None:
    assert plain("a\nb\x1b[31m\u202e\udcff é") == "a\\nb\\x1b[31m\\u202e\\xff é"


STATUS = JobStatus.of(JOB, replace(PROGRESS, last_at=BEGUN + timedelta(seconds=10)), 1)


@pytest.mark.parametrize("columns", [80, 20])
def test_the_bar_has_the_statuss_own_speed_and_time(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, "stderr", columns) as written:
        display = watch.make_display(own_worker=True)
        display.update(JobStatus.of(JOB, replace(PROGRESS, started_at=None, embedded=0, failed=0), 0))
        starting = written()
        display.update(STATUS)
        display.say("a remark")
        display.update(JobStatus.of(replace(JOB, state=JobState.SCORING, stage="scoring knn 2 of 3"), PROGRESS, 1))
        display.close()
        text = written()
    assert "Starting worker" in starting
    assert "a remark" in text
    if columns == 80:
        assert "40 of 100 images, 4.0 images/s, 15 s left" in text
        assert "Scoring knn 2 of 3" in text


@pytest.mark.parametrize("term", ["dumb", ""])
def test_where_no_line_can_be_written_again_there_are_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, "stderr", 80, term) as written:
        display = watch.make_display()
        display.update(STATUS)
        display.update(STATUS)
        display.stage("scoring knn 2 of 3")
        text = written()
    assert text == "Embedding: 40 of 100 images, 4.0 images/s, 15 s left\nScoring knn 2 of 3\n"


def test_standard_output_that_cannot_say_it_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    from scanomaly.producer.cli.output import print_json

    for encoding in ("ascii", "utf-8"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        print_json({"path": "é\udcff"})
        sys.stdout.flush()
        assert json.loads(raw.getvalue()) == {"path": "é\udcff"}


def test_the_readme_installs_from_a_checkout() -> None:
    """There is no index that has it: what is installed is the folder itself, with extras that it has."""
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    readme = (root / "README.md").read_text()
    assert re.findall(r"pip install '\.\[(\w+)\]'", readme) == ["worker"]
    assert "'scanomaly[" not in readme
    assert set(re.findall(r"`\[(\w+)\]`", readme)) <= set(extras)
