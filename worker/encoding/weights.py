"""Finds an encoder's weights in the model hub's local cache, or fetches them. Does not import torch.

Left alone, huggingface_hub asks an unreachable hub for about a minute before it gives up. Here one request, in a
thread with a deadline, decides within `timeout` seconds whether the hub answers, whatever hangs: name look-up,
connection, TLS or the server itself.
"""

import contextlib
import errno
import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, tqdm

from ...models.encoders import OFFLINE_ENCODER
from ...models.errors import EncoderError, HubUnreachableError

DEFAULT_FILENAME = "open_clip_pytorch_model.bin"
LINE_SECONDS = 10.0
"""How often a download writes a line where there is no terminal."""

_SAFE_DEFAULT = "open_clip_model.safetensors"
_THREE_WAYS = f"give --weights FILE, or --encoder {OFFLINE_ENCODER}, or a connection to the hub"
_Answer = TypeVar("_Answer")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def cached(repo: str, filename: str = DEFAULT_FILENAME) -> Path | None:
    """The file in the local cache, or None. Asks nobody."""
    for name in _alternatives(filename):
        with contextlib.suppress(OSError):  # a cache that cannot be read; fetch() will say what is wrong with it
            path = try_to_load_from_cache(repo, name)
            if isinstance(path, str):
                return Path(path)
    return None


def available(repo: str, filename: str = DEFAULT_FILENAME, timeout: float = 5.0) -> str:
    """Ask the hub which form of the file it holds.

    Args:
        repo: `owner/name` on the hub.
        filename: the file, of which the safetensors form is preferred, as open_clip does.
        timeout: seconds for one answer; a hub that gives none counts as unreachable.

    Returns:
        The file name to download.

    Raises:
        HubUnreachableError: no hub answers within the time.
        EncoderError: the hub answers, and does not give this file.
    """
    if constants.is_offline_mode():
        raise HubUnreachableError(
            f"the weights {repo} are not in the local cache, and HF_HUB_OFFLINE forbids to fetch them:"
            f" {_THREE_WAYS}"
        )
    for name in _alternatives(filename):
        url = hf_hub_url(repo, name)
        try:
            with _quiet_client():
                found = _within(timeout, partial(get_hf_file_metadata, url, timeout=timeout, retry_on_errors=False))
        except EntryNotFoundError:
            continue
        except Exception as error:  # whatever the client raises ends as one line
            raise _hub_failure(error, repo) from error
        if found.commit_hash is None or found.etag is None:  # a proxy's or a hotel's page
            raise _unreachable(repo, "what answers there is not a model hub")
        return name
    raise EncoderError(f"the hub has no file {filename} in {repo}: name another tag, or give --weights FILE")


def fetch(
    repo: str,
    filename: str = DEFAULT_FILENAME,
    timeout: float = 5.0,
    tqdm_class: type[Any] | None = None,
) -> Path:
    """The local file with the weights: from the cache, else downloaded into it.

    A download that is interrupted leaves nothing that counts as the file; the next one starts over. Progress goes
    to stderr: a bar on a terminal, else a line every `LINE_SECONDS`.

    Args:
        repo: `owner/name` on the hub.
        filename: the file, of which the safetensors form is preferred, as open_clip does.
        timeout: seconds within which the hub has to answer.
        tqdm_class: shows the progress instead.

    Raises:
        HubUnreachableError: no hub answers within the time, or it broke off the download.
        EncoderError: the hub does not give this file, or the cache folder does not take it.
    """
    path = cached(repo, filename)
    if path is not None:
        return path
    name = available(repo, filename, timeout)
    bar = tqdm_class or (None if _terminal() else LineBar)
    try:
        with _quiet_client():
            return Path(hf_hub_download(repo, name, etag_timeout=timeout, tqdm_class=bar))
    except Exception as error:
        raise _download_failure(error, repo) from error


class LineBar(tqdm):
    """A progress bar for logs: one line now and then instead of a line that is drawn again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {
            "file": _Lines(sys.stderr),
            "disable": are_progress_bars_disabled(kwargs.get("name")),
            "mininterval": LINE_SECONDS,
            "maxinterval": LINE_SECONDS,
            "bar_format": "{desc}: {n_fmt}B of {total_fmt}B, {rate_fmt}",
            "position": 0,
            "leave": True,
        }
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]


class _Lines:
    """What a bar draws, as lines: without the carriage's returns and the blanks that wipe the last drawing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self._stream.write(text.strip() + "\n")

    def flush(self) -> None:
        self._stream.flush()


def _terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _alternatives(filename: str) -> list[str]:
    """The names to try, best first: open_clip's own order."""
    filename = filename or DEFAULT_FILENAME
    if filename == DEFAULT_FILENAME:
        return [_SAFE_DEFAULT, filename]
    if filename.endswith((".bin", ".pth")):
        return [filename[:-4] + ".safetensors", filename]
    return [filename]


def _within(seconds: float, ask: Callable[[], _Answer]) -> _Answer:
    """Call `ask` in a thread that nobody waits for longer than `seconds`.

    A name look-up cannot be interrupted and has no time limit of its own, so the thread is left behind.
    """
    answers: queue.SimpleQueue[tuple[_Answer | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, name="hub-probe", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def _hub_failure(error: Exception, repo: str) -> EncoderError:
    """What a failed request means, as one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return _cache_failure(error.errno)
    if isinstance(error, GatedRepoError):
        return EncoderError(
            f"the hub gives {repo} only to who accepted its terms: log in with `hf auth login`, or give"
            " --weights FILE"
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        return EncoderError(f"the hub has no {repo}, or keeps it private: name another tag, or give --weights FILE")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return EncoderError(f"the hub refuses {repo} (HTTP {status}): check HF_TOKEN, or give --weights FILE")
        return _unreachable(repo, f"it answers with HTTP {status}")
    return _unreachable(repo, _reason(error))


def _unreachable(repo: str, reason: str) -> HubUnreachableError:
    return HubUnreachableError(
        f"the model hub {_hub_name()} cannot be reached ({reason}), and the weights {repo} are not in its local"
        f" cache: {_THREE_WAYS}"
    )


def _download_failure(error: Exception, repo: str) -> EncoderError:
    if isinstance(error, LocalEntryNotFoundError):
        return _unreachable(repo, "it stopped answering")
    number = _disk_error(error)
    if number is not None:
        return _cache_failure(number)
    if isinstance(error, EntryNotFoundError | RepositoryNotFoundError | RevisionNotFoundError):
        return _hub_failure(error, repo)
    return HubUnreachableError(
        f"the download of the weights {repo} broke off ({_reason(error)}): try again, or {_THREE_WAYS}"
    )


def _cache_failure(number: int | None) -> EncoderError:
    what = "is full: make room" if number in (errno.ENOSPC, errno.EDQUOT) else "cannot be used: allow it"
    return EncoderError(f"the cache folder {constants.HF_HUB_CACHE} {what}, or name another with HF_HOME")


def _disk_error(error: BaseException | None) -> int | None:
    """The number of the disk error among the error's causes. Errors of the network are OSErrors too."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in _DISK_ERRORS or error.filename is not None):
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"


def _hub_name() -> str:
    """The hub's address without a path, a user or a password."""
    parts = urlsplit(constants.ENDPOINT)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.hostname or 'of HF_ENDPOINT'}{port}"


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client's own warnings out of stderr: it retries, and if it fails it raises."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
