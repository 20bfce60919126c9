"""What went wrong: what a driver's error or a server's status means, and whether another try may do better.

No error that a server caused holds a URL: a store may have redirected to a signed one. Its `strerror` is one line
for people.
"""

import errno
import os
import random
import re

from tenacity import RetryCallState

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ObjectTooLargeError(OSError):
    """An object has more bytes than may be read: `size`, or None when the server does not tell how many."""

    def __init__(self, size: int | None) -> None:
        super().__init__(errno.EFBIG, "the object is too large")
        self.size = size


class TryError(Exception):
    """A try that failed: the error to raise, and whether another try may do better."""

    def __init__(self, number: int, text: str, passing: bool = False, after: float = 0.0) -> None:
        super().__init__(text)
        self.error: OSError = RangeError(number, text) if number == errno.ERANGE else OSError(number, text)
        self.passing = passing
        self.after = after


class RangeError(OSError):
    """There is no such range: the object is empty, or shorter than it was."""


def wait(state: RetryCallState) -> float:
    """Seconds: up to 0.2, 0.4, 0.8 ... 10 at random, but not less than the server asks for."""
    error = state.outcome.exception() if state.outcome else None
    after = error.after if isinstance(error, TryError) else 0.0
    return max(random.uniform(0, min(10.0, 0.1 * 2**state.attempt_number)), after)


def failure(error: Exception) -> Exception:
    """What a driver's error means; any error that is not a driver's as it is."""
    if isinstance(error, TryError | ObjectTooLargeError):
        return error
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:  # botocore's
        about = response.get("ResponseMetadata", {})
        return status_failure(
            int(about.get("HTTPStatusCode", 0)),
            str(response["Error"].get("Code", "")),
            str(about.get("HTTPHeaders", {}).get("retry-after", "")),
        )
    return _driver_failure(error)


_FORBIDDEN_CODES = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
    | {"TokenRefreshRequired", "InvalidObjectState", "InvalidSecurity", "RequestTimeTooSkewed", "AccountProblem"}
)
_PASSING_CODES = frozenset(
    {"InternalError", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
    | {"ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch", "BadDigest", "OperationAborted"}
)


def status_failure(status: int, code: str = "", retry_after: str = "") -> TryError:
    # A code is a server's word: it is shown only if it looks like one.
    code = code if re.fullmatch(r"[A-Za-z]{3,64}", code) else ""
    said = f"{status} {code}".strip()
    after = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    if code in _PASSING_CODES or status in (408, 425, 429) or (status >= 500 and status not in (501, 505)):
        return TryError(errno.EIO, f"the server answered {said}", True, after)
    if code in _FORBIDDEN_CODES or status in (401, 403, 407):
        return TryError(errno.EACCES, f"not allowed: {said}")
    if status in (404, 410) or code.startswith("NoSuch"):
        return TryError(
            errno.ENOENT, "there is no such bucket" if code == "NoSuchBucket" else "there is no such object"
        )
    if status == 412:
        return TryError(errno.ESTALE, "the object changed while it was read")
    if status == 416:
        return TryError(errno.ERANGE, "there is no such range of the object")
    return TryError(errno.EIO, f"the server answered {said}")


# By name, so that no driver needs to be there; a name stands for its subclasses too. The first that fits holds.
_MEANINGS: tuple[tuple[set[str], int, str, bool], ...] = (
    (
        {"builtins.TimeoutError", "botocore.ReadTimeoutError", "botocore.ConnectTimeoutError"},
        errno.ETIMEDOUT,
        "the server did not answer in time",
        True,
    ),
    (
        {"ssl.SSLError", "aiohttp.ClientSSLError", "botocore.SSLError"},
        errno.EIO,
        "the server cannot be trusted: its certificate, or TLS ({})",
        False,
    ),
    ({"aiohttp.InvalidURL"}, errno.EIO, "the address cannot be right ({})", False),
    (
        {"builtins.OSError", "builtins.EOFError", "aiohttp.ClientError", "requests.RequestException"}
        | {"google.TransportError", "botocore.HTTPClientError", "botocore.ConnectionError"}
        | {"botocore.IncompleteReadError", "botocore.ResponseParserError", "botocore.FlexibleChecksumError"},
        errno.EIO,
        "the connection failed ({})",
        True,
    ),
    (
        {"botocore.NoCredentialsError", "botocore.PartialCredentialsError", "botocore.CredentialRetrievalError"}
        | {
            "botocore.NoAuthTokenError",
            "botocore.ProfileNotFound",
            "botocore.ConfigParseError",
            "botocore.SSOError",
        }
        | {"botocore.TokenRetrievalError", "google.GoogleAuthError", "gcsfs.HttpError", "gcsfs.NonRetryableError"},
        errno.EACCES,
        "the credentials of the environment cannot be used: {}",
        False,
    ),
    ({"botocore.BotoCoreError"}, errno.EIO, "the driver failed ({})", False),
)


def _driver_failure(error: Exception) -> Exception:
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    name = type(error).__name__
    number = getattr(error, "errno", None)
    if number in _OURS:
        return TryError(number, os.strerror(number))
    for names, means, text, passing in _MEANINGS:
        if kinds & names:
            return TryError(means, text.format(name), passing)
    return error  # ours


def cut_short(size: int, length: int | None) -> TryError:
    return TryError(errno.EIO, f"the answer was cut short, after {size} of {length} bytes", True)
