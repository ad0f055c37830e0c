"""What a report's charts show: each is made here from the numbers of one point of the grid."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from tightwire.arrays import Floats
from tightwire.studies import statistics
from tightwire.studies.comparison import JOULES, SECONDS, Cost, Panel, Variation
from tightwire.studies.findings import percent, points, says_nothing
from tightwire.studies.outcomes import TierShare, TrialResult
from tightwire.studies.statistics import Interval, Paired
from tightwire_pipelines.report_charts import FRONT, CurveChart, Mark, Row, RowChart, Series, unit

GRID = 90
"""Points of a curve over costs."""
BELOW = 12.0
"""Points of accuracy that are shown below the target, or below the worst end."""
LOG_ABOVE = 5.0
"""Values that differ by more than this factor are shown on a logarithmic axis."""


def kind_of(cost: Cost) -> Literal["bytes", "seconds", "joules"]:
    """What a cost is counted in."""
    return "seconds" if cost is SECONDS else "joules" if cost is JOULES else "bytes"


def pareto(panel: Panel, cost: Cost) -> CurveChart:
    """Best accuracy against what was spent for it, mean and 95 % band over seeds, and the best of all."""
    box = panel.box(cost)
    title = f"Accuracy against {cost.label}"
    if box is None:
        return CurveChart(title, cost.label, "best accuracy so far (%)", (), note="No run was evaluated.")
    grid: Floats = np.geomspace(box[0], box[1], GRID)
    size, name = unit(kind_of(cost), [box[1]])
    drawn, means = [], []
    for variation in panel.variations:
        mean, low, high = (100 * values for values in variation.attained(cost, grid))
        low, high = np.maximum(low, 0.0), np.minimum(high, 100.0)  # no accuracy lies beyond
        means.append(mean)
        ends = int(np.searchsorted(grid, max(variation.spent(cost).values()), side="right"))
        if not np.isnan(mean[:ends]).all():
            drawn.append(Series(variation.name, grid[:ends] / size, mean[:ends], low[:ends], high[:ends]))
    stack = np.stack(means)
    best = np.where(np.isnan(stack).all(axis=0), math.nan, np.where(np.isnan(stack), -math.inf, stack).max(axis=0))
    finals = [float(one.y[~np.isnan(one.y)][-1]) for one in drawn]
    tops = [float(np.nanmax(one.y if one.high is None else np.fmax(one.y, one.high))) for one in drawn]
    lowest = max(0.0, min([*finals, 100 * panel.target]) - BELOW)
    shown = slice(int(np.argmax(best >= lowest)), None)  # the curves are below the picture before
    return CurveChart(
        title,
        f"{cost.label} so far ({name})",
        "best accuracy so far (%)",
        (Series(FRONT, grid[shown] / size, best[shown]), *(one.since(grid[shown][0] / size) for one in drawn)),
        log_x=box[1] > LOG_ABOVE * box[0],
        y_range=(lowest, min(100.5, max([*tops, 100 * panel.target]) + 1.5)),
        line=100 * panel.target,
        line_text=f"target {100 * panel.target:g} %",
        line_end="left",
    )


def to_target(panel: Panel, cost: Cost) -> RowChart:
    """What the target cost: the median over seeds, and each seed."""
    reached = {variation.name: variation.to_target(cost, panel.target) for variation in panel.variations}
    every = [value for one in reached.values() for value in one.costs if value is not None]
    size, name = unit(kind_of(cost), every)
    rows = []
    for label, one in reached.items():
        marks = [Mark(label, value / size, kind="seed") for value in one.costs if value is not None]
        seeds = f"{one.reached} of {len(one.costs)}"
        note = f"in {seeds}" if one.median is None else f"{_digits(one.median / size)} {name}, {seeds}"
        if one.median is not None:
            marks.append(Mark(label, one.median / size, text=f"median {_digits(one.median / size)} {name}"))
        rows.append(Row(label, f"{note} seeds" if one.median is None else note, tuple(marks)))
    return RowChart(
        f"{cost.label.capitalize()} to {100 * panel.target:g} %",
        f"{cost.label} ({name})",
        tuple(rows),
        log_x=bool(every) and max(every) > LOG_ABOVE * min(every) > 0,
        note="" if every else "No run reached it.",
    )


def differences(panel: Panel, cost: Cost | None, reference: Variation) -> RowChart:
    """A forest plot: each variation's paired difference to one of them."""
    rows = [
        Row(name, comparison_words(paired, cost), (_mark(name, paired, cost),))
        for name, paired in panel.against(reference, cost).items()
    ]
    if cost is None:
        title, x = "Accuracy at the end", "difference (points); more is better"
    else:
        title, x = f"{cost.label.capitalize()} to {100 * panel.target:g} %", "difference (%); less is better"
    return RowChart(
        title,
        x,
        tuple(rows),
        zero=reference.name,
        note=f"Zero is \N{LEFT DOUBLE QUOTATION MARK}{reference.name}\N{RIGHT DOUBLE QUOTATION MARK}.",
    )


