"""Who may do what: tokens, sessions of browsers, and requests that no page of this service made."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from enum import StrEnum
from http.cookies import CookieError, SimpleCookie

from itsdangerous import BadSignature, TimestampSigner

from ...models.errors import UsageError
from ...models.settings import Settings

COOKIE = "scanomaly_session"
SESSION_SECONDS = 12 * 3600

_LEAST_CHARACTERS = 16
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Role(StrEnum):
    FULL = "full"
    READ = "read"


class Access:
    """Tells the role of a request. Without a token everybody who can connect may do all."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError when a token is too easy to guess, or only half of them is set."""
        full = _digest(settings.api_token, "SCANOMALY_API_TOKEN")
        read = _digest(settings.api_read_token, "SCANOMALY_API_READ_TOKEN")
        if full is None and read is not None:
            raise UsageError(
                "SCANOMALY_API_READ_TOKEN is set, but not SCANOMALY_API_TOKEN: without it all may do all"
            )
        self._digests = [(Role.FULL, full), (Role.READ, read)] if full is not None else []
        # Sessions outlive a restart, and end when a token changes.
        self._signer = TimestampSigner(b"".join(digest or b"" for _, digest in self._digests), salt="session")

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return not self._digests

    def role_of_token(self, token: str) -> Role | None:
        """The role that a token gives, found out in a time that says nothing about the token."""
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        fits = [role for role, digest in self._digests if digest is not None and hmac.compare_digest(given, digest)]
        return fits[0] if fits else None

    def role(self, headers: Mapping[str, str]) -> Role | None:
        """The role of a request: of its token, or of its session."""
        if self.open:
            return Role.FULL
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.role_of_token(token.strip())
        return self._role_of_session(headers.get("cookie", ""))

    def session(self, role: Role) -> str:
        """A cookie's value for a browser that has shown a token."""
        return self._signer.sign(role.value).decode("ascii")

    def _role_of_session(self, cookies: str) -> Role | None:
        try:
            cookie = SimpleCookie(cookies).get(COOKIE)
            return None if cookie is None else Role(self._signer.unsign(cookie.value, SESSION_SECONDS).decode())
        except (CookieError, BadSignature, ValueError):
            return None


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which nobody else can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def made_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site made the request.

    Newer ones say it in a word (Sec-Fetch-Site), if the connection is safe or local; all say it of a POST (Origin).
    Programs say neither.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "same-origin":
        return False
    if site not in (None, "none"):
        return True
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _digest(token: str | None, variable: str) -> bytes | None:
    if token is None:
        return None
    stored = _DIGEST.fullmatch(token)
    if stored is not None:
        return bytes.fromhex(stored[1])
    if len(token) < _LEAST_CHARACTERS or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"{variable} is too easy to guess: it takes {_LEAST_CHARACTERS} ASCII characters or more; "
            "`openssl rand -hex 32` makes some"
        )
    return hashlib.sha256(token.encode()).digest()
