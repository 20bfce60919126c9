"""Sessions of browsers: signed cookies, each of which can be ended before its time."""

import hashlib
import os
import secrets
import threading
import time
from pathlib import Path

from itsdangerous import BadSignature, URLSafeTimedSerializer

SESSION_SECONDS = 12 * 3600

_ENDED = "ended-sessions"


class Sessions:
    """Begins, checks and ends sessions.

    A session is in its cookie alone. Those that were ended before their time are in a file, so that they stay
    ended when the service starts again, and for all services that share the folder.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        """Args:
        folder: for the file of the ended sessions.
        key: what cookies are signed with.
        """
        self._serializer = URLSafeTimedSerializer(
            key, salt="session", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._file = folder / _ENDED
        self._lock = threading.Lock()
        self._ended: dict[str, float] = {}
        self._read_at: tuple[int, int] | None = None

    def begin(self, role: str) -> str:
        """The value of a new session's cookie."""
        return str(self._serializer.dumps([role, secrets.token_hex(16)]))

    def role(self, cookie: str) -> str | None:
        """The role of a cookie's session; None where it is not ours, too old or ended."""
        found = self._load(cookie)
        return None if found is None or self._is_ended(found[1]) else found[0]

    def end(self, cookie: str) -> None:
        """End a session: its cookie opens nothing from now on."""
        found = self._load(cookie)
        if found is None:
            return
        with self._lock:
            now = time.time()
            self._refresh()
            self._ended = {name: end for name, end in self._ended.items() if end > now}
            self._ended[found[1]] = now + SESSION_SECONDS
            lines = "".join(f"{end:.0f} {name}\n" for name, end in self._ended.items())
            new = self._file.with_name(f".{_ENDED}.{secrets.token_hex(4)}")
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(lines)
            new.replace(self._file)

    def _load(self, cookie: str) -> tuple[str, str] | None:
        try:
            role, name = self._serializer.loads(cookie, max_age=SESSION_SECONDS)
        except (BadSignature, ValueError, TypeError):
            return None
        return str(role), str(name)

    def _is_ended(self, name: str) -> bool:
        with self._lock:
            self._refresh()
            return name in self._ended

    def _refresh(self) -> None:
        """Read the file again if another service has written it."""
        try:
            found = self._file.stat()
            if (stamp := (found.st_ino, found.st_mtime_ns)) == self._read_at:
                return
            lines = self._file.read_text("ascii").splitlines()
        except FileNotFoundError:
            return
        pairs = (line.partition(" ") for line in lines)
        self._ended |= {name: float(end) for end, _, name in pairs if end.isdecimal()}
        self._read_at = stamp
