"""Jobs, through the HTTP service."""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import quote

import requests

from ..models import errors
from ..models.errors import NotAllowedError, ReportError, ScanomalyError, ServiceUnreachableError, UsageError
from ..models.records import JobFilter, ListedScan, ScanFilter, Worker
from ..models.reports import REPORT_FILES, check_replaceable
from .documents import scan_from_json, worker_from_json
from .jobs import JobPage, ScanPage
from .status import JobStatus
from .submit import JobOptions, source_folder

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
_SUBMIT_SECONDS = 3600.0
"""A submission is answered when its source was looked through."""
_MOST_KEPT = 1000
_URL_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)

PROBLEM_PREFIX = "urn:scanomaly:"


def problem_type(kind: type[ScanomalyError]) -> str:
    """The URI by which the HTTP service names a kind of error."""
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)
    return PROBLEM_PREFIX + words.strip("-").removesuffix("-error")


def error_kind(uri: str) -> type[ScanomalyError]:
    """The kind of error that a URI of `problem_type` names."""
    return _KINDS.get(uri, ScanomalyError)


def is_service_url(text: str) -> bool:
    """Whether a text names a service, if only by its machine and port: `127.0.0.1:8321`."""
    return re.match(r"https?://|([\w.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}(/|$)", text, re.IGNORECASE) is not None


