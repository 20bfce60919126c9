"""The service keeps to its own OpenAPI document, whatever Schemathesis makes of that."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

from ..acceptance.conftest import check_schema
from ..waiting import HANGS
from .conftest import DONE, Service, check_problem, serving

SCHEMATHESIS = str(Path(sys.executable).parent / "st")
_STATUS_SCHEMA = Path(__file__).parents[2] / "producer" / "status.schema.json"

# Only a schema that knows the machine's folders and the job's scorers could tell what is refused there.
_ASKS_FOR_MORE = '["2xx", "3xx", 401, 403, 404, 409, 422, 429]'
CONFIG = """
continue-on-failure = true
max-stream-events = 1  # of a job that goes on there is no last one
request-timeout = 300.0

[generation]
deterministic = true
max-examples = 60

[dictionaries.jobs]
values = {jobs}
[dictionaries.files]
values = ["report.html", "report.json", "scores.csv", "roc.png"]
[dictionaries.scorers]
values = ["centroid", "knn", "mahalanobis"]
[parameters]
"path.job" = {{ dictionary = "jobs", probability = 0.8 }}
"path.name" = {{ dictionary = "files", probability = 0.5 }}
"body.scorers[*]" = {{ dictionary = "scorers", probability = 0.7 }}
"body.headline" = {{ dictionary = "scorers", probability = 0.7 }}

[[operations]]
include-path = "/readyz"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
[[operations]]
include-name = ["POST /api/v1/jobs", "GET /api/v1/jobs/{{job}}/scans", "POST /api/v1/jobs/{{job}}/score"]
checks.positive_data_acceptance.expected-statuses = {asks_for_more}
"""


@pytest.fixture(scope="module")
def changed(new_home: Callable[[], Path], root: Path) -> Iterator[Service]:
    """One whose jobs may be cancelled and scored again. Most submissions are too many for it."""
    with serving(new_home(), root, SCANOMALY_API_SUBMITS_PER_MINUTE="10") as running:
        yield running


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return service.ask("GET", "/openapi.json", 200).json()


def test_schemathesis_finds_nothing(changed: Service, root: Path, tmp_path: Path) -> None:
    before = changed.jobs()
    # Its examples are of no machine: here they get what there is.
    text = changed.ask("GET", "/openapi.json", 200).text
    assert "/data/scans" in text
    assert "3f0c9a52d1" in text
    examples = text.replace("/data/scans", str(root / "scans")).replace("3f0c9a52d1", DONE)
    (tmp_path / "openapi.json").write_text(examples)
    config = CONFIG.format(jobs=json.dumps([*before, DONE[:4]]), asks_for_more=_ASKS_FOR_MORE)
    (tmp_path / "schemathesis.toml").write_text(config)
    command = [SCHEMATHESIS, "run", "openapi.json", "--url", changed.url, "--checks", "all", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "16 selected / 16 total" in done.stdout
    assert len(changed.jobs()) > len(before), "no submission that could be right was among them"


def test_a_status_is_what_the_command_line_prints(service: Service) -> None:
    for job in service.jobs():
        status = service.ask("GET", f"/api/v1/jobs/{job}", 200).json()
        check_schema(status, "status")
        assert status == service.user.json("status", job)


def test_the_status_schema_is_a_component(document: Any) -> None:
    schema = json.loads(_STATUS_SCHEMA.read_text())
    del schema["$schema"]
    assert document["components"]["schemas"]["JobStatus"] == schema


def test_every_operation_tells_of_its_problems(document: Any) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == 16
    for operation in operations:
        assert operation["summary"]
        assert {"401", "421", "422", "503"} <= operation["responses"].keys()
        for status, response in operation["responses"].items():
            if status.startswith("4"):
                assert list(response["content"]) == ["application/problem+json"], operation["operationId"]


@pytest.mark.parametrize(
    ("method", "path", "code", "kind"),
    [
        ("GET", "/api/v1/jobs/none", 404, "job-not-found"),
        ("GET", "/api/v1/jobs?after=none", 404, "job-not-found"),
        ("GET", "/api/v1/jobs?limit=0", 422, None),
        ("GET", f"/api/v1/jobs/{DONE}/scans?scorer=knn", 422, "usage"),
        ("GET", f"/api/v1/jobs/{DONE}/scans?after=x", 422, "usage"),
        ("GET", f"/api/v1/jobs/{DONE}/report/none.txt", 404, None),
        ("GET", "/api/v1/none", 404, None),
        ("POST", f"/api/v1/jobs/{DONE}/cancel", 409, "job-state"),
        ("POST", f"/api/v1/jobs/{DONE}/score", 422, None),
        ("DELETE", f"/api/v1/jobs/{DONE}", 405, None),
    ],
)
def test_a_problem_is_as_rfc_9457_has_it(
    service: Service, document: Any, method: str, path: str, code: int, kind: str | None
) -> None:
    answer = service.ask(method, path, code)
    check_problem(answer)
    problem = answer.json()
    assert problem["type"] == (f"urn:scanomaly:{kind}" if kind else "about:blank")
    schema = document["components"]["schemas"]["ProblemDocument"]
    jsonschema.validate(problem, schema | {"components": document["components"]})


@pytest.mark.parametrize("path", ["/api/v1/jobs", f"/api/v1/jobs/{DONE}", f"/api/v1/jobs/{DONE}/score"])
def test_a_method_that_is_not_there_names_those_that_are(service: Service, document: Any, path: str) -> None:
    allowed = service.ask("PUT", path, 405).headers["Allow"].split(", ")
    assert [method.lower() for method in allowed] == list(document["paths"][path.replace(DONE, "{job}")])


def test_the_events_of_a_done_job_end(service: Service) -> None:
    answer = service.ask("GET", f"/api/v1/jobs/{DONE}/events", 200)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    status, end, rest = answer.text.split("\n\n")
    fields = dict(line.split(": ", 1) for line in status.splitlines())
    assert (fields["event"], end.splitlines()[0], rest) == ("status", "event: end", "")
    assert json.loads(fields["data"]) == service.ask("GET", f"/api/v1/jobs/{DONE}", 200).json()


def test_the_events_of_a_waiting_job_go_on(service: Service) -> None:
    waiting = next(job for job in service.jobs() if job != DONE)
    with requests.get(f"{service.url}/api/v1/jobs/{waiting}/events", stream=True, timeout=(HANGS, 5)) as answer:
        lines = answer.iter_lines()
        assert next(lines) == b"event: status"
        with pytest.raises(requests.ConnectionError, match="timed out"):
            list(lines)


@pytest.mark.parametrize("ranges", ["bytes=9999999-", "bytes=-0"])
def test_a_range_that_is_not_there_is_a_problem(service: Service, ranges: str) -> None:
    answer = service.ask("GET", f"/api/v1/jobs/{DONE}/report/scores.csv", 416, headers={"Range": ranges})
    assert answer.headers["Content-Range"].startswith("bytes */")


@pytest.mark.parametrize(
    "ranges", ["potato", "lines=1-2", "bytes=", "bytes=5-2", "bytes=a-b", "bytes=0-1" + ",0-1" * 200]
)
def test_a_range_that_makes_no_sense_is_none(service: Service, ranges: str) -> None:
    path = f"/api/v1/jobs/{DONE}/report/scores.csv"
    whole = service.ask("GET", path, 200).content
    assert service.ask("GET", path, 200, headers={"Range": ranges}).content == whole
    assert service.ask("GET", path, 206, headers={"Range": "bytes=1-3"}).content == whole[1:4]