def regret(panel: Panel, cost: Cost | None) -> RowChart:
    """How much worse each variation is than the best fixed codec, and than the oracle."""
    best, oracle = panel.best_fixed(cost), panel.oracle
    sign = -1.0 if cost is None else 1.0
    families: list[tuple[Literal["mean", "second"], dict[str, Paired]]] = []
    if best is not None:
        families.append(("mean", panel.against(best, cost)))
    if oracle is not None:
        families.append(("second", panel.against(oracle, cost)))
    rows = []
    for variation in panel.variations:
        marks, words = [], []
        for kind, family in families:
            paired = family.get(variation.name)
            if paired is None:
                words.append("\N{EN DASH}")
                continue
            mark = _mark(variation.name, paired, cost, sign, kind)
            marks.append(mark)
            words.append("missed" if math.isnan(mark.value) else f"{_sign(paired)}{_signed(mark.value, cost)}")
        rows.append(Row(variation.name, " / ".join(words), tuple(marks)))
    against = [f"Best fixed codec: {best.name}"] if best is not None else []
    against += [f"Oracle: {oracle.name}"] if oracle is not None else []
    said = ". ".join(against)
    what = "Accuracy" if cost is None else f"{cost.label.capitalize()} to {100 * panel.target:g} %"
    return RowChart(
        what,
        f"regret ({'points' if cost is None else '%'}); less is better",
        tuple(rows) if families else (),
        zero=said,
        note=f"{said}." if families else "The study has neither a fixed codec nor an oracle.",
    )


def hypervolume(panel: Panel, cost: Cost) -> RowChart:
    """The share of the box between cheapest and dearest that each variation dominates."""
    rows = []
    for variation in panel.variations:
        found = panel.hypervolume(variation, cost)
        words = "never evaluated" if math.isnan(found.mean) else f"{100 * found.mean:.1f}{_plus_minus(found, 1)} %"
        rows.append(Row(variation.name, words, (_interval_mark(variation.name, found, 100.0, (0.0, 100.0)),)))
    box, kind = panel.box(cost), kind_of(cost)
    note = ""
    if box is not None:
        (small, small_unit), (large, large_unit) = unit(kind, [box[0]]), unit(kind, [box[1]])
        note = (
            f"The box: {cost.label} from {_digits(box[0] / small)} {small_unit} to {_digits(box[1] / large)} "
            f"{large_unit} on a logarithmic scale, accuracy from 0 to 100 %. Reference point: "
            f"{_digits(box[1] / large)} {large_unit}, 0 %."
        )
    return RowChart(f"Accuracy against {cost.label}", "share of the box (%); more is better", tuple(rows), note=note)


