"""The charts of a study's report as plain records, before anything is drawn; two renderers draw them.

A curve chart has lines with bands; a row chart has a row for each variation or tier, with its name above its points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tightwire.arrays import Floats

FRONT = "best of all"
"""Name of the series that is the Pareto front."""
_UNITS = {
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "seconds": ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")),
    "joules": ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J")),
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line; arrays of one length, NaN where there is nothing."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    """The band's edges, where it has one."""
    markers: bool = False
    """Whether each point has a marker; otherwise only the last one has."""

    def since(self, x: float) -> "Series":
        """The part from `x` on."""
        there = self.x >= x
        low, high = (None if edge is None else edge[there] for edge in (self.low, self.high))
        return Series(self.name, self.x[there], self.y[there], low, high, self.markers)


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Lines with bands."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    line: float | None = None
    """Height of a dotted line across."""
    line_text: str = ""
    line_end: Literal["left", "right"] = "right"
    """At which end its text is."""
    ticks: tuple[tuple[float, str], ...] = ()
    """Where the x axis has its ticks, if not anywhere."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of a row, with its interval if it has one."""

    name: str
    """The variation that it belongs to."""
    value: float
    low: float = math.nan
    high: float = math.nan
    kind: Literal["mean", "seed", "second", "open"] = "mean"
    """`seed` is small and faint, `second` a diamond, `open` hollow: a bound."""
    text: str = ""
    """What to say of it when it is pointed at."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a name on its left, a few words on its right, and its points."""

    label: str
    note: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class RowChart:
    """Rows of points, the first row on top."""

    title: str
    x: str
    rows: tuple[Row, ...]
    zero: str = ""
    """What lies at 0, where a line is drawn there."""
    log_x: bool = False
    crowded: bool = False
    """Whether a row has a point of every variation, one below the other."""
    note: str = ""


Chart = CurveChart | RowChart


def unit(kind: Literal["bytes", "seconds", "joules"], values: Sequence[float]) -> tuple[float, str]:
    """The unit in which the largest value has few digits: its size and its name."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return next(((size, name) for size, name in _UNITS[kind] if largest >= 1.5 * size), _UNITS[kind][-1])


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten from `low` to `high`; only powers of ten where that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.6 else (1, 3) if math.log10(high / low) < 4 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]
