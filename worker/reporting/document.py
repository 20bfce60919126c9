"""The numbers of a report for programs: the content of report.json, and what the store keeps of it."""

from collections.abc import Sequence
from dataclasses import asdict, astuple
from datetime import UTC
from typing import TYPE_CHECKING, Any

from .evaluation import Difference, Estimate, Evaluation
from .groups import GroupScores
from .ranking import GROUPS

if TYPE_CHECKING:  # for their types only: report.py is the one that calls this module
    from .report import Findings, ReportData

SCHEMA_VERSION = 1


def document(data: "ReportData", findings: "Findings", files: Sequence[str]) -> dict[str, Any]:
    """The content of report.json, as docs/report.schema.json describes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "job": {
            "id": data.job_id,
            "source": data.source,
            "root": data.root,
            "created_at": data.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        },
        "encoder_key": data.encoder_key,
        "source_note": data.source_note,
        "encoder_note": data.encoder_note,
        "scorer": data.scorers[0],
        "labels_note": data.labels_note,
        "groups_note": data.groups_note,
        "counts": asdict(data.counts),
        **metrics(findings.evaluation),
        "decision": decision(findings),
        "scorers": comparison(findings),
        "shortcuts": trivial(findings),
        "duplicates": findings.duplicates.counts(),
        "groups": grouped(findings.groups),
        "volumes": grouped(findings.volumes),
        "failures": dict(findings.failure_kinds),
        "timings": asdict(data.timings),
        "versions": dict(data.versions),
        "warnings": list(findings.warnings),
        "files": list(files),
    }


def metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics as report.json and the store have them: numbers, and beside them their 95 % intervals."""
    estimates = {
        "auroc": evaluation.auroc,
        "auroc_copies_out": evaluation.auroc_copies_out,
        "average_precision": evaluation.average_precision,
        "sensitivity_at_95_specificity": evaluation.sensitivity,
        "specificity_at_95_sensitivity": evaluation.specificity,
    }
    return {
        **{name: None if estimate is None else estimate.value for name, estimate in estimates.items()},
        "auroc_in_sample": evaluation.auroc_in_sample,
        "prevalence": evaluation.prevalence,
        "intervals": {name: _bounds(estimate) for name, estimate in estimates.items()},
    }


def comparison(findings: "Findings") -> dict[str, Any]:
    """What each scorer is worth, by its name, with the difference to the one that ranks."""
    return {
        result.name: metrics(result.evaluation)
        | {"difference": None if result.difference is None else _difference(result.difference)}
        for result in findings.comparison
    }


def trivial(findings: "Findings") -> list[dict[str, Any]]:
    """What single traits of the files and pictures tell, the best first."""
    return [
        {
            "trait": shortcut.trait,
            "auroc": shortcut.auroc.value,
            "interval": _bounds(shortcut.auroc),
            "anomalies_are": "higher" if shortcut.higher else "lower",
        }
        for shortcut in findings.shortcuts
    ]


def grouped(groups: GroupScores | None) -> dict[str, Any] | None:
    """The metrics of groups, or volumes, by how their scans' scores are pooled; None where there are none."""
    if groups is None:
        return None
    pooled = {name: metrics(evaluation) for name, evaluation in groups.evaluations.items()}
    return {"count": len(groups.numbers)} | pooled


def _difference(difference: Difference) -> dict[str, Any]:
    interval = difference.interval
    return {
        "auroc": difference.auroc,
        "interval": None if interval is None else list(astuple(interval)),
        "p_value": difference.p_value,
    }


def _bounds(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None or estimate.interval is None else list(astuple(estimate.interval))


def decision(findings: "Findings") -> dict[str, Any] | None:
    """How scans are called anomalies, and how many are; None where no normal has a leave-one-out score."""
    decisions, ranking = findings.decisions, findings.ranking
    if not decisions.normals:
        return None
    threshold, interval = decisions.threshold, decisions.threshold_interval
    return {
        "false_alarm_rate": decisions.false_alarm_rate,
        "smallest_p_value": decisions.smallest_p,
        "threshold": threshold,
        "threshold_interval": None if interval is None else list(interval),
        "discoveries": decisions.discoveries,
        "called_anomalies": {
            group: 0 if threshold is None else ranking.count_above(group, threshold) for group in GROUPS
        },
    }
