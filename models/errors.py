"""The error tree.

A class's docstring is its default message; `exit_code` is what a command that ends with it returns. A message
is one line that says what is wrong and what to do about it: `producer/cli.py` is the only place that prints it.
"""

import inspect


class ScanomalyError(Exception):
    """Something went wrong."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class UsageError(ScanomalyError):
    """The command line or the settings cannot be right."""

    exit_code = 2


class SourceError(ScanomalyError):
    """The source holds no scans."""


class DatasetError(ScanomalyError):
    """The data set cannot be fetched."""


class KaggleUnreachableError(DatasetError):
    """Kaggle cannot be reached, and the data set is not in kagglehub's cache."""


class JobNotFoundError(ScanomalyError):
    """There is no such job: `scanomaly jobs` lists them."""


class JobStateError(ScanomalyError):
    """The job's state does not allow that."""


class AlreadySubmittedError(JobStateError):
    """This was submitted before, and its job is there."""


class KeyReusedError(JobStateError):
    """The idempotency key was used for another submission: take a new key for a new job."""


class EncoderError(ScanomalyError):
    """The encoder cannot be loaded."""


class HubUnreachableError(EncoderError):
    """The model hub cannot be reached, and the weights are not in its local cache."""


class ReportError(ScanomalyError):
    """The report cannot be written."""


class CannotWorkError(ScanomalyError):
    """The worker cannot work here."""


class WorkerKilledError(ScanomalyError):
    """The worker was killed. The exit code is a shell's: 128 and the signal's number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class JobFailedError(ScanomalyError):
    """The job failed."""

    exit_code = 4


class JobCancelledError(ScanomalyError):
    """The job was cancelled."""

    exit_code = 5


class WaitTimeoutError(ScanomalyError):
    """The job has not ended in time; it goes on."""


class StoppedError(ScanomalyError):
    """Stopped."""

    exit_code = 130


class BrokerUnreachableError(ScanomalyError):
    """The broker cannot be reached: check SCANOMALY_BROKER_URL, or unset it to use the embedded one."""

    exit_code = 69


class BrokerRightsError(BrokerUnreachableError):
    """The broker does not let its user do what workers do."""


class ServiceUnreachableError(ScanomalyError):
    """The service cannot be reached: check its URL, and that `scanomaly serve` runs there."""

    exit_code = 69


class NotAllowedError(ScanomalyError):
    """The service does not allow that: check SCANOMALY_API_TOKEN."""


class StoreUnreachableError(ScanomalyError):
    """The store cannot be reached: check SCANOMALY_STORE_URL, or unset it to use SQLite."""

    exit_code = 69


class StoreRefusedError(ScanomalyError):
    """The store does not take that: a right is missing, or its encoding has no such character."""


class SchemaError(ScanomalyError):
    """The store was made by another version of Scanomaly."""

    exit_code = 69
