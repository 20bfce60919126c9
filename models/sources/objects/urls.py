"""Tells sources that are URLs from those that are paths, without loading what reads them."""

import errno
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ...errors import UsageError

TAKEN = "s3://, gs://, http://, https:// and file:// are taken"

DRIVERS = {"s3": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""The driver of a scheme, which is also the name of the extra that installs it."""

CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "http": 'set FSSPEC_HTTP to {"headers": {"Authorization": "..."}}',
}


def is_url(source: str) -> bool:
    """Whether a source is a URL, and not a path or a name.

    Raises:
        UsageError: it is a URL that cannot be a source.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.\-]+)(://|::.*://)", source, re.DOTALL)
    if not match:
        return False
    scheme = match[1].lower()
    if match[2] != "://":
        raise UsageError(f"URLs that are chained with {scheme}:: are not taken: name the object itself; {TAKEN}")
    if scheme not in DRIVERS and scheme != "file":
        raise UsageError(f"{scheme}:// is not taken: {TAKEN}")
    return True


def local_folder(url: str) -> Path | None:
    """The folder or file that a `file://` URL stands for; None for any other URL.

    Raises:
        UsageError: it names another machine, or no absolute path.
    """
    if not re.match(r"file://", url, re.IGNORECASE):
        return None
    host, slash, path = url[len("file://") :].partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError("a file:// URL names a path on this machine, with three slashes: file:///scans/today")
    return Path("/" + unquote(path))


class Place(NamedTuple):
    """Where a URL points."""

    driver: str
    url: str
    """Without a slash at its end."""
    host: str
    """The bucket; of a web server `https://host:port`."""
    inner: str
    """The path in it, decoded, without slashes at its ends."""
    slash: bool
    """Whether the URL ended with a slash: a folder's does."""


def parse(url: str) -> Place:
    if local_folder(url) is not None:
        raise UsageError("a file:// URL is a local folder: give its path")
    if not is_url(url):
        raise UsageError(f"this is no URL: {TAKEN}")
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    host, _, inner = rest.partition("/")
    # None of these messages shows the URL: what is wrong may be a password in it.
    if "@" in host or (DRIVERS[scheme] != "http" and ":" in host):
        raise UsageError(
            f"the {scheme}:// URL holds a name or a password before its host: a job's URL is stored and shown. "
            f"Take them out, and {CREDENTIALS[DRIVERS[scheme]]}"
        )
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"the {scheme}:// URL holds a query (?...) or a fragment (#...): a signature in it would be stored and "
            "shown, and paths cannot be added to it. Take it out"
        )
    web = DRIVERS[scheme] == "http"
    place = f"{scheme}://{host}" if web else host
    if not _can_be_host(host, web):
        raise UsageError(f"the {scheme}:// URL names no {'host' if web else 'bucket'}: {scheme}://NAME/folder")
    inner = inner.removesuffix("/")
    path = unquote(inner, errors="surrogateescape") if web else inner
    if path and path_reason(path):
        raise UsageError(f"the {scheme}:// URL has a path that {path_reason(path)}")
    return Place(DRIVERS[scheme], f"{scheme}://{host}/{inner}".rstrip("/"), place, path, url.endswith("/"))


def _can_be_host(host: str, web: bool) -> bool:
    if not web:
        return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,221}", host) is not None
    try:
        return bool(urlsplit(f"//{host}").hostname) and urlsplit(f"//{host}").port != 0 and " " not in host
    except ValueError:
        return False


def check_driver(place: Place) -> None:
    import fsspec

    try:
        fsspec.get_filesystem_class(place.driver)
    except ImportError:
        raise UsageError(
            f"{place.url} needs a driver that is not installed: pip install 'scanomaly[{place.driver}]'"
        ) from None


def path_reason(path: str) -> str | None:
    """Why a key is no path, or None."""
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in path):
        return "holds control characters"
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "holds an empty part, . or .."
    if not path.isascii() and any("\ud800" <= letter <= "\udfff" for letter in path):
        return "is not valid UTF-8"
    return None


def check_path(path: str) -> None:
    reason = path_reason(path)
    if reason:
        raise FileNotFoundError(errno.ENOENT, f"the path {reason}")
