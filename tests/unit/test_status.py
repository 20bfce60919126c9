"""A job's status: what the store knows, as JSON and back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from scanomaly.models.durations import ago, duration
from scanomaly.models.encoders import parse_encoder
from scanomaly.models.records import Job, Progress
from scanomaly.models.states import JobState, Priority
from scanomaly.producer.cli.texts import end_fields, job_row, next_steps, status_fields
from scanomaly.producer.status import JobStatus

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
    stage=None,
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
    assert "no worker is running" in status_fields(stalled)[0].text
    assert "stalled" in job_row(stalled)
    paused = JobStatus.of(replace(JOB, state=JobState.PAUSED), PROGRESS, workers=0)
    assert not paused.stalled
    assert "scanomaly resume abcdef" in status_fields(paused)[0].text


NONE_DONE = Progress(10, 1, 0, 0, 0, 0, 0, BEGUN, None)


@pytest.mark.parametrize(
    ("changes", "progress", "workers", "stage"),
    [
        ({}, replace(NONE_DONE, started_at=None, running=0), 0, "waiting for a worker"),
        ({}, replace(NONE_DONE, started_at=None, running=0), 1, "waiting for a worker"),
        ({"stage": "loading encoder"}, NONE_DONE, 1, "loading encoder"),
        ({}, NONE_DONE, 1, "embedding"),
        ({"stage": "loading encoder"}, PROGRESS, 2, "embedding"),  # a second worker begins; scans are embedded
        ({"state": JobState.SCORING, "stage": "scoring knn 2 of 3"}, PROGRESS, 1, "scoring knn 2 of 3"),
        ({"state": JobState.SCORING}, PROGRESS, 1, "scoring"),
        ({"state": JobState.SCORING, "stage": "scoring knn 2 of 3"}, PROGRESS, 0, "waiting for a worker"),
        ({"state": JobState.PAUSED, "stage": "loading encoder"}, PROGRESS, 1, None),
        ({"state": JobState.DONE, "stage": "writing report"}, PROGRESS, 1, None),
    ],
)
def test_stages_are_named(changes: dict[str, Any], progress: Progress, workers: int, stage: str | None) -> None:
    assert JobStatus.of(replace(JOB, **changes), progress, workers).stage == stage


def test_an_older_services_status_has_no_stage() -> None:
    document = JobStatus.of(JOB, PROGRESS, 1).to_json()
    del document["stage"]
    assert JobStatus.from_json(document).stage is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than 1 s"),
        (4.26, "4.3 s"),
        (9.99, "10 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (4800, "1 h 20 min"),
        (36000, "10 h"),
        (90000, "1 d 1 h"),
        (30 * 86400, "30 d"),
    ],
)
def test_durations_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_moment_is_told_in_one_unit() -> None:
    assert ago(BEGUN, BEGUN + timedelta(hours=2, minutes=50)) == "2 h ago"
    assert ago(BEGUN, BEGUN) == "now"


RESULT = {
    "auroc": 0.789,
    "auroc_in_sample": 0.8,
    "average_precision": 0.9,
    "scorers": {"centroid": {"auroc": 0.789}, "knn": {"auroc": 0.91}},
    "warnings": ["Image brightness alone separates the classes"],
    "most_anomalous": [{"path": "a.png", "score": 0.5}],
}
DONE = replace(
    JOB, state=JobState.DONE, result=RESULT, finished_at=BEGUN + timedelta(hours=10), notes={"source": "the sample"}
)


def test_a_done_jobs_status_has_its_result_and_its_unlabelled_scans() -> None:
    fields = status_fields(JobStatus.of(DONE, PROGRESS, 0))
    lines = {field.name: field.text for field in fields if field.name}
    assert lines["Scans"].startswith("100: 60 normal, 30 anomaly, 10 unlabelled; 3 other files")
    assert lines["AUROC"].startswith("0.789 ")
    assert lines["Took"] == "10 h"
    assert lines["Best scorer"].startswith("knn: AUROC 0.910")
    assert lines["Most anomalous"] == "a.png (0.500)"
    assert fields[-1].text == "Note: Image brightness alone separates the classes"


def test_warnings_come_last_and_notes_once() -> None:
    status = JobStatus.of(DONE, PROGRESS, 0)
    texts = [field.text for field in end_fields(status)]
    assert texts[-2:] == ["Note: the sample", "Note: Image brightness alone separates the classes"]
    assert not any("the sample" in field.text for field in end_fields(status, told=True))
    assert next_steps(status) == (
        "`scanomaly report abcdef --open` shows the report; `scanomaly retry abcdef` takes up the 2 scans that "
        "failed; `scanomaly score abcdef --headline knn` ranks by it"
    )


def test_a_list_has_auroc_scorer_encoder_and_duration() -> None:
    row = job_row(JobStatus.of(DONE, PROGRESS, 0))
    assert row[:6] == ["abcdef", "done", "40/100", "0.789", "centroid +1", "tf_efficientnet_lite0"]
    assert row[7:] == ["10 h", "./scans"]
    assert job_row(JobStatus.of(JOB, PROGRESS, 1))[7] == ""
