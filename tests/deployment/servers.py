"""Servers that are as a deployment has them: with passwords, over TCP, with TLS."""

import asyncio
import os
import pwd
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import missing
from tests.waiting import HANGS, until


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class RedisServer:
    """`redis-server` with the given options, on a free port."""

    def __init__(self, *options: str, tls: bool = False) -> None:
        self.port = free_port()
        ports = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        self._folder = tempfile.TemporaryDirectory(prefix="scanomaly-redis-")
        self._arguments = [*options, *ports, "--bind", "127.0.0.1", "--dir", self._folder.name]
        self.log = Path(self._folder.name, "log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            missing("redis-server, of the system's package of that name")
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen([program, *self._arguments], stdout=log, stderr=log)
        until(lambda: self._process.poll() is not None or self._is_ready(), "redis-server starts")
        assert self._process.poll() is None, self.log.read_text()

    def _is_ready(self) -> bool:
        return "Ready to accept connections" in self.log.read_text().rpartition("starting")[2]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(HANGS)

    def healthy(self, test: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Run a health check of the compose file, in which the server has the usual port."""
        kind, *command = test
        assert kind == "CMD-SHELL"
        asked = command[0].replace("redis-cli", f"redis-cli -p {self.port}")
        done = subprocess.run(["sh", "-c", asked], env=os.environ | environment, capture_output=True, check=False)
        return done.returncode == 0


class PostgresFront:
    """A TCP port, with TLS if a context is given, before a PostgreSQL server on a unix socket: what PgBouncer is in
    a deployment. The test wheel's server has neither."""

    _TLS_REQUEST = struct.pack("!ii", 8, 80877103)

    def __init__(self, unix_socket: Path, tls: ssl.SSLContext | None = None) -> None:
        self._socket = unix_socket
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, asyncio.IncompleteReadError
        ):  # ssl.SSLError too: a client may refuse the certificate
            first = await reader.readexactly(8)
            if self._tls is not None and first == self._TLS_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._tls)
                first = b""
            inner_reader, inner_writer = await asyncio.open_unix_connection(self._socket)
            inner_writer.write(first)
            await asyncio.gather(self._copy(reader, inner_writer), self._copy(inner_reader, writer))
        writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


class PgBouncer:
    """PgBouncer in transaction mode before a PostgreSQL server on a unix socket, with few connections to that."""

    def __init__(self, unix_socket: Path, role: str) -> None:
        program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
        if program is None:
            missing("pgbouncer, of the system's package of that name")
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="scanomaly-pgbouncer-")
        owner = unix_socket.stat().st_uid
        self._log = Path(self._folder.name, "log")
        configuration = Path(self._folder.name, "pgbouncer.ini")
        configuration.write_text(
            f"[databases]\n* = host={unix_socket.parent} port={unix_socket.name.rpartition('.')[2]} user={role}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 100\n"
            f"logfile = {self._log}\n"
        )
        # As root it wants another user: PostgreSQL's, who may use the socket.
        self._arguments = [program, "-q", str(configuration)]
        if os.getuid() == 0:
            os.chown(self._folder.name, owner, -1)
            self._arguments[1:1] = ["-u", pwd.getpwuid(owner).pw_name]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._arguments)
        until(lambda: self._process.poll() is not None or self._answers(), "PgBouncer starts")
        assert self._process.poll() is None, self._log.read_text() if self._log.exists() else "no log"
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(HANGS)
        self._folder.cleanup()
