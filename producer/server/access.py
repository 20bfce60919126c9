"""Who may do what: tokens, sessions of browsers, and requests that no page of this service made."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from enum import StrEnum
from http.cookies import CookieError, SimpleCookie

from ...models.errors import UsageError
from ...models.secret_files import load_secret
from ...models.settings import Settings
from .limiter import Limiter
from .sessions import Sessions

COOKIE = "scanomaly_session"
SECURE_COOKIE = "__Host-scanomaly_session"
"""Over TLS: a browser takes it from this very host alone, and never sends it in the clear."""

_FOLDER = "service"
_SECRET_FILE = "session.key"
_LEAST_CHARACTERS = 16
_LEAST_DIFFERENT = 6
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_WRONG_TOKENS = 100
"""Of one address in a minute. More are not looked at."""


class Role(StrEnum):
    FULL = "full"
    READ = "read"


class TooManyTokensError(Exception):
    """So many wrong tokens came from an address that none of it is looked at for a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many wrong tokens came from this address: try again in {seconds:.0f} s")
        self.seconds = seconds


class Access:
    """Tells the role of a request. Without a token everybody who can connect may do all."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError when a token is too easy to guess, only half of them is set, or the secret for sessions
        cannot be made in the home."""
        full = _digest(settings.api_token, "SCANOMALY_API_TOKEN")
        read = _digest(settings.api_read_token, "SCANOMALY_API_READ_TOKEN")
        if full is None and read is not None:
            raise UsageError(
                "SCANOMALY_API_READ_TOKEN is set, but not SCANOMALY_API_TOKEN: without it all may do all"
            )
        if full is not None and full == read:
            raise UsageError(
                "SCANOMALY_API_READ_TOKEN is the same as SCANOMALY_API_TOKEN: who may only look needs another"
            )
        self._digests = [(Role.FULL, full), (Role.READ, read)] if full is not None else []
        self._wrong_tokens = Limiter(_WRONG_TOKENS)
        self._sessions = None if full is None else _sessions(settings, full + b"\0" + (read or b""))

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return not self._digests

    def role_of_token(self, token: str, address: str) -> Role | None:
        """The role that a token gives, found out in a time that says nothing about the token.

        Args:
            token: what was sent.
            address: of who sent it.

        Raises:
            TooManyTokensError: so many from there were wrong that it has to wait.
        """
        if not token:
            return None
        network = _network(address)
        if not self._wrong_tokens.may(network):
            raise TooManyTokensError(self._wrong_tokens.seconds_left(network))
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        fits = [role for role, digest in self._digests if digest is not None and hmac.compare_digest(given, digest)]
        if fits:
            return fits[0]
        self._wrong_tokens.hit(network)
        return None

    def role(self, headers: Mapping[str, str], address: str, secure: bool) -> Role | None:
        """The role of a request: of its token, or of its session.

        Args:
            headers: of the request.
            address: of who sent it.
            secure: whether it came over TLS.

        Raises:
            TooManyTokensError: so many tokens from there were wrong that it has to wait.
        """
        if self.open:
            return Role.FULL
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.role_of_token(token.strip(), address)
        cookie = session_cookie(headers, secure)
        role = None if cookie is None or self._sessions is None else self._sessions.role(cookie)
        return None if role is None else Role(role)

    def begin_session(self, role: Role) -> str:
        """A cookie's value for a browser that has shown a token."""
        assert self._sessions is not None
        return self._sessions.begin(role.value)

    def end_session(self, headers: Mapping[str, str], secure: bool) -> None:
        """End the session of a request: its cookie opens nothing any more."""
        cookie = session_cookie(headers, secure)
        if cookie is not None and self._sessions is not None:
            self._sessions.end(cookie)


def cookie_name(secure: bool) -> str:
    """What the cookie of a session is called, over TLS or in the clear."""
    return SECURE_COOKIE if secure else COOKIE


def session_cookie(headers: Mapping[str, str], secure: bool) -> str | None:
    """The session's cookie of a request."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(cookie_name(secure))
    except CookieError:
        return None
    return None if cookie is None else cookie.value


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


def is_followed_link(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a person followed a link, and not that a page fetched something or framed it."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest", "document") == "document"


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
    if len(set(token)) < _LEAST_DIFFERENT:
        raise UsageError(
            f"{variable} is too easy to guess: it has only {len(set(token))} different characters; "
            "`openssl rand -hex 32` makes a good one"
        )
    return hashlib.sha256(token.encode()).digest()


def _sessions(settings: Settings, tokens: bytes) -> Sessions:
    """Sessions outlive a restart, and end when a token changes. Who knows the tokens' digests cannot make one."""
    folder = settings.home / _FOLDER
    try:
        secret = load_secret(folder / _SECRET_FILE)
    except OSError as error:
        raise UsageError(
            f"{folder / _SECRET_FILE} cannot be read or made ({error.strerror}): set SCANOMALY_HOME to a folder "
            "that you may write"
        ) from None
    if len(secret) < _LEAST_CHARACTERS:
        raise UsageError(f"{folder / _SECRET_FILE} holds no secret: remove it, and a new one is made")
    return Sessions(folder, hmac.digest(secret.encode(), tokens, "sha256"))


def _network(address: str) -> str:
    """Whom an address belongs to: in IPv6, anybody has the last 64 bits for themselves."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
