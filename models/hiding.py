"""Hides paths in what leaves the machine: in reports, in a job's status, and in lists for other programs."""

import hashlib
import hmac
import re

# What discovery makes of patients and series. One without a letter may as well be a number in a path.
_PSEUDONYM = re.compile("(?:patient|study|series|volume)-(?=[0-9]*[a-f])[0-9a-f]{12}")


class Hiding:
    """Stands for paths by ids, which are the same for the same path and key, or leaves them as they are."""

    def __init__(self, key: str | None) -> None:
        """Take a key: a job's `path_key`; None shows paths."""
        self._key = None if key is None else key.encode()

    def __bool__(self) -> bool:
        return self._key is not None

    def path(self, path: str) -> str:
        """`scan-` and 16 hexadecimal digits of the path's HMAC-SHA256: of a million paths, two are the same with a
        chance of one in 10^7."""
        return self._id("scan", path)

    def name(self, name: str, kind: str) -> str:
        """The name of a `group` or a `volume`: of what is a path, or a part of one, the id. A pseudonym stays."""
        return name if _PSEUDONYM.fullmatch(name) else self._id(kind, name)

    def place(self, place: str) -> str:
        """The same for a source or a folder."""
        return self._id("folder", place)

    def _id(self, kind: str, text: str) -> str:
        if self._key is None:
            return text
        digest = hmac.new(self._key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:16]}"
