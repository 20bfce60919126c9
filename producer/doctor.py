"""What works here, and what to do about what does not."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..models.encoders import EncoderSpec
from ..models.errors import ScanomalyError
from ..models.queue import Queue
from ..models.settings import Settings
from ..models.store import Store
from .broker import EmbeddedBroker
from .local import ask_worker

_LEAST_FREE_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


def run_checks(settings: Settings, encoder: EncoderSpec) -> list[Check]:
    """Try every part once: the disk, the store, the broker, the worker's libraries, the device, the weights."""
    return [
        _check("disk", lambda: _disk(settings)),
        _check("store", lambda: _store(settings)),
        _check("broker", lambda: _broker(settings)),
        *_worker_checks(encoder, settings),
    ]


def _check(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except ScanomalyError as error:
        return Check(name, False, str(error))


def _disk(settings: Settings) -> str:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise ScanomalyError(f"{folder} may not be written here: set SCANOMALY_HOME to a folder that you may write")
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        raise ScanomalyError(
            f"only {free / 1e9:.1f} GB free in {settings.home}: the default weights alone take 0.6 GB"
        )
    return f"{free / 1e9:.0f} GB free in {settings.home}"


def _store(settings: Settings) -> str:
    # What a database server allows shows when the tables are made. A file is not made by who only looks.
    a_file = settings.resolved_store_url.get_backend_name() == "sqlite"
    store = Store.open(settings, read_only=a_file)
    jobs = len(store.lists.jobs())
    store.close()
    return f"{store.name}, {jobs} job{'s' * (jobs != 1)}"


def _broker(settings: Settings) -> str:
    queue = Queue(settings)
    if settings.broker_url is not None:
        queue.check()
        return queue.name
    if not EmbeddedBroker(settings).answers():
        # In a home of its own: who only looks leaves no files in one that may be another user's.
        with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
            elsewhere = replace(settings, home=Path(folder))
            with EmbeddedBroker(elsewhere):
                Queue(elsewhere).check()
        return "embedded Valkey, started while somebody uses it"
    queue.check()
    return f"embedded Valkey, {queue.name}"


def _worker_checks(encoder: EncoderSpec, settings: Settings) -> list[Check]:
    try:
        answer: dict[str, Any] = ask_worker(encoder, settings.device)
    except ScanomalyError as error:
        return [Check("worker", False, str(error))]
    weights = answer["weights"]
    libraries = f"torch {answer['torch']}, open_clip {answer['open_clip']}"
    device = answer["device"]
    return [
        Check("worker", answer["torch"] is not None, libraries),
        Check("device", device is not None, device or answer["error"]),
        Check("encoder", weights["ok"], f"{encoder.key}: {weights['detail']}"),
    ]
