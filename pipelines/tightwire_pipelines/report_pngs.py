"""A report's main charts as PNG files, drawn with matplotlib: the same charts that the page shows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tightwire.federation.tables import atomic_file
from tightwire_pipelines.report_charts import FRONT, Chart, CurveChart, RowChart, log_ticks
from tightwire_pipelines.report_figures import colour, dash, place_below, row_range, symbol
from tightwire_pipelines.report_sections import Section

_MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "diamond": "D",
    "cross": "P",
    "x": "X",
    "star": "*",
}
_LINES: Mapping[str, Literal["-", "--", ":", "-."]] = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_WIDTH = 6.2
"""Inches of one chart."""
_REGULAR, _BOLD = 0.078, 0.088
"""Inches that a letter of 9 points takes, at most on average."""
MAIN = ("headline", "pareto", "target", "differences", "tiers", "decisions")
"""Sections that are drawn."""


def draw(folder: Path, sections: Sequence[Section], labels: Sequence[str], names: Sequence[str]) -> list[Path]:
    """Draw the main sections, each in its first choice; one file a section and point of the grid.

    Args:
        folder: Where the files go; it must exist.
        sections: The report's sections.
        labels: The points of the grid in words, such as ``spread = 4``; empty where the study has no axes.
        names: All variations, which settles their colours.

    Returns:
        The files: `report-SECTION.png`, or `report-SECTION-POINT.png` where there are several points.

    Raises:
        OSError: A file cannot be written.
    """
    files = []
    for section in sections:
        if section.key not in MAIN:
            continue
        for (panel, choice), charts in section.charts.items():
            several = len({number for number, _ in section.charts}) > 1
            if choice != section.choices[0] or not charts:
                continue
            label = labels[panel] if panel >= 0 else choice
            point = "".join(
                letter if letter.isalnum() or letter == "." else "-" for letter in label.replace(" = ", "-")
            )
            path = folder / (f"report-{section.key}-{point}.png" if several else f"report-{section.key}.png")
            title = f"{section.title}, {label}" if label and several else section.title
            picture = figure(title, charts, names)
            with atomic_file(path) as file:
                picture.savefig(file, format="png", dpi=130)
            files.append(path)
    return files


def figure(title: str, charts: Sequence[Chart], names: Sequence[str]) -> Figure:
    """Charts two by two, with one legend for all."""
    orders = {name: order for order, name in enumerate(names)}
    columns = min(2, len(charts))
    lines = math.ceil(len(charts) / columns)
    rows = max((len(chart.rows) for chart in charts if isinstance(chart, RowChart)), default=0)
    each = max(3.4, 1.1 + 0.5 * rows)
    longest = max(map(len, names), default=0)
    beside = max(1, min(3, int(_WIDTH * columns / (_REGULAR * longest + 0.6))))
    legend = 0.26 * math.ceil(len(names) / beside)
    drawn = Figure(figsize=(_WIDTH * columns, each * lines + 0.6 + legend), layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(lines, columns, squeeze=False).ravel()
    for axes, chart in zip(panels, charts, strict=False):
        axes.set_title(chart.title, loc="left", fontsize=11, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E4E4E4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(chart.x)
        if isinstance(chart, CurveChart):
            _curves(axes, chart, orders)
        else:
            _rows(axes, chart, orders)
    for axes in panels[len(charts) :]:
        axes.set_visible(False)
    drawn.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    shown = {name for chart in charts for name in _named(chart)}
    handles = [
        Line2D([], [], color=colour(order), linestyle=_LINES[dash(order)], marker=_MARKERS[symbol(order)], label=name)
        for name, order in orders.items()
        if name in shown
    ]
    if handles:
        drawn.legend(
            handles=handles, loc="outside lower left", ncols=min(beside, len(handles)), frameon=False, fontsize=9
        )
    return drawn


def _named(chart: Chart) -> list[str]:
    """The variations that a chart shows."""
    if isinstance(chart, CurveChart):
        return [series.name for series in chart.series]
    return [mark.name for row in chart.rows for mark in row.marks]


def _curves(axes: Axes, chart: CurveChart, orders: Mapping[str, int]) -> None:
    for series in chart.series:
        if series.name == FRONT:
            axes.step(series.x, series.y, where="post", color="#D2D2D2", linewidth=7, solid_capstyle="round", zorder=1)
            continue
        order = orders.get(series.name, 0)
        if series.low is not None and series.high is not None:
            axes.fill_between(series.x, series.low, series.high, color=colour(order), alpha=0.14, linewidth=0)
        axes.plot(series.x, series.y, color=colour(order), linestyle=_LINES[dash(order)], linewidth=1.7)
        seen = np.flatnonzero(~np.isnan(series.y))
        at = seen if series.markers else seen[-1:]
        axes.plot(
            series.x[at],
            series.y[at],
            color=colour(order),
            marker=_MARKERS[symbol(order)],
            markeredgecolor="white",
            markersize=8,
            linestyle="none",
        )
    axes.set_ylabel(chart.y)
    for log, which, every in (
        (chart.log_x, "x", [series.x for series in chart.series]),
        (chart.log_y, "y", [series.y for series in chart.series]),
    ):
        ends = [float(value) for values in every for value in values if value > 0]
        if log and ends:
            _log(axes, which, min(ends) / 1.08, max(ends) * 1.08)
    if chart.ticks:
        axes.set_xticks([at for at, _ in chart.ticks], [text for _, text in chart.ticks])
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    if chart.line is not None:
        axes.axhline(chart.line, color="#1A1A1A", linewidth=0.9, linestyle=":")
        place = axes.get_yaxis_transform()
        right = chart.line_end == "right"
        axes.text(
            float(right),
            chart.line,
            chart.line_text,
            transform=place,
            ha=chart.line_end,
            va="top" if right else "bottom",
            fontsize=8.5,
        )
    _nothing(axes, bool(chart.series), chart.note)


def _rows(axes: Axes, chart: RowChart, orders: Mapping[str, int]) -> None:
    low, high = row_range(chart)
    if chart.log_x:
        _log(axes, "x", low, high)
    else:
        axes.set_xlim(low, high)
    axes.set_ylim(-max(len(chart.rows), 1) + 0.3, 0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if chart.zero:
        axes.axvline(0.0, color="#1A1A1A", linewidth=1, zorder=1)
    place = axes.get_yaxis_transform()
    white = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
    for at, row in enumerate(chart.rows):
        y = -at + (0.35 if chart.crowded else 0.28)
        axes.text(
            0.0,
            y,
            _beside(row.label, row.note),
            transform=place,
            va="center",
            fontsize=9,
            fontweight="bold",
            bbox=white,
        )
        axes.text(1.0, y, row.note, transform=place, va="center", ha="right", fontsize=9, bbox=white)
        for number, mark in enumerate(row.marks):
            if math.isnan(mark.value):
                continue
            order = orders.get(mark.name, 0)
            shape = "|" if mark.kind == "seed" else "D" if mark.kind == "second" else _MARKERS[symbol(order)]
            height = -at - place_below(chart, row, number)
            if not math.isnan(mark.low):
                axes.plot([mark.low, mark.high], [height, height], color=colour(order), linewidth=1.8)
            axes.plot(
                [mark.value],
                [height],
                color=colour(order),
                marker=shape,
                markersize=9 if mark.kind == "seed" else 7.5,
                markeredgewidth=1.6 if mark.kind in {"seed", "open"} else 0,
                fillstyle="none" if mark.kind == "open" else "full",
            )
    _nothing(axes, any(not math.isnan(mark.value) for row in chart.rows for mark in row.marks), chart.note)


def _beside(label: str, note: str) -> str:
    """As much of a label as the note at the end of its line leaves room for."""
    room = max(int((_WIDTH - 0.5 - _REGULAR * len(note)) / _BOLD), 8)
    return label if len(label) <= room else label[: room - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _log(axes: Axes, which: str, low: float, high: float) -> None:
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _nothing(axes: Axes, something: bool, note: str) -> None:
    if not something and note:
        axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center", fontsize=9)
