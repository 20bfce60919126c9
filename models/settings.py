"""Settings: frozen, and the only reader of the environment (`SCANOMALY_*`)."""

import hashlib
import ipaddress
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from .broker_url import parse_broker_url, socket_url
from .errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import URL

PREFIX = "SCANOMALY_"

MOST_DECODE_THREADS = 8
BATCHES_AT_ONCE = 2
"""How many batches a worker has in hand: one is encoded, and meanwhile the next is read or the last is written."""


def _default_home() -> Path:
    """Raises UsageError where this user has no folder of their own, as in a container."""
    try:
        return Path(platformdirs.user_data_path("scanomaly"))
    except RuntimeError:
        raise UsageError(
            f"user {os.getuid()} has no home folder here: set SCANOMALY_HOME to one that they may write"
        ) from None


@dataclass(frozen=True)
class Settings:
    """What a person may change. `docs/settings.md` describes each variable.

    `broker_url` and `store_url` are None for the embedded broker and for SQLite, both under `home`.
    """

    home: Path = field(default_factory=_default_home)
    broker_url: str | None = None
    store_url: str | None = None
    batch_size: int = 32
    """Scans in one queue message."""
    device: str = "auto"
    decode_threads: int = field(default_factory=lambda: min(MOST_DECODE_THREADS, usable_cores()))
    encoder_threads: int | None = None
    """Threads of an encoder on the CPU; None for as many as torch takes: the cores, or OMP_NUM_THREADS."""
    max_pixels: int = 100_000_000
    """A scan with more pixels fails as `too_large` before it is decoded."""
    max_file_bytes: int = 2 * 1024**3
    """A larger file fails as `too_large` before it is read."""
    batch_memory: int = 2 * 1024**3
    """Bytes that the files and pixels of a batch may take at one time, whatever the sizes of its images."""
    scan_seconds: float = 300.0
    """A worker that reads, decodes or encodes one scan for longer is killed, as if the scan had crashed it."""
    max_attempts: int = 3
    """How many workers may die with a scan, the last ones with it alone, before it fails as `crashed_worker`."""
    grace_seconds: float = 30.0
    """How long a worker that is told to stop may go on with its batch; then the batch goes back to the queue."""
    store_seconds: float = 300.0
    """How long a worker asks a store again that cannot be used, before it stops with an error."""
    source_seconds: float = 60.0
    """How long an object store or a web server is asked again that does not answer, for each scan."""
    pseudonym_key: str | None = field(default=None, repr=False)
    """With what names from headers, and paths that are hidden, become ids; None for the one in `home`."""
    roots: tuple[tuple[Path, Path], ...] = ()
    """Folders that have another path here than where jobs are submitted: (there, here)."""
    gallery_scans: int = 300
    """How many scans `report.html` shows with a thumbnail."""
    hub_seconds: float = 5.0
    """How long the model hub or the data set hub may take to answer before it counts as unreachable."""
    server_url: str | None = None
    """Of an HTTP service: commands and `Client` ask it, and not the store."""
    api_token: str | None = field(default=None, repr=False)
    """What the service wants of a client that may do all, or `sha256:` and that digest of it in hexadecimal."""
    api_read_token: str | None = field(default=None, repr=False)
    """The same of a client that may only look."""
    api_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose word is taken for who a client is, and whether it came over TLS."""
    api_roots: tuple[Path, ...] = ()
    """The folders below which the service takes scans from."""
    api_submits_per_minute: int = 30
    """How many jobs the service takes in a minute."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings.

        Raises:
            UsageError: a variable holds a value that cannot be right.
        """
        names: dict[str, Callable[[str], Any]] = {
            "home": _home,
            "broker_url": parse_broker_url,
            "store_url": _url,
            "batch_size": _positive,
            "device": str,
            "decode_threads": _positive,
            "encoder_threads": _positive,
            "max_pixels": _positive,
            "max_file_bytes": _positive,
            "batch_memory": _positive,
            "scan_seconds": _seconds,
            "max_attempts": _positive,
            "grace_seconds": _seconds,
            "store_seconds": _seconds,
            "source_seconds": _seconds,
            "pseudonym_key": str,
            "roots": _roots,
            "gallery_scans": _positive,
            "hub_seconds": _seconds,
            "server_url": _url,
            "api_token": str,
            "api_read_token": str,
            "api_proxies": _networks,
            "api_roots": _folders,
            "api_submits_per_minute": _positive,
        }
        values = {}
        for name, read in names.items():
            variable = PREFIX + name.upper()
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                values[name] = read(text)
            except ValueError as error:
                raise UsageError(f"{variable}={hide_password(text)!r} {error}") from None
        return cls(**values)

    def local_path(self, path: str | Path) -> Path:
        """A path that a job names, as this machine has it: see `roots`. The longest root that fits wins.

        A root here, and the home, may be symbolic links or lie below some: whoever runs this machine set them up.
        Links below them may be anybody's, and stay in the path: see `sources/beneath.py`.
        """
        own = (self.home, self.home)
        fitting = [(there, here) for there, here in (*self.roots, own) if Path(path).is_relative_to(there)]
        if not fitting:
            return Path(path)
        there, here = max(fitting, key=lambda pair: len(pair[0].parts))
        return Path(os.path.realpath(here)) / Path(path).relative_to(there)

    @property
    def broker_socket(self) -> Path:
        """Where the embedded broker listens.

        A unix socket's path may be 107 bytes long at most, so a deep `home` gets a short folder elsewhere. So does
        one with a name that is no text, of which no URL can be made.
        """
        path = (self.home / "broker" / "broker.sock").absolute()
        if len(os.fsencode(path)) <= 100 and str(path).isprintable():
            return path
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"scanomaly-{os.getuid()}-{digest}" / "broker.sock"

    @property
    def resolved_broker_url(self) -> str:
        """The URL of the broker, as Celery takes it. May hold a password: never print it whole."""
        url = self.broker_url or socket_url(str(self.broker_socket))
        if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
            # kombu would not look at the server's certificate.
            url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
        return url

    @property
    def resolved_store_url(self) -> "URL":
        """The URL of the store. Holds a password where the user's URL does: never print it whole.

        Raises:
            UsageError: `store_url` names no database that a store can be in.
        """
        from sqlalchemy import URL  # which takes long to load, and not every command opens a store

        from .engines import parse_store_url

        if self.store_url is None:
            return URL.create("sqlite", database=str(self.home.absolute() / "store.sqlite"))
        return parse_store_url(self.store_url)


def hide_password(url: str) -> str:
    """A URL as it may be printed, also when its password holds characters that it should not."""
    query = re.search(r"\?(?:\w+=[^&]*&?)+$", url)
    head, rest = (url[: query.start()], query[0]) if query else (url, "")
    return re.sub(r"(://[^:@/]*:).*@", r"\1***@", head) + re.sub(r"(password=)[^&]*", r"\1***", rest)


def usable_cores() -> int:
    """The cores that this process may use: fewer than the machine's in a container, or on a cluster."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def expand_user(path: str | Path) -> Path:
    """A path with the folder for its `~` or `~name`.

    Raises:
        ValueError: nobody is called so, or this user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        who = Path(path).parts[0]
        raise ValueError(f"begins with {who}, and no home folder is known for that: write the whole path") from None


def give_home_to_libraries(settings: Settings) -> None:
    """Where this user has no home folder that can be used, as in a container, the settings' `home` becomes it.

    The hubs' libraries and matplotlib keep their caches there: without one they fail as they are imported, or make
    a folder called `~`. It is set for this process and those that it starts.
    """
    folder = Path("~")
    with suppress(RuntimeError):
        folder = Path.home()
    usable = folder.is_absolute() and folder.is_dir()
    # A folder that is read only may have all that is needed.
    if not usable or not (os.access(folder, os.W_OK) or (folder / ".cache").is_dir()):
        os.environ["HOME"] = str(settings.home)


def _home(text: str) -> Path:
    return expand_user(text).absolute()


def _url(text: str) -> str:
    if text[0] in "'\"" and text[-1] == text[0]:
        raise ValueError("has quotation marks around it: leave them out")
    return text


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number of seconds") from None
    if not 0 < value < float("inf"):
        raise ValueError("is not a number of seconds above 0")
    return value


def _folders(text: str) -> tuple[Path, ...]:
    """`/one:/two`, as in PATH."""
    folders = [expand_user(part) for part in text.split(os.pathsep) if part]
    if not folders or not all(folder.is_absolute() for folder in folders):
        raise ValueError(f"is not a list of absolute folders such as /scans{os.pathsep}/more")
    return tuple(folders)


def _networks(text: str) -> tuple[str, ...]:
    """`127.0.0.1,10.0.0.0/8`."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        for part in parts:
            ipaddress.ip_network(part, strict=False)
    except ValueError:
        raise ValueError("is not a list of addresses or networks such as 127.0.0.1,10.1.0.0/16") from None
    return parts


def _roots(text: str) -> tuple[tuple[Path, Path], ...]:
    """`/there=/here:/there2=/here2`, as in PATH."""
    pairs = [part.partition("=")[::2] for part in text.split(os.pathsep) if part]
    if not pairs or not all(Path(path).is_absolute() for pair in pairs for path in pair):
        raise ValueError(f"is not a list of absolute folders such as /there=/here{os.pathsep}/there2=/here2")
    return tuple((Path(there), Path(here)) for there, here in pairs)
