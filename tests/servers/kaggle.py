"""A small Kaggle: the two calls that kagglehub makes for a data set, and the storage they lead to.

`KAGGLE_API_ENVIRONMENT=TEST` sends the client to http://localhost:7777, and nothing but this: one server at a time.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

PORT = 7777
GET_DATASET = "/api/v1/datasets.DatasetApiService/GetDataset"
DOWNLOAD_DATASET = "/api/v1/datasets.DatasetApiService/DownloadDataset"


@contextlib.contextmanager
def port_to_oneself() -> Iterator[None]:
    """Wait until no other test run on this machine uses the port, whether with a server or to find none there."""
    with open(Path(tempfile.gettempdir(), f"port-{PORT}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class Request:
    """What a client sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, object]


@dataclass
class KaggleServer:
    """Serves one data set, `owner/name`, as long as its context lasts. Attributes may change while it runs."""

    archive: bytes
    owner: str = "owner"
    name: str = "brain"
    version: int = 1
    status: int = 200
    """Another answer to every call of the API."""
    silent: bool = False
    """Accept every call and answer none."""
    redirect: bool = True
    """Hand the archive out at a storage address, as Kaggle does, and not in the answer itself."""
    md5: bytes | None = None
    """A checksum other than the archive's own."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the archive."""
    stall_after: int | None = None
    """Say nothing more after so many bytes of the archive."""
    newest_client: str = "99.0"
    """The client's version that the server recommends; kagglehub prints it when its own is older."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "KaggleServer":
        self._ended = threading.Event()
        kaggle = self

        class Handler(_Handler):
            server_of = kaggle

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        except OSError as error:
            raise RuntimeError(
                f"port {PORT} is taken, and KAGGLE_API_ENVIRONMENT=TEST goes nowhere else: end what listens there"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def wait_for_the_end(self) -> None:
        self._ended.wait()


class _Handler(BaseHTTPRequestHandler):
    server_of: KaggleServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        kaggle = self.server_of
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        kaggle.requests.append(Request(self.path, dict(self.headers), body))
        if kaggle.silent:
            kaggle.wait_for_the_end()
            self.close_connection = True
        elif kaggle.status != 200:
            self._send_json(kaggle.status, {"code": kaggle.status, "message": f"this is a {kaggle.status}"})
        elif (body.get("ownerSlug"), body.get("datasetSlug")) != (kaggle.owner, kaggle.name):
            self._send_json(404, {"code": 404, "message": "not found"})
        elif self.path == GET_DATASET:
            ref = f"{kaggle.owner}/{kaggle.name}"
            self._send_json(200, {"ref": ref, "currentVersionNumber": kaggle.version})
        elif self.path == DOWNLOAD_DATASET and int(str(body.get("datasetVersionNumber"))) == kaggle.version:
            self._hand_out()
        else:
            self._send_json(404, {"code": 404, "message": "not found"})

    def do_GET(self) -> None:
        self.server_of.requests.append(Request(self.path, dict(self.headers), {}))
        self._send_archive()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what is written to the terminal."""

    def _hand_out(self) -> None:
        if not self.server_of.redirect:
            self._send_archive()
            return
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{PORT}/storage/archive.zip?signature=x")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, status: int, document: dict[str, object]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Kaggle-HubVersion", self.server_of.newest_client)
        self.end_headers()
        self.wfile.write(content)

    def _send_archive(self) -> None:
        kaggle = self.server_of
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        content = kaggle.archive[start:]
        md5 = base64.b64encode(kaggle.md5 or hashlib.md5(kaggle.archive).digest()).decode()
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if self.path == DOWNLOAD_DATASET:
            self.send_header("X-Kaggle-HubVersion", kaggle.newest_client)
        self.send_header("X-Goog-Hash", f"crc32c=AAAAAA==,md5={md5}")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(kaggle.archive) - 1}/{len(kaggle.archive)}")
        self.end_headers()
        if kaggle.cut_after is not None or kaggle.stall_after is not None:
            self.wfile.write(content[: kaggle.cut_after or kaggle.stall_after])
            self.wfile.flush()
            if kaggle.stall_after is not None:
                kaggle.wait_for_the_end()
            self.close_connection = True
            return
        self.wfile.write(content)
