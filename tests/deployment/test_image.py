"""What the Dockerfile promises."""

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from .files import ROOT, Stage, stages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied(stage: Stage) -> set[str]:
    """What a stage takes from the checkout."""
    return {path for argument in stage.all("COPY") for path in argument.split()[:-1] if "--from" not in argument}


def test_there_is_a_target_for_each_side_and_the_worker_is_the_default() -> None:
    assert {"producer", "worker"} <= stages().keys()
    assert list(stages())[-1] == "worker"


@pytest.mark.parametrize("target", ["producer", "worker"])
def test_a_target_runs_as_nobody_special_and_hears_signals(target: str) -> None:
    stage = stages()[target]
    assert stage.last("USER") == "1000:1000"
    assert stage.instructions[-1][0] == "CMD"
    assert stage.words("ENTRYPOINT") == ["scanomaly"]
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    assert stage.environment["PYTHONUNBUFFERED"] == "1"
    assert stage.environment["HOME"] == stage.environment["SCANOMALY_HOME"]


def test_only_the_worker_is_asked_how_it_is() -> None:
    assert stages()["worker"].healthcheck == ["scanomaly", "workers", "--here"]
    assert stages()["worker"].words("CMD") == ["worker"]
    assert stages()["producer"].healthcheck == []


def test_all_that_is_copied_is_there_and_nothing_else_is_sent() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    sent = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    paths = set().union(*map(copied, stages().values()))
    assert paths == sent
    assert all((ROOT / path).exists() for path in paths)


def test_every_package_is_in_the_image() -> None:
    folders = {folder.partition("/")[0] for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    needed = folders | {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"}
    assert needed <= copied(stages()["wheel"])


def test_the_producer_is_without_torch_and_every_version_is_the_tested_one(tmp_path: Path) -> None:
    write = next(run for run in stages()["requirements"].all("RUN") if "tomllib" in run)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    subprocess.run(["sh", "-c", write.replace("/requirements", str(tmp_path / "out"))], cwd=tmp_path, check=True)
    requirements = {
        name: (tmp_path / "out" / f"{name}.txt").read_text().splitlines() for name in ("producer", "worker")
    }
    extras = PROJECT["project"]["optional-dependencies"]
    producers = [line for extra in ("postgres", "server", "medical", "s3", "gs", "http") for line in extras[extra]]
    assert requirements["producer"] == PROJECT["project"]["dependencies"] + producers
    assert requirements["worker"] == extras["worker"] + extras["offline"]

    installs = [run for run in stages()["producer"].all("RUN") if "pip install" in run]
    assert not any("worker.txt" in run for run in installs)
    assert any("/requirements/worker.txt" in run for run in stages()["worker"].all("RUN"))
    for run in stages()["worker"].all("RUN"):
        if " -r " in run:
            assert "-c /requirements/constraints.txt" in run
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = {re.split(r"[\[><=]", line)[0] for lines in requirements.values() for line in lines}
    assert {name.lower().replace("_", "-") for name in wanted} <= pinned


def test_a_change_of_the_code_does_not_install_torch_again() -> None:
    """No stage that installs requirements has seen the code, and the code comes after them."""
    worker = stages()["worker"].all("RUN")
    order = [next(i for i, run in enumerate(worker) if part in run) for part in ("worker.txt", "/wheel/*.whl")]
    assert order == sorted(order)
    for name in ("requirements", "base", "producer", "worker"):
        assert not {
            path for path in copied(stages()[name]) if fnmatch.fnmatch(path, "[mpw]*er*") or path == "models"
        }
