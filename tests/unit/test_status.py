"""A job's status: what the store knows, as JSON and back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.records import Job, Progress
from scanomaly.models.states import JobState, Priority
from scanomaly.producer.status import JobStatus, job_line, status_lines

SCHEMA = json.loads((Path(__file__).parents[2] / "producer" / "status.schema.json").read_text(encoding="utf-8"))
BEGUN = datetime(2026, 1, 1, 12, tzinfo=UTC)
JOB = Job(
    id="abcdef",
    state=JobState.EMBEDDING,
    source="./scans",
    root="/scans",
    report_folder="/reports/abcdef",
    encoder=parse_encoder("efficientnet_lite0"),
    priority=Priority.HIGH,
    follow_links=False,
    intensity="auto",
    options=None,
    path_key=None,
    false_alarm_rate=0.05,
    scorers=("centroid", "knn"),
    notes={"labels": "by folder"},
    scans=100,
    normal=60,
    anomaly=30,
    ignored=3,
    whole=True,
    created_at=BEGUN,
    finished_at=None,
    error=None,
    result=None,
)
PROGRESS = Progress(10, 2, 4, 38, 2, 0, 38, BEGUN, BEGUN + timedelta(seconds=20))


def test_the_schemas_own_example_is_one() -> None:
    (example,) = SCHEMA["examples"]
    jsonschema.validate(example, SCHEMA)
    assert JobStatus.from_json(example).to_json() == example


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("whole", [True, False])
def test_a_status_is_what_its_schema_says_and_comes_back_as_it_was(state: JobState, whole: bool) -> None:
    ended = BEGUN + timedelta(minutes=1) if state.ended else None
    error = "for the test" if state == JobState.FAILED else None
    status = JobStatus.of(
        replace(JOB, state=state, whole=whole, finished_at=ended, error=error), PROGRESS, workers=1
    )
    document = json.loads(json.dumps(status.to_json()))
    jsonschema.validate(document, SCHEMA)
    assert JobStatus.from_json(document) == status
    assert JobStatus.from_json(document | {"what a newer version adds": 1}) == status


def test_speed_and_time_left_are_of_the_batches_that_are_done() -> None:
    status = JobStatus.of(JOB, PROGRESS, workers=1)
    assert (status.images_per_second, status.eta_seconds, status.scans.remaining) == (2.0, 30.0, 60)
    assert JobStatus.of(replace(JOB, whole=False), PROGRESS, 1).eta_seconds is None
    assert JobStatus.of(JOB, replace(PROGRESS, last_at=None), 1).images_per_second is None


def test_a_job_that_is_scored_again_has_not_ended() -> None:
    again = replace(JOB, state=JobState.SCORING, finished_at=BEGUN)
    assert JobStatus.of(again, PROGRESS, 1).finished_at is None


def test_it_says_why_nothing_moves() -> None:
    stalled = JobStatus.of(JOB, PROGRESS, workers=0)
    assert stalled.stalled
    assert "no worker is running" in status_lines(stalled)[0]
    assert "stalled" in job_line(stalled)
    paused = JobStatus.of(replace(JOB, state=JobState.PAUSED), PROGRESS, workers=0)
    assert not paused.stalled
    assert "scanomaly resume abcdef" in status_lines(paused)[0]
