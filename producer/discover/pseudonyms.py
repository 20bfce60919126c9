"""Names that tell patients and series apart, and do not tell who they are.

A name is a keyed hash (HMAC, RFC 2104) of an identifier: a plain hash of a patient's number could be undone by
hashing all numbers that there may be.
"""

import hmac
from collections.abc import Callable

from ...models.errors import UsageError
from ...models.secret_files import load_secret
from ...models.settings import Settings

KEY_FILE = "pseudonym.key"

_DIGITS = 12
_LEAST_CHARACTERS = 16


class Pseudonyms:
    """Makes the names, under one key."""

    def __init__(self, key: bytes | Callable[[], bytes]) -> None:
        """Take a key, or what loads it when the first name is made: most jobs need none."""
        self._key = key

    def name(self, kind: str, *values: str) -> str:
        """The name of what some values identify.

        Args:
            kind: what it is: the same values have another name as another kind.
            values: such as a patient's number and who gave it. White space and NUL around a value are padding.

        Returns:
            Such as `patient-0123456789ab`. Of a million names two are equal with a probability of 0.2 %.
        """
        if callable(self._key):
            self._key = self._key()
        digest = hmac.new(self._key, digestmod="sha256")
        for value in (kind, *values):
            content = value.strip(" \t\r\n\0").encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "big") + content)  # ("ab", "c") is not ("a", "bc")
        return f"{kind}-{digest.hexdigest()[:_DIGITS]}"


def load_key(settings: Settings) -> bytes:
    """The key: the setting, or what the file `pseudonym.key` in the home holds, which is made at first use.

    Raises:
        UsageError: the key is too short, others than its owner may read or change the file, or it cannot be read or
            made.
    """
    if settings.pseudonym_key is not None:
        return _check(settings.pseudonym_key, "SCANOMALY_PSEUDONYM_KEY")
    file = settings.home / KEY_FILE
    try:
        return _check(load_secret(file), str(file))
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read or made ({error.strerror}): set SCANOMALY_PSEUDONYM_KEY instead"
        ) from None


def path_key(settings: Settings) -> str:
    """With what a job's paths are hidden: another secret than the names' own, for it is kept with the job.

    Raises:
        UsageError: the key cannot be loaded.
    """
    return hmac.digest(load_key(settings), b"paths", "sha256").hex()


def _check(text: str, where: str) -> bytes:
    """The text of the file makes the same key as the same text in the setting."""
    key = text.strip()
    if len(key) < _LEAST_CHARACTERS:
        raise UsageError(
            f"{where} must hold a key of at least {_LEAST_CHARACTERS} characters: openssl rand -hex 32"
        )
    return key.encode("utf-8", "surrogateescape")
