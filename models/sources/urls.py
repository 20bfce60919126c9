"""Tells sources that are URLs from those that are paths, without loading what reads them."""

import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import UsageError

TAKEN = "s3://, gs://, http://, https:// and file:// are taken"

DRIVERS = {"s3": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""The driver of a scheme, which is also the name of the extra that installs it."""


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
