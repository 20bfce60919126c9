"""Where and how the command line is started: the current folder and the environment of other programs."""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from .conftest import OFFLINE, Scanomaly

_TRACER = """
import pathlib
with open({mark!r}, "a") as file:
    file.write(__name__ + "\\n")
raise ImportError("a file of the current folder was imported as " + __name__)
"""


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file for every module that a program here may import: what is imported leaves a mark."""
    folder, mark = tmp_path / "hostile", tmp_path / "imported"
    folder.mkdir()
    names = {*sys.stdlib_module_names, *packages_distributions(), "scanomaly", "celeryconfig", "sitecustomize"}
    for name in names:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(_TRACER.format(mark=str(mark)))
    yield folder
    assert not mark.exists(), mark.read_text()


def test_nothing_is_imported_from_the_current_folder(
    home: Path, tracer: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the environment of a notebook, of a person who draws with TeX, and of another program's Celery: none of
    it is meant for Scanomaly."""
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
    )
    monkeypatch.chdir(tracer)
    job = user.json("run", drawn, *OFFLINE)["job"]
    assert not list((home / "logs").iterdir())
    user("score", job, "--scorer", "knn")
    user("export", job, "--vectors", "npy", "--out", tmp_path / "vectors")
    told = user("doctor", *OFFLINE).stdout
    assert re.findall(r"^ok +(\w+)", told, re.M) == ["disk", "store", "broker", "worker", "device", "encoder"]
    with user.serving("--root", drawn) as url:
        submitted = user("submit", drawn, *OFFLINE, "--server", url).stdout.strip()
    assert user.json("status", submitted)["state"] == "embedding"
