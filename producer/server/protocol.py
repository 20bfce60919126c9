"""HTTP as uvicorn speaks it, with bounds that it has not."""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .problems import HEADERS, Problem

_MOST_HEAD_BYTES = 64 * 1024
_HEAD_SECONDS = 30.0


class Idle:
    """The connections that nobody is answered on: no whole request has come, or none after the last answer.

    Where there are too many, one of the address that has most of them is closed, the oldest. So whoever opens
    thousands makes room for the others; and those behind one proxy, whose requests come at once, may be many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._count = 0
        self._of_address: dict[str, dict[BoundedProtocol, None]] = {}

    def add(self, connection: "BoundedProtocol") -> None:
        connections = self._of_address.setdefault(connection.address, {})
        if connection in connections:
            return
        connections[connection] = None
        self._count += 1
        if self._count > self.most:
            most = max(self._of_address.values(), key=len)
            oldest = next(iter(most))
            self.discard(oldest)
            oldest.transport.abort()

    def discard(self, connection: "BoundedProtocol") -> None:
        connections = self._of_address.get(connection.address, {})
        if connection in connections:
            del connections[connection]
            self._count -= 1
        if not connections:
            self._of_address.pop(connection.address, None)


class BoundedProtocol(HttpToolsProtocol):
    """Bounds the head of a request, in bytes and in time: uvicorn waits for its end for ever, and keeps it all.

    Bounds idle connections too: uvicorn answers 503 on all once there are too many of any kind.
    """

    idle = Idle(1000)
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()
        self.idle.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self.idle.discard(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.idle.discard(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:  # there is no next request yet
            self.idle.add(self)

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self._refuse(Problem(431, f"the head of a request may have {_MOST_HEAD_BYTES} bytes"))

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "this is no HTTP request as it should be"))

    def _begin_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, problem: Problem) -> None:
        """Answer in the place of the app, which gets whole requests only."""
        self._end_head()
        status = HTTPStatus(problem.status_code)
        headers = HEADERS | dict(problem.headers) | {"Connection": "close"}
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {text}" for name, text in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + bytes(problem.body))
        self.transport.close()
