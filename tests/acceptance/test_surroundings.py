"""Where and how the command line is started: the current folder and the environment of other programs."""

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

from scanomaly.producer.cli import cli

from .conftest import LIGHT, OFFLINE, PLUGIN, Scanomaly

_TRACER = """
import pathlib
with open({mark!r}, "a") as file:
    file.write(__name__ + "\\n")
raise ImportError("a file of the current folder was imported as " + __name__)
"""


_ENTRY_POINTS = {"scanomaly.encoders": "chaos", "fsspec.specs": "evil", "celery.commands": "evil"}


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file for every module that a program here may import: what is imported leaves a mark. So does
    what it would import as a plug-in, and what its first parts import of their own kind."""
    folder, mark = tmp_path / "hostile", tmp_path / "imported"
    folder.mkdir()
    code = _TRACER.format(mark=str(mark))
    names = {*sys.stdlib_module_names, *packages_distributions(), *_imported_by_the_program()}
    for name in names | {"scanomaly", "celeryconfig", "sitecustomize", "usercustomize", "evil_plugin"}:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(code)
    (folder / "evil.pth").write_text("import evil_plugin\n")
    info = folder / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    lines = (f"[{group}]\n{name} = evil_plugin:Encoder\n" for group, name in _ENTRY_POINTS.items())
    (info / "entry_points.txt").write_text("".join(lines))
    yield folder
    assert not mark.exists(), mark.read_text()


def _imported_by_the_program() -> set[str]:
    """The first part of every name that its modules import, wherever in them."""
    root = Path(__file__).parents[2]
    trees = [
        ast.parse(file.read_text())
        for wing in ("models", "producer", "worker")
        for file in (root / wing).rglob("*.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    ]
    return {module.partition(".")[0] for module in modules}


def _commands(group: click.Group, before: str = "") -> Iterator[str]:
    """The names of all commands, with those of the groups that they are in."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name


def test_no_command_imports_from_the_current_folder(
    home: Path, tracer: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what the commands start: the service and its submissions, workers, and the broker.

    With the environment of a notebook, of a person who draws with TeX, and of another program's Celery: none of it
    is meant for Scanomaly.
    """
    (tracer / "matplotlibrc").write_text("text.usetex: True\nbackend: module://nosuch\n")
    (tmp_path / "styles").mkdir()
    shutil.copy(tracer / "matplotlibrc", tmp_path / "styles")
    elsewhere = "redis://127.0.0.1:1/0"
    user = Scanomaly(
        home,
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        MPLCONFIGDIR="/proc/nosuch",
        MATPLOTLIBRC=str(tmp_path / "styles"),
        CELERY_BROKER_URL=elsewhere,
        CELERY_BROKER_READ_URL=elsewhere,
        CELERY_BROKER_WRITE_URL=elsewhere,
        CELERY_RESULT_BACKEND=elsewhere,
        CELERY_CONFIG_MODULE="nosuch",
        CELERY_LOADER="nosuch",
        DJANGO_SETTINGS_MODULE="nosuch",
        APP="nosuch",
        BROKER_URL=elsewhere,
        RESULT_BACKEND=elsewhere,
        LOADER="nosuch",
        CONFIG_MODULE="nosuch",
        **PLUGIN,
    )
    monkeypatch.chdir(tracer)
    done = user.json("run", drawn, *LIGHT)["job"]
    assert not list((home / "logs").iterdir())
    waiting = user("submit", drawn, *LIGHT).stdout.strip()
    rest: dict[str, tuple[tuple[str | Path, ...], int]] = {
        "status": ((done,), 0),
        "watch": ((done,), 0),
        "jobs": ((), 0),
        "workers": ((), 0),
        "pause": ((waiting,), 0),
        "resume": ((waiting,), 0),
        "cancel": ((waiting,), 0),
        "retry": ((done,), 1),  # none of its scans failed
        "report": ((done,), 0),
        "score": ((done, "--scorer", "knn"), 0),
        "export": ((done, "--vectors", "npy", "--out", home / "vectors"), 0),
        "store check": ((), 0),
        "store upgrade": ((), 0),
        "doctor": (OFFLINE, 0),
        "demo": ((drawn,), 0),
    }
    assert {*rest, "run", "submit", "worker", "serve"} == set(_commands(cli))
    for command, (arguments, code) in rest.items():
        told = user(*command.split(), *arguments, code=code, cwd=tracer).stdout  # each in a process of its own
        if command == "doctor":
            checks = re.findall(r"^ok +(\w+)", told, re.M)
            assert checks == ["disk", "store", "broker", "worker", "device", "encoder"]
    with user.started("worker"), user.serving("--root", drawn) as url:
        job = user("submit", drawn, *LIGHT, "--server", url).stdout.strip()
        assert user.json("watch", job, "--server", url)["state"] == "done"
        user("score", job, "--scorer", "knn", "--server", url)
        assert user.json("watch", job, "--server", url)["state"] == "done"
