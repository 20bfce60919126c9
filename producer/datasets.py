"""Named data sets: `kaggle:owner/name[/versions/N]` through kagglehub and its cache; `sample:`, the built-in one.

kagglehub is written for notebooks: it prints, logs to stdout, and sends without a time limit. Here it runs with its
output put away and its waiting bounded, and whatever goes wrong becomes one line that says what to do.
"""

import contextlib
import errno
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.errors import DatasetError, KaggleUnreachableError, UsageError
from ..models.settings import Settings

if TYPE_CHECKING:
    import requests
    from kagglehub.config import KaggleApiCredentials
    from kagglehub.handle import DatasetHandle

KAGGLE = "kaggle:"
SAMPLE = "sample:"

STALL_SECONDS = 60.0
"""How long Kaggle may pause within an answer; it packs a large data set before the first byte."""

_HANDLE = re.compile(r"([A-Za-z0-9][\w-]*)/([A-Za-z0-9][\w.-]*)(?:/versions/([1-9][0-9]*))?", re.ASCII)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GIVE_CREDENTIALS = "set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or write ~/.kaggle/kaggle.json"


@dataclass(frozen=True)
class Dataset:
    """A data set on this machine."""

    folder: Path
    name: str
    """What exactly was taken: `sample:`, or `kaggle:owner/name/versions/N`."""
    note: str | None = None
    """One line for the user where it is not quite what was asked for."""


def is_dataset(source: str) -> bool:
    """Whether `resolve` is in charge of this source; any other is a path."""
    return source.startswith((KAGGLE, SAMPLE))


def resolve(source: str, settings: Settings) -> Dataset:
    """Bring a data set to this machine, if it is not there yet.

    Nothing is written to stdout. On a terminal, stderr shows the download's progress.

    Raises:
        UsageError: the source is neither `sample:` nor `kaggle:owner/name[/versions/N]`.
        KaggleUnreachableError: Kaggle gave no answer within `settings.hub_seconds`, and the cache holds no version.
        DatasetError: anything else that keeps the data set away; one line that says what to do.
    """
    if source == SAMPLE:
        from .sample import built_in_sample  # NumPy: a folder does not need it

        return Dataset(built_in_sample(settings), SAMPLE)
    match = _HANDLE.fullmatch(source.removeprefix(KAGGLE)) if source.startswith(KAGGLE) else None
    if match is None:
        raise UsageError(
            f"{source!r} is not a data set: write kaggle:OWNER/NAME, kaggle:OWNER/NAME/versions/N or sample:"
        )
    owner, name, version = match.groups()
    with _quiet_kagglehub():
        from kagglehub.handle import DatasetHandle

        handle = DatasetHandle(owner, name, int(version) if version else None)
        try:
            return _from_kaggle(handle, settings)
        except DatasetError:
            raise
        except Exception as error:
            raise DatasetError(_explain(handle, error)) from error


def _from_kaggle(handle: "DatasetHandle", settings: Settings) -> Dataset:
    from kagglehub.cache import Cache

    if handle.is_versioned() and (cached := Cache().load_from_cache(handle)):
        return Dataset(Path(cached), f"{KAGGLE}{handle}")  # a version never changes: no need to ask
    try:
        newest = _current_version(handle, settings.hub_seconds)
    except KaggleUnreachableError as error:
        version = None if handle.is_versioned() else _newest_cached_version(handle)
        if version is None:
            raise KaggleUnreachableError(
                f"{error}, and {handle} is not in kagglehub's cache: download the data set by hand and give its "
                "folder, take the built-in sample (`scanomaly run sample:`), or set KAGGLEHUB_CACHE to a filled one"
            ) from error
        taken = handle.with_version(version)
        note = f"{error}: using version {version} from the cache"
        return Dataset(Path(Cache().get_path(taken)), f"{KAGGLE}{taken}", note)
    taken = handle if handle.is_versioned() else handle.with_version(newest)
    return Dataset(_download(taken, settings), f"{KAGGLE}{taken}")


def _current_version(handle: "DatasetHandle", seconds: float) -> int:
    """Ask Kaggle for the number of the newest version, and so whether it can be reached at all.

    In a thread that is left behind: a resolver that hangs cannot be interrupted, and no time limit of a socket
    bounds a server that answers one byte a second.

    Raises:
        KaggleUnreachableError: no usable answer within `seconds`; the message says only that and why.
        requests.HTTPError: Kaggle refused.
    """
    import requests

    credentials = _credentials()
    answer: Future[int | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(_ask_for_version(handle, credentials))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="ask-kaggle", daemon=True).start()
    try:
        version = answer.result(timeout=seconds)
    except TimeoutError:
        raise KaggleUnreachableError(f"Kaggle cannot be reached (no answer within {seconds:g} s)") from None
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        if status != 429 and status < 500:
            raise
        raise KaggleUnreachableError(f"Kaggle cannot be reached (it answers {status})") from error
    except requests.exceptions.SSLError as error:
        raise KaggleUnreachableError(
            "Kaggle cannot be reached (its certificate is not trusted here; behind a proxy that opens TLS, "
            "set REQUESTS_CA_BUNDLE to the proxy's certificate)"
        ) from error
    except (requests.RequestException, ValueError, TypeError, AttributeError) as error:
        # Not JSON, or not Kaggle's: a proxy or a login page answered in Kaggle's place.
        reason = "no connection" if isinstance(error, requests.ConnectionError) else "the answer is not Kaggle's"
        raise KaggleUnreachableError(f"Kaggle cannot be reached ({reason})") from error
    if version is None:
        raise DatasetError(f"Kaggle names no version of {handle}: look at its page, {handle.to_url()}")
    return version