def savings(panels: Sequence[Panel], names: Sequence[str], axis: str, cost: Cost) -> CurveChart:
    """The paired saving to the target against the reference of each point of the grid, along one axis.

    Args:
        panels: Points that differ in this axis only, in its order.
        names: The variations.
        axis: Dotted key of the axis.
        cost: What is saved.
    """
    families = [panel.against(panel.reference(cost), cost) for panel in panels]
    values = [panel.axes[axis] for panel in panels]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    at = [float(value) for value in values] if numeric else [float(number) for number in range(len(values))]
    drawn, missed = [], []
    for name in names:
        found = [family.get(name) for family in families]
        missed += [name] if any(paired is not None and paired.bound != "exact" for paired in found) else []
        found = [paired if paired is not None and paired.bound == "exact" else None for paired in found]
        if not any(paired is not None and not math.isnan(paired.difference.mean) for paired in found):
            continue
        columns = [
            [math.nan if paired is None else -getattr(paired.difference, end) for paired in found]
            for end in ("mean", "high", "low")
        ]
        y, low, high = (np.asarray(column) for column in columns)
        drawn.append(Series(name, np.asarray(at), y, low, high, markers=True))
    references = list(dict.fromkeys(panel.reference(cost).name for panel in panels))
    note = f"Against {' or '.join(references)}. Bands: 95 % over the seeds, paired."
    if missed:
        note += f" No point where a seed missed the target: {', '.join(missed)}."
    return CurveChart(
        f"{cost.label.capitalize()} saved to {100 * panels[0].target:g} %",
        axis.split(".")[-1],
        f"{cost.label} saved (%)",
        tuple(drawn),
        line=0.0,
        line_text=references[0] if len(references) == 1 else "best fixed codec",
        ticks=tuple(zip(at, [str(value) for value in values], strict=True)),
        note=note,
        y_range=_saving_range([one.y for one in drawn], [one.low for one in drawn], [one.high for one in drawn]),
    )


def who_paid(panel: Panel, what: Literal["bits", "bytes", "participation", "accuracy"]) -> RowChart:
    """What each device tier paid or got, by variation."""
    tiers = sorted({tier for variation in panel.variations for trial in variation.trials for tier in trial.tiers})
    found = {
        (tier, variation.name): statistics.interval(_tier_values(variation.trials, tier, what))
        for tier in tiers
        for variation in panel.variations
    }
    means = [one.mean for one in found.values() if not math.isnan(one.mean)]
    size, name = unit("bytes", means) if what == "bytes" else (1.0 if what == "bits" else 0.01, "")
    title, x = {
        "bits": ("Bits", "mean bits of a kept value"),
        "bytes": ("Bytes up", f"sent each time a client was asked ({name})"),
        "participation": ("Participation", "updates used, of times asked (%)"),
        "accuracy": ("Accuracy", "test accuracy on the classes the tier holds (%)"),
    }[what]
    ends = (0.0, 100.0) if what in {"participation", "accuracy"} else (0.0, math.inf)
    rows = []
    for tier in tiers:
        marks = [
            _interval_mark(variation.name, found[tier, variation.name], 1 / size, ends)
            for variation in panel.variations
            if not math.isnan(found[tier, variation.name].mean)
        ]
        span = sorted(mark.value for mark in marks)
        note = " to ".join(dict.fromkeys(_digits(value) for value in (span[:1] + span[-1:])))
        rows.append(Row(tier, note, tuple(marks)))
    positive = [mean for mean in means if mean > 0]
    log = what == "bytes" and bool(positive) and max(positive) > LOG_ABOVE * min(positive)
    return RowChart(
        title, x, tuple(rows), log_x=log, crowded=True, note="" if means else "Not measured for these runs."
    )


