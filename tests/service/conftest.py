"""`scanomaly serve` as it is run: a process, a home of its own, and clients that send whatever they like."""

import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from scanomaly.models.settings import Settings
from scanomaly.models.store import Store
from scanomaly.producer.sample import draw_sample
from scanomaly.worker.aggregate import Aggregator

from ..acceptance.conftest import OFFLINE, Scanomaly
from ..filled import fill
from ..waiting import HANGS

DONE = "d0e0000001"
"""A done job with 24 scans, two of which failed."""
SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_INTERNAL = re.compile(r'Traceback|File "|site-packages|producer/server|sqlalchemy|pydantic', re.I)
_ANSWER_SECONDS = HANGS


@dataclass
class Service:
    """A service that runs, and one who asks it."""

    user: Scanomaly
    url: str
    token: str | None = None
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return (self.user.home / "serve.log").read_text()

    @property
    def memory(self) -> float:
        """What it has in memory, in bytes."""
        found = re.search(r"^process_resident_memory_bytes (\S+)", self.ask("GET", "/metrics", 200).text, re.M)
        assert found
        return float(found[1])

    def ask(self, method: str, path: str, code: int | None = None, **options: Any) -> requests.Response:
        """Send a request, and check what is to be so of every answer."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        options["headers"] = {
            name: value for name, value in (headers | options.get("headers", {})).items() if value
        }
        request = self.session.prepare_request(requests.Request(method, self.url, **options))
        request.url = self.url + path  # as it is: requests would tidy it up
        answer = self.session.send(request, timeout=_ANSWER_SECONDS, allow_redirects=False)
        self.session.cookies.clear()
        check_safe(answer)
        if code is not None:
            assert answer.status_code == code, answer.text
        return answer

    def submit(self, source: object, code: int | None = None, key: str | None = None, **more: Any) -> Any:
        """Ask for a job. Returns the document of the answer, whatever it is."""
        body = {"source": str(source), "encoder": OFFLINE[1]} | more
        headers = {"Idempotency-Key": key} if key else {}
        return self.ask("POST", "/api/v1/jobs", code, json=body, headers=headers).json()

    def jobs(self) -> list[str]:
        document = self.ask("GET", "/api/v1/jobs?limit=100", 200).json()
        return [job["job"] for job in document["jobs"]]

    def send(self, *parts: bytes, then_read: bool = True, seconds: float = _ANSWER_SECONDS) -> bytes:
        """Send bytes as they are, and read until the service closes; that it does not read all is its right."""
        with socket.create_connection(self.address, seconds) as connection:
            answer = b""
            with suppress(ConnectionError, TimeoutError):
                for part in parts:
                    connection.sendall(part)
            with suppress(ConnectionError, TimeoutError):
                while then_read and (more := connection.recv(65536)):
                    answer += more
            return answer

    def head(self, path: str = "/api/v1/jobs", method: str = "GET", *lines: str, host: str | None = None) -> bytes:
        """The head of a request, for `send`."""
        named = f"Host: {host or self.url.removeprefix('http://')}"
        return "\r\n".join([f"{method} {path} HTTP/1.1", named, "Connection: close", *lines, "", ""]).encode()


def check_safe(answer: requests.Response) -> None:
    """What is to be so of every answer: the headers, a problem where it is one, and nothing of the inside."""
    shown = (
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.headers} {answer.text[:500]}"
    )
    assert answer.status_code < 500 or answer.status_code == 503, shown
    for name, value in SAFETY.items():
        assert answer.headers.get(name) == value, shown
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"], shown
    assert answer.headers["Cache-Control"] in ("no-store", "no-cache"), shown
    assert "server" not in answer.headers, shown
    own = "html" in answer.headers.get("Content-Type", "") or "/readyz" in str(answer.request.url)
    if answer.status_code >= 400 and answer.request.method != "HEAD" and not own:
        check_problem(answer, shown)
        assert not _INTERNAL.search(answer.text), shown


def check_problem(answer: requests.Response, shown: str = "") -> None:
    assert answer.headers["Content-Type"] == "application/problem+json", shown
    document = answer.json()
    assert (
        {"type", "title", "status", "detail"} <= document.keys() <= {"type", "title", "status", "detail", "errors"}
    )
    assert document["status"] == answer.status_code, shown
    assert document["type"] == "about:blank" or document["type"].startswith("urn:scanomaly:"), shown
    assert document["title"], shown
    assert document["detail"], shown


@contextmanager
def serving(home: Path, *roots: Path, token: str | None = None, **variables: str) -> Iterator[Service]:
    """A service while the block runs. It must not have met anything that it did not know."""
    if token:
        variables.setdefault("SCANOMALY_API_TOKEN", token)
    user = Scanomaly(home, **variables)
    with user.serving(*(word for root in roots for word in ("--root", root))) as url:
        service = Service(user, url, token)
        yield service
    assert "internal error" not in service.log


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a service takes scans from; never written to."""
    folder = tmp_path_factory.mktemp("root")
    draw_sample(folder / "scans", normals=3, anomalies=3)
    return folder


@pytest.fixture(scope="session")
def filled_home(root: Path) -> Iterator[Path]:
    """A home with a job that is done, from vectors drawn by lot, and one that waits for a worker."""
    with tempfile.TemporaryDirectory(prefix="scanomaly-") as folder:
        home = Path(folder)
        settings = Settings.from_environment({"SCANOMALY_HOME": folder})
        fill(f"sqlite:///{home}/store.sqlite", home / "reports" / DONE, 24, 8, ignored=1, failed=2, job_id=DONE)
        store = Store.open(settings)
        Aggregator(store, settings).aggregate(DONE, "w1")
        store.close()
        Scanomaly(home)("submit", root / "scans", *OFFLINE)
        yield home


@pytest.fixture(scope="session")
def new_home(filled_home: Path) -> Iterator[Callable[[], Path]]:
    """Makes homes that begin as `filled_home`; the reports are the same files."""
    with ExitStack() as stack:

        def make() -> Path:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scanomaly-")))
            shutil.copy(filled_home / "store.sqlite", folder)
            return folder

        yield make


@pytest.fixture(scope="session")
def service(new_home: Callable[[], Path], root: Path) -> Iterator[Service]:
    """One without a token, which takes as many submissions as tests make."""
    with serving(new_home(), root, SCANOMALY_API_SUBMITS_PER_MINUTE="100000") as running:
        yield running