def _credentials() -> "KaggleApiCredentials":
    """The user's, or none at all, which is enough for a public data set."""
    from kagglehub.config import KaggleApiCredentials, get_kaggle_credentials

    try:
        return get_kaggle_credentials() or KaggleApiCredentials()
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(
            f"Kaggle's credentials cannot be read ({_one_line(error)}): {_GIVE_CREDENTIALS}"
        ) from error


def _ask_for_version(handle: "DatasetHandle", credentials: "KaggleApiCredentials") -> int | None:
    """The same call as kagglehub's own, from a client that never prints: a late answer must not reach stdout."""
    import kagglehub
    from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest
    from kagglesdk.kaggle_client import KaggleClient

    request = ApiGetDatasetRequest()
    request.owner_slug = handle.owner
    request.dataset_slug = handle.dataset
    with KaggleClient(
        username=credentials.username,
        password=credentials.key,
        api_token=credentials.api_key,
        user_agent=f"kagglehub/{kagglehub.__version__}",
    ) as client:
        version: int | None = client.datasets.dataset_api_client.get_dataset(request).current_version_number
    return version


def _newest_cached_version(handle: "DatasetHandle") -> int | None:
    """The newest version whose download was completed."""
    from kagglehub.cache import Cache

    cache = Cache()
    folders = Path(cache.get_path(handle), "versions").glob("*")
    versions = [int(folder.name) for folder in folders if folder.name.isascii() and folder.name.isdigit()]
    return max((v for v in versions if v > 0 and cache.load_from_cache(handle.with_version(v))), default=None)


def _download(handle: "DatasetHandle", settings: Settings) -> Path:
    from kagglehub import dataset_download
    from kagglehub.cache import Cache
    from requests import RequestException

    try:
        with _bounded_waiting(settings.hub_seconds, STALL_SECONDS):
            return Path(dataset_download(str(handle)))
    except (RequestException, OSError):
        raise
    except Exception as error:
        # Neither the connection nor the disk, so it is the archive: its checksum, its format or what is in it. Left
        # there, kagglehub would take it for a complete download the next time.
        Path(Cache().get_archive_path(handle)).unlink(missing_ok=True)
        raise DatasetError(
            f"What Kaggle sent for {handle} is damaged and was thrown away ({_one_line(error)}): "
            "run the same command again"
        ) from error


def _explain(handle: "DatasetHandle", error: Exception) -> str:
    """One line for whatever kagglehub raised."""
    import requests
    from kagglehub.cache import get_cache_folder

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _explain_refusal(handle, error.response)
    if isinstance(error, requests.RequestException):
        return f"The download of {handle} broke off ({type(error).__name__}): run the same command again"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"No room for {handle} in {get_cache_folder()}: make room, or set KAGGLEHUB_CACHE to another disk"
    if isinstance(error, OSError):
        reason = f"{error.strerror or error}: {error.filename or get_cache_folder()}"
        return f"{handle} cannot be stored ({reason}): set KAGGLEHUB_CACHE to another folder"
    return f"{handle} cannot be fetched from Kaggle: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _explain_refusal(handle: "DatasetHandle", response: "requests.Response") -> str:
    status = response.status_code
    if status == 404:
        return f"Kaggle has no such data set: {handle}"
    if status == 401:
        return f"Kaggle wants valid credentials for {handle} (401): {_GIVE_CREDENTIALS}"
    if status == 403:
        # Kaggle says the same of a data set that does not exist and of one that is private.
        return (
            f"Kaggle gives no access to {handle} (403): check the name, accept the terms on {handle.to_url()}, "
            f"or give credentials: {_GIVE_CREDENTIALS}"
        )
    return f"Kaggle does not hand out {handle} (it answers {status} {response.reason}): try again later"


@contextlib.contextmanager
def _quiet_kagglehub() -> Iterator[None]:
    """Import and run kagglehub without a word on stdout, and on stderr only its progress bar on a terminal."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        # It prints warnings of new versions, and with KAGGLE_API_ENVIRONMENT=TEST every request.
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        if sys.stderr is None or not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        try:
            import kagglehub  # noqa: F401
        except Exception as error:
            raise DatasetError(f"kagglehub cannot be loaded: {_one_line(error)}") from error
        log = logging.getLogger("kagglehub")
        # At import it attaches a handler to what was stdout then. The file a user asks for (KAGGLE_LOGGING_ENABLED)
        # stays; with no handler at all, Python would print warnings itself.
        log.handlers = [h for h in log.handlers if isinstance(h, logging.FileHandler)] or [logging.NullHandler()]
        yield


@contextlib.contextmanager
def _bounded_waiting(connect: float, read: float) -> Iterator[None]:
    """Give every request that sets no time limit one, in seconds: kagglesdk sets none and cannot be told to."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_bounded(self: HTTPAdapter, *args: Any, **options: Any) -> "requests.Response":
        if options.get("timeout") is None:
            options["timeout"] = (connect, read)
        return send(self, *args, **options)

    HTTPAdapter.send = send_bounded  # type: ignore[method-assign]
    try:
        yield
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]
