"""What must hold after a job, whatever happened to it."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .world import World

TOLERANCE = 1e-6

Scores = dict[str, tuple[float, float]]
"""By path: the score, and the one in-sample."""


@dataclass
class Verdict:
    """`problems` in words; `lost` scans have no row or no score, `changed` ones another score than undisturbed."""

    lost: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)

    def require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)


def scores_in(report: Path) -> Scores:
    """What a report says. Raises ValueError where it names a scan twice."""
    with open(report / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = {row["path"]: (float(row["score"]), float(row["score_in_sample"])) for row in rows}
    if len(scores) != len(rows):
        raise ValueError(f"{report}: {len(rows)} rows for {len(scores)} scans")
    return scores


def judge(world: World, expected: Scores) -> Verdict:
    """Check a job that is the only one of its world and has ended.

    Args:
        world: where no fault is at work any more.
        expected: the scores of an undisturbed run.
    """
    verdict = Verdict()
    jobs = world.rows("SELECT id, state, scans, report_folder, error FROM jobs")
    if len(jobs) != 1 or jobs[0][1] != "done":
        verdict.lost = len(expected)
        verdict.problems.append(f"the jobs: {jobs}")
        return verdict
    job, _state, total, folder, _error = jobs[0]
    verdict.require(total == len(expected), f"the job has {total} scans, not {len(expected)}")
    _judge_rows(world, expected, verdict)
    _judge_report(Path(folder), expected, verdict)
    _judge_status(world, job, len(expected), verdict)
    return verdict


def judge_queues(world: World, verdict: Verdict) -> None:
    """The workers, which must be running, have nothing left to take."""
    try:
        world.until(lambda: not world.broker.queues(), "the queues are empty")
    except TimeoutError:
        verdict.problems.append(f"messages are left over: {world.broker.contents()}")


def judge_stop(world: World, verdict: Verdict) -> None:
    """The workers stop when they are told to, and leave no process."""
    world.until(world.workers_beat, "all workers are ready")
    codes = world.stop_workers()
    verdict.require(set(codes) <= {0}, f"exit codes of the workers: {codes}")
    try:
        world.until(lambda: not world.processes(), "all processes are gone")
    except TimeoutError:
        verdict.problems.append(f"processes are left over: {world.processes()}")


def _judge_rows(world: World, expected: Scores, verdict: Verdict) -> None:
    scans = world.rows(
        "SELECT path, state, score, score_in_sample, failure_kind FROM scans "
        "LEFT JOIN scores ON scan_id = id AND scorer = 'centroid'"
    )
    verdict.require(len(scans) == len({scan[0] for scan in scans}), "a scan has two rows")
    verdict.require({scan[0] for scan in scans} == expected.keys(), "the scans are not those of the folder")
    unfit = [scan for scan in scans if scan[1] != "embedded" or scan[2] is None or scan[3] is None]
    verdict.lost += len(unfit) + len(expected.keys() - {scan[0] for scan in scans})
    verdict.require(not unfit, f"{len(unfit)} scans have no score, such as {unfit[:3]}")
    fit = {path: (score, plain) for path, state, score, plain, _ in scans if None not in (score, plain)}
    verdict.changed += _changed(fit, expected)
    verdict.require(
        verdict.changed == 0, f"{verdict.changed} scores in the store are not those of an undisturbed run"
    )

    unfinished = world.rows("SELECT id, state FROM batches WHERE state <> 'done'")
    verdict.require(not unfinished, f"batches of a done job: {unfinished}")
    counted = world.rows("SELECT sum(scans), sum(embedded), sum(failed) FROM batches")[0]
    whole = (len(expected), len(expected), 0)
    verdict.require(tuple(map(int, counted)) == whole, f"the batches count {counted}, not {whole}")
    twice = world.rows(
        "SELECT sha256, encoder_key FROM embeddings GROUP BY sha256, encoder_key HAVING count(*) > 1"
    )
    verdict.require(not twice, f"embeddings that are there twice: {twice}")
    stored, needed, missing = (
        world.rows(sql)[0][0]
        for sql in (
            "SELECT count(*) FROM embeddings",
            "SELECT count(DISTINCT sha256) FROM scans",
            "SELECT count(*) FROM scans WHERE sha256 NOT IN (SELECT sha256 FROM embeddings)",
        )
    )
    verdict.require(
        (stored, missing) == (needed, 0), f"{stored} embeddings for {needed} contents, {missing} missing"
    )


def _judge_report(folder: Path, expected: Scores, verdict: Verdict) -> None:
    beside = sorted(entry.name for entry in folder.parent.iterdir())
    verdict.require(beside == [folder.name], f"beside the report: {beside}")
    try:
        document: dict[str, Any] = json.loads((folder / "report.json").read_text())
        counts = document["counts"]
        scores = scores_in(folder)
    except (OSError, ValueError, KeyError) as error:
        verdict.problems.append(f"the report: {type(error).__name__}: {error}")
        return
    verdict.require((counts["embedded"], counts["failed"]) == (len(expected), 0), f"report.json counts {counts}")
    verdict.require(scores.keys() == expected.keys(), f"{len(scores)} rows in scores.csv")
    verdict.require(_changed(scores, expected) == 0, "scores.csv has other scores than an undisturbed run")


def _judge_status(world: World, job: str, total: int, verdict: Verdict) -> None:
    status = world.status(job)
    scans = status.scans
    told = (status.state, scans.total, scans.embedded, scans.failed, scans.remaining)
    verdict.require(told == ("done", total, total, 0, 0), f"status says {told}")


def _changed(scores: Scores, expected: Scores) -> int:
    return sum(
        any(abs(one - other) > TOLERANCE for one, other in zip(scores[path], expected[path], strict=True))
        for path in scores.keys() & expected.keys()
    )
