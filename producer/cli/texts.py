"""Jobs and workers in words for a person: lines, rows of tables, and what to type next."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...models.durations import ago, duration
from ...models.records import Worker
from ...models.states import JobState
from ..documents import worker_state
from ..status import JobStatus, ScanCounts, speed_text
from .terminal import Field

JOB_HEADERS = ("JOB", "STATE", "SCANS", "AUROC", "SCORER", "ENCODER", "CREATED", "TOOK", "SOURCE")
JOB_NUMBERS = ("SCANS", "AUROC", "TOOK")
JOB_SPARED = ("ENCODER", "CREATED", "TOOK", "SCORER")
WORKER_HEADERS = ("WORKER", "STATE", "DEVICE", "VERSION", "UP", "DOES")
WORKER_SPARED = ("VERSION", "UP")

_STATE_STYLES = {
    JobState.DONE: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "red",
    JobState.PAUSED: "yellow",
}


def status_fields(status: JobStatus) -> list[Field]:
    """How far a job is, and what a done one found."""
    return [*_progress_fields(status), *_result_fields(status), *_note_fields(status)]


def end_fields(status: JobStatus, told: bool = False) -> list[Field]:
    """What a done job found.

    Args:
        status: of a done job.
        told: its notes have been said already.
    """
    scans = status.scans
    failed = f", {scans.failed} failed (failures.csv says why)" if scans.failed else ""
    return [
        Field("Scans", f"{_labels(scans)}: {scans.embedded} embedded{failed}{_skipped(scans)}"),
        Field("Encoder", status.encoder_key),
        *_result_fields(status),
        *_note_fields(status, told),
    ]


def _progress_fields(status: JobStatus) -> Iterator[Field]:
    scans = status.scans
    reason = status.standstill or (f"{status.stage}" if status.stage not in (None, str(status.state)) else None)
    yield Field("Job", f"{status.job}  {status.state}{f': {reason}' if reason else ''}", None, _state_style(status))
    yield Field("Source", status.source)
    yield Field("Encoder", status.encoder_key)
    yield Field("Scans", f"{status.total}: {_labels(scans)}; {status.ignored} other files ignored")
    done = f"{scans.embedded} embedded, {scans.failed} failed{_skipped(scans)}, {scans.remaining} to go"
    yield Field("Progress", done + speed_text(status.images_per_second, status.eta_seconds, "; "))
    took = job_seconds(status)
    if took is not None:
        yield Field("Took", duration(took))
    if status.error:
        yield Field("Error", status.error, None, "red")


def _result_fields(status: JobStatus) -> Iterator[Field]:
    result = status.result
    if result is not None and status.state == JobState.DONE:
        yield Field("AUROC", _auroc(result))
        yield from _other_scorers(status, result)
        yield from _called(result.get("decision"))
        top = ", ".join(f"{scan['path']} ({scan['score']:.3f})" for scan in result.get("most_anomalous", []))
        yield Field("Most anomalous", top)
    if status.report:
        page = Path(status.report) / "report.html"
        yield Field("Report", str(page), page if page.is_file() else None)


def _note_fields(status: JobStatus, told: bool = False) -> Iterator[Field]:
    """What else a person should know, the warnings of the report last."""
    if not told:
        yield from (Field("", f"Note: {status.notes[key]}") for key in ("source", "encoder") if key in status.notes)
    for warning in (status.result or {}).get("warnings", []):
        yield Field("", f"Note: {warning}", None, "yellow")


def _labels(scans: ScanCounts) -> str:
    return _by_label({"normal": scans.normal, "anomaly": scans.anomaly, "unlabelled": scans.unlabelled}) or "none"


def _by_label(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {label}" for label, count in counts.items() if count)


def _skipped(scans: ScanCounts) -> str:
    return f", {scans.skipped} empty slices skipped" if scans.skipped else ""


def _auroc(result: Mapping[str, Any]) -> str:
    if result.get("auroc") is None:
        return "none: it takes scans of both labels, and normal scans of different content"
    interval = result.get("intervals", {}).get("auroc")  # a report of an older version has none
    sure = f" (95% interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    looser = result.get("auroc_copies_out") or result["auroc"]
    near = f"{looser:.3f} with only identical files left out, " if abs(looser - result["auroc"]) >= 0.0005 else ""
    return (
        f"{result['auroc']:.3f}{sure} leave-one-out, {near}{result['auroc_in_sample']:.3f} in-sample; "
        f"average precision {result['average_precision']:.3f}"
    )


def _other_scorers(status: JobStatus, result: Mapping[str, Any]) -> Iterator[Field]:
    aurocs = {name: result.get("scorers", {}).get(name, {}).get("auroc") for name in status.scorers[1:]}
    if not aurocs:
        return
    texts = [
        f"{name} {'not measured' if auroc is None else format(auroc, '.3f')}" for name, auroc in aurocs.items()
    ]
    yield Field("Other scorers", f"AUROC leave-one-out: {', '.join(texts)}")
    best = max(aurocs, key=lambda name: aurocs[name] or 0.0)
    auroc, headline = aurocs[best], result.get("auroc")
    if auroc is not None and headline is not None and auroc > headline:
        yield Field(
            "Best scorer", f"{best}: AUROC {auroc:.3f}, and {headline:.3f} of {status.scorers[0]}, which ranks"
        )


def _called(decision: Mapping[str, Any] | None) -> list[Field]:
    """What lies above the threshold, where there is one."""
    if decision is None or decision["threshold"] is None:
        return []
    found = _by_label(decision["called_anomalies"]) or "none"
    rate = f"false-alarm rate {decision['false_alarm_rate']:g}"
    return [Field("Threshold", f"{decision['threshold']:.4f} ({rate}): {found} above it")]


def job_row(status: JobStatus) -> list[str]:
    """A job below `JOB_HEADERS`."""
    took, result = job_seconds(status), status.result or {}
    auroc = result.get("auroc")
    return [
        status.job,
        "stalled" if status.stalled else str(status.state),
        f"{status.finished_scans}/{status.total}",
        "" if auroc is None else f"{auroc:.3f}",
        status.scorers[0] + (f" +{len(status.scorers) - 1}" if len(status.scorers) > 1 else ""),
        _encoder_name(status.encoder_key),
        f"{status.created_at.astimezone():%Y-%m-%d %H:%M}",
        "" if took is None else duration(took),
        status.source,
    ]


def _encoder_name(key: str) -> str:
    """The model of an encoder key: `library/model/weights/precision/preprocessing`."""
    parts = key.split("/")
    return parts[1] if len(parts) > 1 else key


def job_seconds(status: JobStatus) -> float | None:
    """From its submission to its end; None for a job that goes on."""
    return None if status.finished_at is None else (status.finished_at - status.created_at).total_seconds()


def _state_style(status: JobStatus) -> str:
    return "yellow" if status.stalled else _STATE_STYLES.get(status.state, "")


def worker_row(worker: Worker) -> list[str]:
    """A worker below `WORKER_HEADERS`."""
    ended = worker.stopped_at or (datetime.now(UTC) if worker.alive else worker.beat_at)
    if worker.alive:
        does = f"works on {worker.running}" if worker.running else "waits"
    else:
        does = f"last heard of {ago(worker.beat_at)}, {worker.beat_at.astimezone():%Y-%m-%d %H:%M:%S}"
        does += f": {worker.stop_reason}" if worker.stop_reason else ""
    up = duration(max((ended - worker.started_at).total_seconds(), 0))
    return [worker.name, worker_state(worker), worker.device, worker.version, up, does]


def next_steps(status: JobStatus) -> str | None:
    """What a person may want to type next."""
    job = status.job
    if status.state == JobState.DONE:
        steps = [f"`scanomaly report {job} --open` shows the report"]
        if status.scans.failed:
            steps.append(f"`scanomaly retry {job}` takes up the {status.scans.failed} scans that failed")
        others = (status.result or {}).get("scorers", {})
        better = max(others, key=lambda name: others[name].get("auroc") or 0.0, default=status.scorers[0])
        if better != status.scorers[0]:
            steps.append(f"`scanomaly score {job} --headline {better}` ranks by it")
        elif len(status.scorers) == 1:
            steps.append(f"`scanomaly score {job} --scorer knn,mahalanobis` compares other scorers")
        return "; ".join(steps)
    if status.state == JobState.FAILED:
        return f"`scanomaly retry {job}` tries again"
    if status.standstill is None and not status.state.ended:
        return f"`scanomaly watch {job}` follows it to its end"
    return None
