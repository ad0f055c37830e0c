"""The picture of `tightwire codec plot`: rate against distortion of the whole family on one update."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tightwire.codecs.frontier import Point
from tightwire.errors import DataError
from tightwire.federation.tables import atomic_file

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C510A")
"""Okabe and Ito 2008, Color Universal Design, and a brown."""
_MARKERS = "osD^vPX*"
_PANELS = (("quantiser", "Quantisers"), ("sparsifier", "Sparsifiers"), ("factorisation", "Factorisations"))
_GREY = "#8A8A8A"


def envelope(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both bits and error, from few bits to many."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bits, point.nmse)):
        if not best or point.nmse < best[-1].nmse:
            best.append(point)
    return best


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Draw the points into a PNG, a panel for each family, with the Gaussian bound NMSE = 2**(-2 bits) in each.

    Raises:
        DataError: The file cannot be written.
    """
    figure = Figure(figsize=(9.5, 11.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(_PANELS), 1, sharex=True, sharey=True, height_ratios=(1.25, 1, 0.8))
    best = envelope([point for point in points if point.nmse > 0])
    low, high = min(point.bits for point in points), max(point.bits for point in points)
    bits = np.geomspace(low / 1.3, high * 1.3, 300)
    for axes, (family, name) in zip(panels, _PANELS, strict=True):
        axes.plot(bits, 4.0**-bits, color=_GREY, linestyle=":", linewidth=1.6, label="bound for Gaussian values")
        axes.plot(
            [point.bits for point in best],
            [point.nmse for point in best],
            color="#C9C9C9",
            linewidth=6,
            solid_capstyle="round",
            zorder=1,
            label="best of all, in any panel",
        )
        _curves(axes, [point for point in points if point.family == family and point.nmse > 0])
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
    smallest = min(point.nmse for point in best)
    panels[0].set_ylim(max(smallest / 2, 1e-6), 3)
    panels[0].set_xscale("log")
    panels[0].set_yscale("log")
    panels[0].set_xlim(low / 1.3, high * 1.3)
    panels[-1].set_xlabel("bits a value of the update, everything in the frame included")
    axis = panels[-1].xaxis
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0), numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    try:
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=130)
    except OSError as error:
        raise DataError(f"--out {path}: cannot be written: {error.strerror}") from None


def _curves(axes: Axes, points: Sequence[Point]) -> None:
    for order, name in enumerate(dict.fromkeys(point.curve for point in points)):
        mine = sorted((point for point in points if point.curve == name), key=lambda point: point.bits)
        axes.plot(
            [point.bits for point in mine],
            [point.nmse for point in mine],
            color=_COLOURS[order % len(_COLOURS)],
            marker=_MARKERS[order % len(_MARKERS)],
            linestyle="-" if order < len(_COLOURS) else "--",
            markersize=4.5,
            linewidth=1.4,
            label=name,
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_ylabel("NMSE")
