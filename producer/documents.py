"""Workers and scans as JSON, and back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..models.records import ListedScan, Worker
from ..models.states import FailureKind, Label, ScanState
from .status import iso


def worker_json(worker: Worker) -> dict[str, Any]:
    """A worker as `workers --json` and the HTTP service have it."""
    return {
        "name": worker.name,
        "state": worker_state(worker),
        "host": worker.host,
        "pid": worker.pid,
        "device": worker.device,
        "version": worker.version,
        "encoders": list(worker.encoders),
        "running": worker.running,
        "started_at": worker.started_at.isoformat(),
        "beat_at": worker.beat_at.isoformat(),
        "stopped_at": iso(worker.stopped_at),
        "stop_reason": worker.stop_reason,
    }


def worker_from_json(document: Mapping[str, Any]) -> Worker:
    """Read back what `worker_json` wrote."""
    stopped = document["stopped_at"]
    return Worker(
        name=document["name"],
        host=document["host"],
        pid=document["pid"],
        device=document["device"],
        version=document["version"],
        started_at=datetime.fromisoformat(document["started_at"]),
        beat_at=datetime.fromisoformat(document["beat_at"]),
        stopped_at=None if stopped is None else datetime.fromisoformat(stopped),
        alive=document["state"] == "alive",
        running=document["running"],
        encoders=tuple(document.get("encoders", ())),  # a service of an older version tells none
        stop_reason=document.get("stop_reason"),  # a service of an older version does not tell
    )


def worker_state(worker: Worker) -> str:
    """alive, lost or stopped."""
    if worker.stopped_at is not None:
        return "stopped"
    return "alive" if worker.alive else "lost"


def scan_json(scan: ListedScan) -> dict[str, Any]:
    """A scan as the HTTP service lists it."""
    return {
        "id": scan.id,
        "path": scan.path,
        "label": scan.label,
        "group": scan.group,
        "volume": scan.volume,
        "state": scan.state,
        "failure": None if scan.failure is None else {"kind": scan.failure, "detail": scan.failure_detail},
        "score": scan.score,
        "score_in_sample": scan.score_in_sample,
    }


def scan_from_json(document: Mapping[str, Any]) -> ListedScan:
    """Read back what `scan_json` wrote."""
    label, failure = document["label"], document["failure"]
    return ListedScan(
        id=document["id"],
        path=document["path"],
        label=None if label is None else Label(label),
        group=document["group"],
        volume=document["volume"],
        state=ScanState(document["state"]),
        failure=None if failure is None else FailureKind(failure["kind"]),
        failure_detail=None if failure is None else failure["detail"],
        score=document["score"],
        score_in_sample=document["score_in_sample"],
    )
