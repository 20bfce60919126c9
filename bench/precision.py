"""What a lower precision changes: scores and AUROC of labelled images, against fp32."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from .table import Row
from .world import scanomaly


def changes(
    images: Path, encoder: str, options: Sequence[str], precisions: Sequence[str], device: str
) -> Iterator[Row]:
    """A job for each precision, of a folder whose sub-folders give the labels. `options` go with the encoder."""
    with scanomaly(SCANOMALY_DEVICE=device) as here, here.workers():

        def scores(precision: str) -> tuple[dict[str, float], float]:
            job = here.job(images, "--encoder", encoder, *options, "--precision", precision).id
            with open(Path(here.call("report", job).strip()) / "scores.csv", newline="") as file:
                found = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
            return found, here.status(job)["result"]["auroc"]

        exact, exact_auroc = scores("fp32")
        for precision in precisions:
            found, auroc = scores(precision)
            change = max(abs(found[path] - exact[path]) for path in exact)
            width = max(exact.values()) - min(exact.values())
            what = f"{precision}, {encoder}"
            yield Row(f"largest change of a score, {what}", "the range of the scores in fp32", "", change, width)
            yield Row(f"AUROC, {what}", "AUROC in fp32", "", auroc, exact_auroc)
