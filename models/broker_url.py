"""The URL of a broker of the user's own: checked when it is read, for kombu makes something of nearly any text."""

import re
from urllib.parse import quote, unquote, urlsplit

from .errors import UsageError

_VARIABLE = "the broker's URL (SCANOMALY_BROKER_URL)"
_SHAPES = "redis://HOST:6379/0, rediss://HOST:6379/0 or redis+socket:///PATH"
_HOST = re.compile(r"[\w.-]+|\[[0-9a-fA-F:.%\w]+\]")
_PASSWORD = "in a password, @ is written %40, / %2F, : %3A, # %23, ? %3F and % %25"


def parse_broker_url(text: str) -> str:
    """The URL as Celery takes it, its scheme in lower case.

    Raises:
        UsageError: it is not one of the three kinds that are documented. The message quotes neither the URL nor a
            part of its password.
    """
    if text[:1] in "\"'`" or re.search(r"\s", text):
        raise UsageError(f"{_VARIABLE} holds quotation marks or spaces, which are no part of a URL: leave them out")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("redis", "rediss", "redis+socket"):
        named = (
            f"begins with {scheme}://" if separator and re.fullmatch(r"[a-z0-9+.-]+", scheme) else "has no scheme"
        )
        raise UsageError(f"{_VARIABLE} {named}, which is no broker that Scanomaly knows: give {_SHAPES}")
    wrong = _wrong_socket(rest) if scheme == "redis+socket" else _wrong_server(rest)
    if wrong is not None:
        raise UsageError(f"{_VARIABLE} {wrong}: give {_SHAPES}")
    return f"{scheme}://{rest}"


def socket_url(path: str) -> str:
    """The URL of a unix socket, whatever characters its path has."""
    return f"redis+socket://{quote(path)}"


def _wrong_socket(rest: str) -> str | None:
    if "#" in rest or ";" in rest:
        return "has a # or ; that a URL ends with (in a path, they are written %23 and %3B)"
    path = unquote(rest.partition("?")[0].rpartition("@")[2])
    return None if path.startswith("/") and path != "/" else "names no absolute path of a socket"


def _wrong_server(rest: str) -> str | None:
    parts = urlsplit(f"http://{rest.partition('#')[0]}")
    place = parts.netloc.rpartition("@")[2]
    host, port = re.fullmatch(r"(.*?)(?::([^:\]]*))?", place).groups()  # type: ignore[union-attr]
    wrong = {
        "has a # that a URL ends with": "#" in rest,
        "has an @ too many": parts.netloc.count("@") > 1 or "@" in parts.path,
        "names no host": not host,
        "names a host that cannot be one": not _HOST.fullmatch(host),
        "has a port that is no number from 1 to 65535": port is not None and not _is_port(port),
        "names a database that is no number": not re.fullmatch(r"(/[0-9]{0,9})?", parts.path),
    }
    first = next((words for words, is_so in wrong.items() if is_so), None)
    return None if first is None else f"{first} ({_PASSWORD})"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536
