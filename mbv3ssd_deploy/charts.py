"""Curves and bars as PNG: for people who would rather look than read.

The one file that knows matplotlib. The same values give the same bytes: no date, no version and no
font of the machine gets into the picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_INCHES = (5.2, 3.6)
_DPI = 120
_COLUMNS = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: `x` and `y` of equal length."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing with axes of its own.

    Attributes:
        title: above it.
        x_label: below it.
        y_label: beside it.
        lines: the curves, drawn in this order.
        y_limits: bottom and top; fitted to the curves where it is left out.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    y_limits: tuple[float, float] | None = None


def render_curves(panels: Sequence[Panel]) -> bytes:
    """Return a PNG of the panels, two beside each other.

    Raises:
        ValueError: no panel.
    """
    if not panels:
        raise ValueError("a chart needs at least one panel")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _new_figure(rows, columns)
    for panel, axis in zip(panels, axes, strict=False):
        _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return _png_of(figure)


def render_bars(
    title: str, unit: str, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]]
) -> bytes:
    """Return a PNG of horizontal bars, stacked where there are several groups.

    Args:
        title: above the chart.
        unit: of the values, below the chart.
        names: one a bar, the first at the top.
        groups: label and one value per name; the groups' bars follow each other in one row.

    Raises:
        ValueError: a group whose values do not match the names, or nothing to draw.
    """
    if not names or not groups or any(len(values) != len(names) for _, values in groups):
        raise ValueError("every group of bars needs one value a name")
    figure, (axis,) = _new_figure(1, 1)
    figure.set_size_inches(8.0, 1.2 + 0.34 * len(names))
    starts = [0.0] * len(names)
    for label, values in groups:
        axis.barh(list(names), list(values), left=list(starts), label=label, height=0.7)
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    axis.invert_yaxis()
    axis.set_title(title)
    axis.set_xlabel(unit)
    if len(groups) > 1:
        axis.legend(fontsize=8)
    return _png_of(figure)


def _new_figure(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 -- 0.3 s to import
    from matplotlib.figure import Figure as NewFigure  # noqa: PLC0415

    width, height = _PANEL_INCHES
    figure = NewFigure(figsize=(width * columns, height * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    for line in panel.lines:
        marker = "o" if len(line.x) == 1 else None
        axis.plot(list(line.x), list(line.y), label=line.label, linewidth=1.3, marker=marker)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.grid(visible=True, alpha=0.3)
    if panel.y_limits is not None:
        axis.set_ylim(*panel.y_limits)
    if len(panel.lines) > 1:
        axis.legend(fontsize=8)


def _png_of(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
