"""The charts of a report, as PNG bytes.

Figures are built without pyplot: it keeps them in a global list and picks a backend for the whole process.
"""

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from .evaluation import PrecisionRecall, Roc
from .intervals import GRID, Curve
from .wording import AXES

BINS = 30
_SIZE_INCHES = (6.4, 4.8)
_DPI = 150
# A group narrower than this is drawn as one bar: 30 bins cannot divide a range of a few rounding errors.
_NARROWEST_GROUP = 1e-6
_INK = "#1f2937"
# The colours that the reference notebook's two calls get, and grey for the scans without a label.
_COLOURS = {"normal": "#1f77b4", "anomaly": "#ff7f0e", "unlabelled": "#7f7f7f"}


def draw_histogram(
    groups: Mapping[str, ArrayLike], threshold: float | None = None, axis: str = AXES["centroid"]
) -> bytes:
    """The chart of `histogram_figure` as a PNG. The same scores give the same bytes."""
    return _png(histogram_figure(groups, threshold, axis))


def histogram_figure(
    groups: Mapping[str, ArrayLike], threshold: float | None = None, axis: str = AXES["centroid"]
) -> Figure:
    """Draw the scores of each group: translucent, 30 bins, each group over its own range, one over the other.

    Args:
        groups: "normal", "anomaly" or "unlabelled" → (n,) scores, in drawing order. A group without a finite
            score is left out.
        threshold: drawn as an upright line; None for no line.
        axis: what the scores are.
    """
    figure, axes = _new_chart()
    for name, scores in groups.items():
        finite = _finite(scores)
        if finite.size:
            label = f"{name} ({finite.size:,})"
            axes.hist(finite, bins=BINS, range=_own_range(finite), alpha=0.5, label=label, color=_COLOURS[name])
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1.5, linestyle="--", label=f"threshold {threshold:.4f}")
    axes.set_xlabel(axis)
    axes.set_ylabel("Frequency (scans)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def draw_roc(roc: Roc, auroc: float) -> bytes:
    """Draw the ROC curve with its area in the legend, beside the diagonal of a guess, on its 95 % band; PNG."""
    figure, axes = _new_chart()
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--", label="guessing (0.500)")
    _draw_band(axes, roc.low, roc.high)
    axes.plot(roc.false_positive_rate, roc.true_positive_rate, color=_INK, linewidth=2, label=f"AUROC {auroc:.3f}")
    _show_shares(axes, "False positive rate (normals flagged)", "True positive rate (anomalies flagged)")
    axes.legend(frameon=False, loc="lower right", reverse=True)
    return _png(figure)


def draw_precision_recall(curve: PrecisionRecall, prevalence: float) -> bytes:
    """Draw the precision at each recall, beside the level of a guess, on its 95 % band; PNG."""
    figure, axes = _new_chart()
    axes.axhline(prevalence, color="#888888", linewidth=1, linestyle="--", label=f"guessing ({prevalence:.3f})")
    _draw_band(axes, curve.low, curve.high)
    axes.plot(GRID, curve.precision, color=_INK, linewidth=2, label="precision")
    _show_shares(axes, "Recall (share of the anomalies flagged)", "Precision (anomalies among the flagged)")
    axes.legend(frameon=False, loc="lower left", reverse=True)
    return _png(figure)


def _draw_band(axes: Axes, low: Curve, high: Curve) -> None:
    axes.fill_between(GRID, low, high, color=_INK, alpha=0.15, linewidth=0, label="95% band")


def _show_shares(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _new_chart() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _finite(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    return values[np.isfinite(values)]


def _own_range(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low >= _NARROWEST_GROUP:
        return low, high
    middle = (low + high) / 2
    return middle - 0.005, middle + 0.005


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the metadata, matplotlib's version would be in the file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
