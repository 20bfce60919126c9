"""The walls of the house: who may import whom, and who may do what."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanomaly.models.processes import python_command

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("models", "producer", "worker") for path in (ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, wherever in it."""
    package = ["scanomaly", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def importers(prefix: str) -> set[str]:
    return {
        file.relative_to(ROOT).as_posix()
        for file in FILES
        if any(name == prefix or name.startswith(prefix + ".") for name in imports(file))
    }


def test_the_wings_do_not_know_each_other() -> None:
    assert not {file for file in importers("scanomaly.worker") if not file.startswith("worker/")}
    assert not {file for file in importers("scanomaly.producer") if not file.startswith("producer/")}


def test_the_rooms_of_the_worker_stand_in_the_order_of_the_data() -> None:
    assert not {
        file for file in importers("scanomaly.worker.encoding") if "/scoring/" in file or "/reporting/" in file
    }
    assert not {
        file for file in importers("scanomaly.worker.reporting") if "/scoring/" in file or "/encoding/" in file
    }
    assert not {file for file in importers("scanomaly.worker.scoring") if "/encoding/" in file}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("torch", "worker/encoding/"),
        ("open_clip", "worker/encoding/"),
        ("matplotlib", "worker/reporting/plots.py"),
        ("sqlalchemy", "models/"),
        ("kagglehub", "producer/datasets.py"),
        ("click", "producer/cli/"),
    ],
)
def test_a_library_has_one_place(library: str, allowed: str) -> None:
    found = importers(library)
    assert found
    assert not {file for file in found if not file.startswith(allowed)} - {
        "worker/doctor.py",
        "worker/encoding/pipeline.py",
    }


def test_only_the_settings_read_our_variables() -> None:
    readers = {
        file.relative_to(ROOT).as_posix()
        for file in FILES
        if "os.environ" in file.read_text() and "SCANOMALY_" in file.read_text()
    }
    # These two set a variable for the worker that they start.
    assert readers - {"producer/cli/operate.py", "producer/local.py"} == {"models/settings.py"}


def test_the_producer_never_loads_torch() -> None:
    modules = [
        ".".join(["scanomaly", *file.relative_to(ROOT).with_suffix("").parts])
        for file in (ROOT / "producer").rglob("*.py")
        if file.stem not in ("__init__", "__main__")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["worker.encoding.pipeline", "producer.submit"])
def test_who_reads_local_pictures_loads_no_other_readers(module: str) -> None:
    others = {"fsspec", "pydicom", "nibabel"}
    code = f"import sys, scanomaly.{module}; sys.exit(not {others}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_package_is_listed() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(["scanomaly", *file.relative_to(ROOT).parts[:-1]]) for file in FILES if file.name == "__init__.py"
    }
    assert listed == found


def test_only_the_command_line_prints() -> None:
    printers = {
        file.relative_to(ROOT).as_posix()
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printers <= {"producer/watch.py"}


def test_every_process_of_this_program_is_started_in_one_way() -> None:
    """The one that keeps the current folder off the import path."""
    starting = {file.relative_to(ROOT).as_posix() for file in FILES if "sys.executable" in file.read_text()}
    assert starting == {"models/processes.py"}
    assert "-P" in python_command("worker")
