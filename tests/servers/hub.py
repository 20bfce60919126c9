"""A small model hub: a real HTTP server that speaks what huggingface_hub asks when it downloads a file."""

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `files`, from `owner/name/path` to content, at `url` while the `with` block lasts.

    Attributes:
        requests: what was asked so far, such as `HEAD /owner/name/resolve/main/file`.
        break_after: a GET is cut off after that many bytes, `breaks` times.
        ignore_ranges: whether a request for the rest of a file gets the whole.
        status: answers everything with this HTTP status.
        redirect: sends requests elsewhere, as the hub does for large files.
        commit: the revision it claims to serve; None claims none, as a server that is no hub.
        pause: called when half of a file has been sent.
    """

    def __init__(self, files: dict[str, bytes | Path] | None = None) -> None:
        self.files = files or {}
        self.requests: list[str] = []
        self.break_after: int | None = None
        self.breaks = 0
        self.ignore_ranges = False
        self.status: int | None = None
        self.redirect = False
        self.commit: str | None = COMMIT
        self.pause: Callable[[], object] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def content(self, name: str) -> bytes | None:
        """A file's bytes, or None."""
        found = self.files.get(name)
        return found.read_bytes() if isinstance(found, Path) else found

    def has_repository(self, name: str) -> bool:
        """Whether any file belongs to `owner/name`."""
        return any(file.startswith(f"{name}/") for file in self.files)


class SilentServer:
    """Accepts connections at `url` and never finishes an answer.

    With `drip`, a byte of an endless header comes every so many seconds.
    """

    def __init__(self, drip: float | None = None) -> None:
        self._drip = drip

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        if self._drip is not None:
            threading.Thread(target=self._accept, args=(self._drip,), daemon=True).start()
        return self

    def _accept(self, drip: float) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._send_slowly, args=(connection, drip), daemon=True).start()

    @staticmethod
    def _send_slowly(connection: socket.socket, drip: float) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                time.sleep(drip)
                connection.sendall(b"x")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer  # set by a class made for one server

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.hub.status is not None:
            self._nothing(self.hub.status)
            return
        elsewhere = self.path.startswith("/elsewhere/")
        path = self.path.removeprefix("/elsewhere").lstrip("/")
        repository, _, name = path.partition("/resolve/main/")
        content = self.hub.content(f"{repository}/{name}")
        if content is None:
            missing = "EntryNotFound" if self.hub.has_repository(repository) else "RepoNotFound"
            self._nothing(404 if missing == "EntryNotFound" else 401, {"X-Error-Code": missing})
            return
        digest = hashlib.sha256(content).hexdigest()
        if self.hub.redirect and not elsewhere:
            self._nothing(
                302,
                {
                    "Location": f"{self.hub.url}/elsewhere{self.path}",
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(content)),
                },
            )
            return
        self._file(content, digest, with_body)

    def _nothing(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self._commit()
        for key, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()

    def _file(self, content: bytes, digest: str, with_body: bool) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked and not self.hub.ignore_ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self._commit()
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self._body(content[start:])

    def _commit(self) -> None:
        if self.hub.commit is not None:
            self.send_header("X-Repo-Commit", self.hub.commit)

    def _body(self, rest: bytes) -> None:
        if self.hub.pause is not None:
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            self.hub.pause()
            rest = rest[len(rest) // 2 :]
        if self.hub.break_after is None or self.hub.breaks <= 0:
            self.wfile.write(rest)
            return
        self.hub.breaks -= 1
        self.wfile.write(rest[: self.hub.break_after])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the test's output clean."""
