"""Hides paths in what leaves the machine: in reports, in a job's status, and in lists for other programs."""

import hashlib
import hmac


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
        return path if self._key is None else self._id("scan", path)

    def place(self, place: str) -> str:
        """The same for a source or a folder."""
        return place if self._key is None else self._id("folder", place)

    def _id(self, kind: str, text: str) -> str:
        assert self._key is not None
        digest = hmac.new(self._key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:16]}"
