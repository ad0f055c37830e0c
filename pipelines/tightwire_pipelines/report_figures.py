"""A report's charts as plotly figures: plain mappings that go into the page as JSON.

Every trace says in `meta` which variation it is about, so that the page can hide a variation everywhere at once. What
differs between a laptop and a phone is left to the page.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tightwire.arrays import Floats
from tightwire.tracking.plots import PALETTE
from tightwire_pipelines.report_charts import FRONT, Chart, CurveChart, Mark, Row, RowChart, Series, log_ticks

Json = dict[str, Any]
DASHES = ("solid", "dash", "dot", "dashdot")
GLYPHS = "\u25cf\u25a0\u25b2\u25c6\u271a\u2716\u2605"
"""The markers as characters, for the legend."""
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x", "star")
ROW_PIXELS = 44
CROWD_PIXELS = 9
_INK, _GRID, _FAINT = "#1A1A1A", "#E4E4E4", "#C4C4C4"
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": _INK}
_LABEL_LENGTH = 36
_MARGIN = {"l": 8, "r": 14, "t": 8, "b": 8}


def colour(order: int) -> str:
    """The colour of the variation that comes so many after the first."""
    return PALETTE[order % len(PALETTE)]


def dash(order: int) -> str:
    """Its kind of line, which tells apart the variations that share a colour."""
    return DASHES[(order // len(PALETTE)) % len(DASHES)]


def symbol(order: int) -> str:
    """Its marker."""
    return SYMBOLS[_shape(order)]


def glyph(order: int) -> str:
    """Its marker as a character."""
    return GLYPHS[_shape(order)]


def _shape(order: int) -> int:
    return (order + order // len(SYMBOLS)) % len(SYMBOLS)


def figure(chart: Chart, names: Sequence[str]) -> Json:
    """A plotly figure: data and layout, ready for JSON.

    Args:
        chart: What to draw.
        names: All variations of the study, which settles their colours.
    """
    orders = {name: order for order, name in enumerate(names)}
    return _curves(chart, orders) if isinstance(chart, CurveChart) else _rows(chart, orders)


def height(chart: Chart) -> int:
    """Pixels that the figure should be high."""
    if isinstance(chart, CurveChart):
        return 340
    crowd = max((len(row.marks) for row in chart.rows), default=0) if chart.crowded else 0
    return 70 + max(ROW_PIXELS, 26 + CROWD_PIXELS * crowd) * max(len(chart.rows), 1)


def _curves(chart: CurveChart, orders: Mapping[str, int]) -> Json:
    data: list[Json] = []
    for series in chart.series:
        data += _band(series, orders)
    for series in chart.series:
        data += _line(series, orders)
    x_axis, y_axis = _axis(chart.x), _axis(chart.y)
    for axis, log, every in (
        (x_axis, chart.log_x, [series.x for series in chart.series]),
        (y_axis, chart.log_y, [series.y for series in chart.series]),
    ):
        ends = [float(value) for values in every for value in values if value > 0]
        if log and ends:
            axis |= _log_range(min(ends) / 1.08, max(ends) * 1.08)
    if chart.ticks:
        x_axis |= {
            "tickvals": [at for at, _ in chart.ticks],
            "ticktext": [html.escape(text) for _, text in chart.ticks],
        }
    if chart.y_range is not None:
        y_axis["range"] = [_number(end) for end in chart.y_range]
    layout = _layout(x_axis, y_axis)
    if chart.line is not None:
        right = chart.line_end == "right"
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": chart.line, "y1": chart.line}
        layout["shapes"] = [across | {"line": {"color": _INK, "width": 1, "dash": "dot"}}]
        layout["annotations"] = [
            _text(
                chart.line_text,
                x=float(right),
                y=chart.line,
                yref="y",
                xanchor=chart.line_end,
                yanchor="top" if right else "bottom",
                size=11,
                bgcolor=None,
            )
        ]
    return {"data": data, "layout": layout}


def _band(series: Series, orders: Mapping[str, int]) -> list[Json]:
    if series.low is None or series.high is None:
        return []
    there = ~(np.isnan(series.low) | np.isnan(series.high))
    if not there.any():
        return []
    tint = _tint(colour(orders.get(series.name, 0)))
    x, low, high = series.x[there], series.low[there], series.high[there]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": _numbers(np.concatenate([x, x[::-1]])),
            "y": _numbers(np.concatenate([high, low[::-1]])),
            "fill": "toself",
            "fillcolor": tint,
            "line": {"width": 0},
            "hoverinfo": "skip",
            "meta": {"variation": series.name},
            "showlegend": False,
        }
    ]


def _line(series: Series, orders: Mapping[str, int]) -> list[Json]:
    label = html.escape(_short(series.name))
    common: Json = {"type": "scatter", "name": label, "meta": {"variation": series.name}, "showlegend": False}
    if series.name == FRONT:
        thick = {"color": "#D2D2D2", "width": 8, "shape": "hv"}
        return [
            common
            | {"mode": "lines", "x": _numbers(series.x), "y": _numbers(series.y), "line": thick, "hoverinfo": "skip"}
        ]
    order = orders.get(series.name, 0)
    marker = {"color": colour(order), "symbol": symbol(order), "size": 9, "line": {"color": "#FFFFFF", "width": 1}}
    main = common | {
        "mode": "lines+markers" if series.markers else "lines",
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "line": {"color": colour(order), "width": 2, "dash": dash(order)},
        "hovertemplate": f"{label}<br>%{{x:.4g}}: %{{y:.4g}}<extra></extra>",
    }
    if series.markers:
        return [main | {"marker": marker}]
    seen = np.flatnonzero(~np.isnan(series.y))[-1:]
    end = common | {"mode": "markers", "x": _numbers(series.x[seen]), "y": _numbers(series.y[seen]), "marker": marker}
    return [main, end | {"hoverinfo": "skip"}]


def _rows(chart: RowChart, orders: Mapping[str, int]) -> Json:
    data: list[Json] = []
    notes: list[Json] = []
    for at, row in enumerate(chart.rows):
        for number, mark in enumerate(row.marks):
            data += [] if math.isnan(mark.value) else [_point(mark, -at - place_below(chart, row, number), orders)]
        notes += _words(row, -at + (0.07 if chart.crowded else 0.0))
    x_axis = _axis(chart.x)
    low, high = row_range(chart)
    x_axis |= _log_range(low, high) if chart.log_x else {"range": [_number(low), _number(high)]}
    y_axis: Json = {
        "range": [-max(len(chart.rows), 1) + 0.35, 0.75],
        "showticklabels": False,
        "showgrid": False,
        "zeroline": False,
        "fixedrange": True,
    }
    layout = _layout(x_axis, y_axis)
    if chart.zero:
        upright = {"type": "line", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "layer": "below"}
        layout["shapes"] = [upright | {"line": {"color": _INK, "width": 1.2}}]
    layout["annotations"] = notes
    return {"data": data, "layout": layout}


def place_below(chart: RowChart, row: Row, number: int) -> float:
    """How far below its row's middle a point lies, in rows."""
    if chart.crowded:  # from just below the words to just above the next row's
        return 0.5 * number / max(len(row.marks) - 1, 1) - 0.06
    return 0.22 if row.marks[number].kind == "second" else 0.12


