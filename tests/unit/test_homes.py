"""Homes with names that mean something in a URL, that cannot be written, or that are another's."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanomaly.models.errors import StoreUnreachableError
from scanomaly.models.queue import Queue
from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.broker import EmbeddedBroker

NAMES = [
    "a?b",
    "a%20b",
    "50%",
    "a#b",
    "a;b",
    "a b",
    "a'b\"c",
    "ü漢",
    "a\nb",
    "a&b=c",
    "a@b:c",
    "%(here)s",
    "~",
    "x" * 200,
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, so that a broker's socket fits."""
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        yield Path(folder)


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_store_and_broker_are_in_the_home_whatever_it_is_called(folder: Path, name: str) -> None:
    home = folder / name
    settings = Settings.from_environment({"SCANOMALY_HOME": str(home)})
    Store.open(settings).close()
    again = Store.open(settings)
    assert again.schema_before is not None
    again.close()
    with EmbeddedBroker(settings):
        Queue(settings).check()
    assert names_in(folder) == {name}
    assert {"store.sqlite", "broker"} <= names_in(home)


def test_a_name_that_is_no_text(folder: Path) -> None:
    home = folder / os.fsdecode(b"\xff")
    settings = Settings(home=home)
    Store.open(settings).close()
    with EmbeddedBroker(settings):
        Queue(settings).check()
    assert names_in(folder) == {home.name}


def test_a_relative_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for settings in [Settings.from_environment({"SCANOMALY_HOME": "h?"})]:
        Store.open(settings).close()
        with EmbeddedBroker(settings):
            Queue(settings).check()
    assert names_in(folder) == {"h?"}


@pytest.mark.parametrize("home", ["file", "file/below", "x" * 5000, "y" * 300])
def test_a_home_that_cannot_be_is_told(folder: Path, home: str) -> None:
    (folder / "file").touch()
    with pytest.raises(StoreUnreachableError, match="SCANOMALY_HOME") as caught:
        Store.open(Settings(home=folder / home))
    assert "\n" not in str(caught.value)
    assert names_in(folder) == {"file"}


@pytest.mark.parametrize("home", ["file", "none", "none/below"])
def test_who_only_looks_makes_nothing(folder: Path, home: str) -> None:
    (folder / "file").touch()
    store = Store.open(Settings(home=folder / home), read_only=True)
    assert store.lists.jobs() == []
    store.close()
    assert names_in(folder) == {"file"}