class RemoteJobs:
    """Jobs, through the HTTP service. Every method raises ServiceUnreachableError when it cannot be reached.

    A problem that the service tells of is raised as the error that it was there.
    """

    poll_seconds = 2.0

    def __init__(self, url: str, token: str | None = None) -> None:
        """Args:
        url: where `scanomaly serve` is.
        token: what it asks for, beyond its own machine.
        """
        if is_service_url(url) and "://" not in url:
            url = f"http://{url}"
        self._url = url.rstrip("/") + "/api/v1"
        self._name = url
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json"
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._seen: dict[str, tuple[str, Any]] = {}

    def close(self) -> None:
        self._session.close()

    def submit(self, source: str, key: str | None = None, **options: Unpack[JobOptions]) -> JobStatus:
        """Queue a job. Returns when the first part of it is stored.

        Args:
            source: a folder of the service's machine, below one of its roots. What is not absolute begins here.
            key: an idempotency key: sent again with the same, a submission makes no second job.
            options: see `JobOptions`.
        """
        paths = {
            name: os.path.abspath(str(options[name])) for name in ("labels_file", "weights") if options.get(name)
        }
        lists = {name: list(options[name]) for name in ("normal", "anomaly", "scorers") if name in options}
        body = {name: value for name, value in options.items() if value is not None} | paths | lists
        body["source"] = str(source_folder(source).absolute())
        headers = {"Idempotency-Key": key} if key else {}
        return self._status(self._ask("POST", "/jobs", json=body, headers=headers, timeout=_SUBMIT_SECONDS))

    def status(self, job: str) -> JobStatus:
        """How far a job is. What did not change since the last call is not sent again."""
        path = f"/jobs/{quote(job, safe='')}"
        tag, before = self._seen.get(path, (None, None))
        answer = self._send("GET", path, headers={"If-None-Match": tag} if tag else {})
        if answer.status_code == requests.codes.not_modified:
            return self._status(before)
        document = self._read(answer)
        if "ETag" in answer.headers:
            if len(self._seen) >= _MOST_KEPT:
                self._seen.clear()
            self._seen[path] = (answer.headers["ETag"], document)
        return self._status(document)

    def jobs(self, wanted: JobFilter, limit: int, after: str | None = None) -> JobPage:
        """Jobs, newest first."""
        query = {"state": [state.value for state in wanted.states], "source": wanted.source, "limit": limit}
        page = self._ask("GET", "/jobs", params=query | {"after": after})
        return JobPage([self._status(document) for document in page["jobs"]], page["after"])

    def cancel(self, job: str) -> JobStatus:
        return self._steer(job, "cancel")

    def pause(self, job: str) -> JobStatus:
        return self._steer(job, "pause")

    def resume(self, job: str) -> JobStatus:
        return self._steer(job, "resume")

    def retry(self, job: str) -> JobStatus:
        return self._steer(job, "retry")

    def score(self, job: str, scorers: Sequence[str], headline: str | None = None) -> JobStatus:
        """Have the workers score a done job with more scorers, and write its report again."""
        return self._steer(job, "score", {"scorers": list(scorers) or [headline], "headline": headline})

    def scans(
        self,
        job: str,
        wanted: ScanFilter,
        limit: int,
        after: str | None = None,
        scorer: str | None = None,
    ) -> ScanPage:
        """A page of a job's scans."""
        query = {
            "state": wanted.state,
            "label": "none" if wanted.unlabelled else wanted.label,
            "failure": wanted.failure,
            "min_score": wanted.least_score,
            "max_score": wanted.greatest_score,
            "order": "score" if wanted.by_score else "submission",
            "scorer": scorer,
            "limit": limit,
            "after": after,
        }
        page = self._ask("GET", f"/jobs/{quote(job, safe='')}/scans", params=query)
        return ScanPage([self._scan(document) for document in page["scans"]], page["after"])

    def fetch_report(self, job: str, folder: Path) -> None:
        """Copy the files of a job's report into a folder, in the place of a report that is there.

        Raises:
            ReportError: the service has no report of the job on its machine, or the folder holds something else, or
                cannot be written.
            JobNotFoundError: there is no such job.
        """
        path = f"/jobs/{quote(job, safe='')}/report"
        there = [file["name"] for file in self._ask("GET", path)["files"]]
        names = [name for name in REPORT_FILES if name in there]
        try:
            check_replaceable(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".scanomaly-") as scratch:
                for name in names:  # all of them, before the first takes its place
                    self._download(f"{path}/{name}", Path(scratch, name))
                for name in REPORT_FILES:
                    if name in names:
                        Path(scratch, name).replace(folder / name)
                    else:
                        (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise ReportError(
                f"{folder} cannot be written ({error.strerror or error}): name another folder with --out"
            ) from error

    def _download(self, path: str, file: Path) -> None:
        with self._send("GET", path, stream=True) as answer, open(file, "wb") as kept:
            if not answer.ok:
                self._read(answer)
            try:
                for part in answer.iter_content(1 << 20):
                    kept.write(part)
            except requests.RequestException as error:
                raise self._unreachable(error) from error

    def workers(self) -> list[Worker]:
        """The workers of the last week."""
        return [worker_from_json(document) for document in self._ask("GET", "/workers")["workers"]]

    def _steer(self, job: str, what: str, body: Mapping[str, Any] | None = None) -> JobStatus:
        return self._status(self._ask("POST", f"/jobs/{quote(job, safe='')}/{what}", json=body))

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return self._read(self._send(method, path, **options))

    def _send(self, method: str, path: str, timeout: float = _ANSWER_SECONDS, **options: Any) -> requests.Response:
        try:
            # Not to where it is sent on: the token is for this service.
            return self._session.request(
                method, self._url + path, timeout=(_CONNECT_SECONDS, timeout), allow_redirects=False, **options
            )
        except (*_URL_ERRORS, UnicodeError):
            raise UsageError(f"{self._name!r} is not the URL of a service such as http://127.0.0.1:8321") from None
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: requests.RequestException) -> ServiceUnreachableError:
        return ServiceUnreachableError(
            f"the service {self._name} cannot be reached ({_reason(error)}): check its URL, and that "
            "`scanomaly serve` runs there"
        )

    def _read(self, answer: requests.Response) -> Any:
        try:
            document = answer.json()
        except requests.JSONDecodeError:
            document = None
        if answer.ok and document is not None:
            return document
        raise self._error(answer, document)

    def _error(self, answer: requests.Response, document: Any) -> ScanomalyError:
        problem = document if isinstance(document, dict) else {}
        detail = problem.get("detail") or f"the service {self._name} answers {answer.status_code} {answer.reason}"
        if answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
            return NotAllowedError(detail)
        if answer.status_code in (429, 502, 503, 504) and problem.get("type", "about:blank") == "about:blank":
            return ServiceUnreachableError(detail)
        return error_kind(problem.get("type", ""))(detail)

    def _status(self, document: Any) -> JobStatus:
        try:
            return JobStatus.from_json(document)
        except (KeyError, ValueError, TypeError):
            raise self._not_ours(document) from None

    def _scan(self, document: Any) -> ListedScan:
        try:
            return scan_from_json(document)
        except (KeyError, ValueError, TypeError):
            raise self._not_ours(document) from None

    def _not_ours(self, document: Any) -> ScanomalyError:
        return ScanomalyError(
            f"the service {self._name} answers in another way than this version knows: {json.dumps(document)[:80]}"
        )


_KINDS = {
    problem_type(kind): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ScanomalyError)
}


def _reason(error: requests.RequestException) -> str:
    """The innermost cause: urllib3 and requests wrap it several times."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return (getattr(cause, "strerror", None) or str(cause) or type(error).__name__).splitlines()[0]