def row_range(chart: RowChart) -> tuple[float, float]:
    """Where a row chart's x axis begins and ends: all values, and intervals as far as they do not dwarf them."""
    values = [mark.value for row in chart.rows for mark in row.marks if not math.isnan(mark.value)]
    if not values:
        return (0.0, 1.0)
    if chart.log_x:
        return (min(values) / 1.3, max(values) * 1.3)
    ends = [end for row in chart.rows for mark in row.marks for end in (mark.low, mark.high) if not math.isnan(end)]
    values += [0.0] if chart.zero else []
    span = max(values) - min(values)
    low = max(min([*values, *ends]), min(values) - 1.5 * span)
    high = min(max([*values, *ends]), max(values) + 1.5 * span)
    room = 0.05 * (high - low) or max(abs(high), 1.0)  # one value alone: around it, or around zero
    return (low - room, high + room)


def _point(mark: Mark, y: float, orders: Mapping[str, int]) -> Json:
    order = orders.get(mark.name, 0)
    seed = mark.kind == "seed"
    shape = "line-ns" if seed else "diamond" if mark.kind == "second" else symbol(order)
    if mark.kind == "open":
        shape += "-open"
    words = mark.text or f"{mark.value:.4g}"
    point: Json = {
        "type": "scatter",
        "mode": "markers",
        "x": [_number(mark.value)],
        "y": [_number(y)],
        "marker": {
            "color": colour(order),
            "symbol": shape,
            "size": 12 if seed else 11,
            "opacity": 0.75 if seed else 1.0,
        },
        "meta": {"variation": mark.name},
        "hovertemplate": f"{html.escape(_short(mark.name))}<br>{words}<extra></extra>",
        "showlegend": False,
    }
    if seed:
        point["marker"]["line"] = {"color": colour(order), "width": 2}
    if not (math.isnan(mark.low) or math.isnan(mark.high)):
        point["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": [_number(mark.high - mark.value)],
            "arrayminus": [_number(mark.value - mark.low)],
            "color": colour(order),
            "thickness": 2,
            "width": 5,
        }
    return point


def _words(row: Row, y: float) -> list[Json]:
    """The row's name on the left and its few words on the right, above its points."""
    at: Json = {"y": y + 0.28, "yref": "y", "yanchor": "middle"}
    return [
        _text(_short(row.label), x=0, xanchor="left", size=12, bold=True, **at),
        _text(row.note, x=1, xanchor="right", size=12, **at),
    ]


def _text(words: str, *, x: float, size: int, bold: bool = False, **place: object) -> Json:
    shown = html.escape(words)
    return {
        "text": f"<b>{shown}</b>" if bold else shown,
        "x": x,
        "xref": "paper",
        "showarrow": False,
        "bgcolor": "rgba(255,255,255,0.8)",
        "borderpad": 1,
        "font": {"size": size, "color": _INK},
        **place,
    }


def _log_range(low: float, high: float) -> Json:
    ticks = log_ticks(low, high)
    return {
        "type": "log",
        "range": [_number(math.log10(low)), _number(math.log10(high))],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _axis(title: str) -> Json:
    return {
        "title": {"text": html.escape(title), "standoff": 8, "font": {"size": 13}},
        "gridcolor": _GRID,
        "zeroline": False,
        "linecolor": _FAINT,
        "ticks": "outside",
        "tickcolor": _FAINT,
        "automargin": True,
    }


def _layout(x_axis: Json, y_axis: Json) -> Json:
    return {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "font": _FONT,
        "margin": _MARGIN,
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {"bgcolor": "#FFFFFF", "font": {"color": _INK}},
    }


def _tint(hexadecimal: str) -> str:
    red, green, blue = (int(hexadecimal[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.14)"


def _short(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _numbers(values: Floats) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    """Five significant digits are more than a screen shows."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
