"""The charts of a report: PNG for a folder or a slide, and SVG for the page, in the page's own colours.

Figures are built without pyplot: it keeps them in a global list and picks a backend for the whole process.
"""

import io
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps, rc_context, rcdefaults
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from .evaluation import PrecisionRecall, Roc
from .intervals import GRID, Curve
from .wording import AXES

rcdefaults()  # whatever a `matplotlibrc` in the current folder says

BINS = 30
_NO_SOFTWARE: dict[str, Any] = {"Software": None}
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_SIZE_INCHES = (6.4, 4.8)
_DPI = 150
# A group narrower than this is drawn as one bar: 30 bins cannot divide a range of a few rounding errors.
_NARROWEST_GROUP = 1e-6
_INK, _SOFT, _RULE = "#1f2937", "#888888", "#e5e7eb"
# The colours that the reference notebook's two calls get, and grey for the scans without a label.
_COLOURS = {"normal": "#1f77b4", "anomaly": "#ff7f0e", "unlabelled": "#7f7f7f"}
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _RULE: "--rule"} | {
    _COLOURS["normal"]: "--normal",
    _COLOURS["anomaly"]: "--anomaly",
    _COLOURS["unlabelled"]: "--soft",
}


class Chart(NamedTuple):
    png: bytes
    svg: str
    """An element for a page whose style sheet has the variables of `_VARIABLES`."""


def draw_histogram(
    groups: Mapping[str, ArrayLike], threshold: float | None = None, axis: str = AXES["centroid"]
) -> Chart:
    """The chart of `histogram_figure`. The same scores give the same bytes."""
    return _chart(histogram_figure(groups, threshold, axis), "Histogram of the scores, one group per label")


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
        axes.legend(frameon=False, labelcolor=_INK)
    return figure


def draw_roc(roc: Roc, auroc: float) -> Chart:
    """Draw the ROC curve with its area in the legend, beside the diagonal of a guess, on its 95 % band."""
    figure, axes = _new_chart()
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--", label="guessing (0.500)")
    _draw_band(axes, roc.low, roc.high)
    axes.plot(roc.false_positive_rate, roc.true_positive_rate, color=_INK, linewidth=2, label=f"AUROC {auroc:.3f}")
    _show_shares(axes, "False positive rate (normals flagged)", "True positive rate (anomalies flagged)")
    axes.legend(frameon=False, labelcolor=_INK, loc="lower right", reverse=True)
    return _chart(figure, f"ROC curve with an area of {auroc:.3f}")


def draw_precision_recall(curve: PrecisionRecall, prevalence: float) -> Chart:
    """Draw the precision at each recall, beside the level of a guess, on its 95 % band."""
    figure, axes = _new_chart()
    axes.axhline(prevalence, color=_SOFT, linewidth=1, linestyle="--", label=f"guessing ({prevalence:.3f})")
    _draw_band(axes, curve.low, curve.high)
    axes.plot(GRID, curve.precision, color=_INK, linewidth=2, label="precision")
    _show_shares(axes, "Recall (share of the anomalies flagged)", "Precision (anomalies among the flagged)")
    axes.legend(frameon=False, labelcolor=_INK, loc="lower left", reverse=True)
    return _chart(figure, "Precision at each recall")


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
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(color=_SOFT, labelcolor=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
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


def heat_png(heat: NDArray[np.float64], low: float, high: float) -> bytes:
    """A heat map, (rows, columns), as a PNG of as many pixels; what is at `low` or below is seen through."""
    shares = np.clip((heat - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    colours = colormaps["inferno"](0.25 + 0.75 * shares)
    colours[..., 3] = 0.6 * shares
    buffer = io.BytesIO()
    imsave(buffer, colours, format="png", metadata=_NO_SOFTWARE)
    return buffer.getvalue()


def _chart(figure: Figure, title: str) -> Chart:
    png = io.BytesIO()
    # Without the metadata, matplotlib's version would be in the file.
    figure.savefig(png, format="png", metadata=_NO_SOFTWARE)
    return Chart(png.getvalue(), _svg(figure, title))


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    # Text stays text; and equal ids in two charts are only of equal things.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    named = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([\w-]+)"', lambda match: match[0] if match[1] in named else "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    size = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg {size[0] if size else ""} role="img" aria-label="{title}" class="chart"'
    return opening + re.sub(r"^<svg[^>]*", "", text)