def decisions(panel: Panel, what: Literal["bits", "density", "bytes", "skipped"], tier: str) -> CurveChart:
    """What was chosen round by round, mean over uploads and seeds, and running over a few rounds."""
    drawn = []
    for variation in panel.variations:
        chosen = [(t.curve.rounds, getattr(t.choices[tier], what)) for t in variation.trials if tier in t.choices]
        if not chosen:
            continue
        length = min(len(rounds) for rounds, _ in chosen)
        stack = np.stack([values[:length] for _, values in chosen])
        smooth = _running(_nanmean(stack), max(1, length // 20))
        if not np.isnan(smooth).all():
            drawn.append(Series(variation.name, chosen[0][0][:length].astype(np.float64), smooth))
    values = [float(value) for one in drawn for value in one.y if value > 0]
    size, name = unit("bytes", values) if what == "bytes" else (1.0 if what != "skipped" else 0.01, "")
    title, y = {
        "bits": ("Bits", "bits of a kept value"),
        "density": ("Density", "kept fraction"),
        "bytes": ("Length of an upload", f"bytes of a frame ({name})"),
        "skipped": ("Uploads skipped", "decided to send nothing (%)"),
    }[what]
    log = what in {"density", "bytes"} and bool(values) and max(values) > LOG_ABOVE * min(values)
    top = max(values, default=1.0) / size
    series = tuple(Series(one.name, one.x, one.y / size) for one in drawn)
    return CurveChart(title, "round", y, series, log_y=log, y_range=None if log else (0.0, 1.08 * top))


def comparison_words(paired: Paired, cost: Cost | None) -> str:
    """A comparison in the few words beside its row."""
    found = paired.difference
    if says_nothing(paired):
        return "target missed" if paired.bound != "exact" else "no common seed"
    return f"{_sign(paired)}{points(found.mean) if cost is None else percent(found.mean)}, {paired.verdict}"


def _sign(paired: Paired) -> str:
    signs = {"at least": "\N{GREATER-THAN OR EQUAL TO} ", "at most": "\N{LESS-THAN OR EQUAL TO} "}
    return signs.get(paired.bound, "")


def _mark(
    name: str,
    paired: Paired,
    cost: Cost | None,
    sign: float = 1.0,
    kind: Literal["mean", "second"] = "mean",
) -> Mark:
    found, scale = paired.difference, 100 * sign if cost is None else sign
    ends = sorted((found.low * scale, found.high * scale))
    flip = "none possible" if paired.p_sign_flip is None else f"{paired.p_sign_flip:.3g}"
    text = (
        f"difference {comparison_words(paired, cost)}<br>{found.n} pairs; t test p = {paired.p:.3g}, "
        f"after Holm {paired.p_holm:.3g}; sign flips p = {flip}"
    )
    if says_nothing(paired):
        return Mark(name, math.nan)
    hollow = paired.bound != "exact" and kind == "mean"
    return Mark(name, found.mean * scale, ends[0], ends[1], kind="open" if hollow else kind, text=text)


def _interval_mark(name: str, found: Interval, scale: float, ends: tuple[float, float]) -> Mark:
    """A mean with its interval as far as there are such values; NaN stays NaN."""
    low, high = (float(np.clip(end * scale, *ends)) for end in (found.low, found.high))
    return Mark(name, found.mean * scale, low, high, text=_digits(found.mean * scale))


def _tier_values(trials: Sequence[TrialResult], tier: str, what: str) -> list[float]:
    read: dict[str, Callable[[TierShare], float]] = {
        "bits": lambda share: share.bits,
        "bytes": lambda share: share.bytes_up / share.asked if share.asked else math.nan,
        "participation": lambda share: share.participation,
        "accuracy": lambda share: math.nan if share.accuracy is None else share.accuracy,
    }
    values = [read[what](trial.tiers[tier]) for trial in trials if tier in trial.tiers]
    return [value for value in values if not math.isnan(value)]


def _nanmean(stack: Floats) -> Floats:
    counts = (~np.isnan(stack)).sum(axis=0)
    mean: Floats = np.where(counts > 0, np.nansum(stack, axis=0) / np.maximum(counts, 1), math.nan)
    return mean


def _running(values: Floats, window: int) -> Floats:
    """Mean of each value and up to `window` - 1 before it, of those that are there."""
    return np.array([_nanmean(values[max(0, end - window) : end, None])[0] for end in range(1, len(values) + 1)])


def _saving_range(
    means: Sequence[Floats], lows: Sequence[Floats | None], highs: Sequence[Floats | None]
) -> tuple[float, float]:
    """All means, zero, and bands as far as they do not dwarf the means."""
    values = [float(v) for mean in means for v in mean if not math.isnan(v)] + [0.0]
    span = max(max(values) - min(values), 10.0)
    ends = [float(v) for end in (*lows, *highs) if end is not None for v in end if not math.isnan(v)]
    low = max(min([*values, *ends]), min(values) - span)
    high = min(max([*values, *ends]), max(values) + span)
    return low - 0.06 * span, high + 0.06 * span


def _signed(value: float, cost: Cost | None) -> str:
    return points(value / 100) if cost is None else percent(value)


def _plus_minus(found: Interval, digits: int) -> str:
    return "" if math.isnan(found.half) else f" \N{PLUS-MINUS SIGN} {100 * found.half:.{digits}f}"


def _digits(value: float) -> str:
    """Three significant digits, without exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "?"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
