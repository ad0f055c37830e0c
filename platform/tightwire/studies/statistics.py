"""The statistics of a study: intervals over seeds, costs to a target, fronts, and paired differences.

Everything is a pure function of numbers. Where seeds are few nothing is smoothed over: one value has no interval, a
target that half of the seeds missed has no median, and differences need three pairs before they can be called better
or worse. Sources: Student's t for means; the sign test where costs are bounds; Holm 1979 for families of comparisons;
Fisher's sign-flip test for pairs; Zitzler and Thiele 1999 for the hypervolume.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from tightwire.arrays import Floats

LEVEL = 0.95
"""Confidence of all intervals."""
EXACT_UP_TO = 12
"""Pairs up to which all sign flips are tried; 2**12 of them."""
FEWEST_PAIRS = 3
"""Pairs that a verdict needs: two that happen to be equal would look certain."""

Verdict = Literal["better", "worse", "undecided"]
VERDICTS: tuple[Verdict, ...] = ("better", "worse", "undecided")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and its 95 % interval; the bounds are NaN for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class ToTarget:
    """What it cost to reach a target accuracy, over seeds of which some may not have reached it."""

    costs: tuple[float | None, ...]
    """By seed; None for a seed that never reached the target."""
    median: float | None
    """Median over all seeds, those that did not reach counted as beyond all others; None unless more than half did."""

    @property
    def reached(self) -> int:
        """Seeds that reached the target."""
        return sum(cost is not None for cost in self.costs)

    @property
    def fraction(self) -> float:
        """Share of the seeds that reached the target, in [0, 1]; NaN without seeds."""
        return self.reached / len(self.costs) if self.costs else math.nan


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference of two variations over the seeds that both have."""

    difference: Interval
    """Of first less second: as it is, or in percent of the second."""
    p: float
    """Two-sided p of Student's t over the pairs, NaN for fewer than two; of the sign test where `bound` is a bound."""
    p_sign_flip: float | None
    """Exact two-sided p of the sign-flip test; None beyond `EXACT_UP_TO` pairs or without any."""
    verdict: Verdict = "undecided"
    p_holm: float = math.nan
    """`p` after Holm's correction over the family of comparisons."""
    bound: Literal["exact", "at least", "at most", "unknown"] = "exact"
    """``at least``, ``at most``: some seeds of one side never reached the target and count with all that they spent,
    which bounds the difference and leaves it without interval; ``unknown``: neither side reached it in some seed, or
    each missed it in some."""


def interval(values: Sequence[float] | Floats) -> Interval:
    """Mean and 95 % t-interval of independent values, such as one a seed."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(array.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * _standard_error(array)
    return Interval(mean, mean - half, mean + half, n)


def first_crossing(accuracy: Floats, cost: Floats, target: float) -> float | None:
    """Cost at the first evaluated round whose accuracy is at least `target`, not interpolated; None if none is.

    Args:
        accuracy: In [0, 1], NaN where not evaluated; shape (rounds,).
        cost: Spent so far, any unit; shape (rounds,).
        target: Accuracy in [0, 1].
    """
    there = np.flatnonzero(accuracy >= target)  # NaN is not
    return float(cost[there[0]]) if len(there) else None


def to_target(costs: Sequence[float | None]) -> ToTarget:
    """Sum costs to a target up, with those that never reached it in their place: beyond all others."""
    ordered = sorted(math.inf if cost is None else cost for cost in costs)
    n = len(ordered)
    median = math.inf if n == 0 else (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return ToTarget(tuple(costs), median if math.isfinite(median) else None)


def attained(accuracy: Floats, cost: Floats, grid: Floats) -> Floats:
    """The best accuracy seen by the time that so much was spent: a step function, never interpolated.

    Args:
        accuracy: In [0, 1], NaN where not evaluated; shape (rounds,).
        cost: Spent so far, ascending; shape (rounds,).
        grid: Where to look, in the cost's unit; shape (points,).

    Returns:
        Shape (points,); NaN before the first evaluation. Beyond the last round the best stays what it was.
    """
    seen = ~np.isnan(accuracy)
    if not seen.any():
        return np.full(len(grid), math.nan)
    best = np.maximum.accumulate(accuracy[seen])
    at = np.searchsorted(cost[seen], grid, side="right") - 1
    return np.where(at >= 0, best[np.maximum(at, 0)], math.nan)


def band(curves: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
    """Pointwise mean, lower and upper 95 % bound over seeds.

    Args:
        curves: One a seed, each of shape (points,).

    Returns:
        Three arrays of shape (points,). The mean is NaN where any seed is; the bounds are NaN for one seed.
    """
    stack = np.stack(curves)
    n = len(stack)
    mean = stack.mean(axis=0)
    if n == 1:
        return mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * stack.std(axis=0, ddof=1) / math.sqrt(n)
    return mean, mean - half, mean + half


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats: (cost, gain) with less cost and more gain being better.

    Returns:
        Positions in `points`, by ascending cost. Of equal points the first stays.
    """
    front: list[int] = []
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1], at)):
        cost, gain = points[at]
        if math.isfinite(cost) and math.isfinite(gain) and (not front or gain > points[front[-1]][1]):
            front.append(at)
    return front


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area between a set of (cost, gain) points and a reference point that is worse than they are.

    Args:
        points: Less cost and more gain are better; those not better than the reference add nothing.
        reference: (cost, gain), the worst corner of the box.
    """
    worst, least = reference
    inside = [(cost, gain) for cost, gain in points if cost < worst and gain > least]
    area, height = 0.0, least
    for at in pareto(inside):
        cost, gain = inside[at]
        area += (worst - cost) * (gain - height)
        height = gain
    return area


def sign_flip_p(differences: Sequence[float] | Floats) -> float | None:
    """Exact two-sided p of the mean being 0, were each difference as likely to have the other sign.

    Returns:
        The share of all 2**n sign flips whose mean is as far from 0 as the real one or further; None for no
        differences or more than `EXACT_UP_TO`.
    """
    array = np.asarray(differences, dtype=np.float64)
    n = len(array)
    if not 0 < n <= EXACT_UP_TO:
        return None
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    sums = np.abs(signs @ array)
    slack = 1e-12 * float(np.abs(array).sum())
    return float(np.mean(sums >= abs(float(array.sum())) - slack))


def sign_p(agreeing: int, n: int) -> float:
    """Two-sided p of the sign test.

    Args:
        agreeing: Pairs that are known to differ in one direction; all others count against it.
        n: Pairs.

    Returns:
        Twice the chance of so many heads of n fair coins, or more, but at most 1; NaN without pairs.
    """
    if n == 0:
        return math.nan
    return min(1.0, sum(math.comb(n, k) for k in range(agreeing, n + 1)) / math.ldexp(1.0, n - 1))


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
    """First less second, over the seeds that both have; for gains such as accuracy.

    Args:
        first: Value by seed.
        second: Value by seed, of runs that saw the same randomness.
    """
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    differences = [difference for difference in differences if not math.isnan(difference)]
    return Paired(interval(differences), _t_p(differences), sign_flip_p(differences))


def paired_costs(
    first: Mapping[int, float | None],
    second: Mapping[int, float | None],
    spent_first: Mapping[int, float],
    spent_second: Mapping[int, float],
) -> Paired:
    """How much more the first costs than the second, in percent, over the seeds that both have.

    The mean is geometric, of the ratios, so that a against b is the reverse of b against a. A seed in which one side
    never reached the target enters with all that this side spent: it would have cost at least so much. Of such bounds
    no mean has an interval, and the seeds are only counted: those in which even the bound says who costs more.

    Args:
        first: Cost to the target by seed, positive; None where it was not reached.
        second: Likewise.
        spent_first: What the first's runs cost in all, by seed.
        spent_second: Likewise.
    """
    logs, bounds = [], set()
    for seed in sorted(first.keys() & second.keys()):
        mine, theirs = first[seed], second[seed]
        if mine is None and theirs is None:
            bounds.add("unknown")
            continue
        if mine is None:
            bounds.add("at least")
        if theirs is None:
            bounds.add("at most")
        top = spent_first[seed] if mine is None else mine
        bottom = spent_second[seed] if theirs is None else theirs
        if not (top > 0 and bottom > 0):
            bounds.add("unknown")
            continue
        logs.append(math.log(top / bottom))
    if len(bounds) > 1 or "unknown" in bounds:
        nothing = Interval(math.nan, math.nan, math.nan, len(logs))
        return Paired(nothing, math.nan, None, bound="unknown")
    on_logs = interval(logs)
    percent = Interval(_percent(on_logs.mean), _percent(on_logs.low), _percent(on_logs.high), on_logs.n)
    if not bounds:
        return Paired(percent, _t_p(logs), sign_flip_p(logs))
    least = Interval(percent.mean, math.nan, math.nan, percent.n)
    if "at least" in bounds:
        return Paired(least, sign_p(sum(log > 0 for log in logs), len(logs)), None, bound="at least")
    return Paired(least, sign_p(sum(log < 0 for log in logs), len(logs)), None, bound="at most")


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p values, in the same order; NaN stays NaN and does not count."""
    known = sorted((p, at) for at, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    running = 0.0
    for rank, (p, at) in enumerate(known):
        running = max(running, min(1.0, p * (len(known) - rank)))
        corrected[at] = running
    return corrected


def judge(family: Sequence[Paired], *, matters: float, more_is: Literal["better", "worse"]) -> list[Paired]:
    """Give each comparison of a family its verdict.

    A difference is real if its interval excludes 0, also after Holm's correction, and it matters if its mean is at
    least `matters`. A difference known only as a bound has no interval: the sign test takes its place, which needs six
    pairs, and it can only be called what the bound says.

    Args:
        family: Comparisons that are looked at together.
        matters: The smallest difference that matters, in the comparisons' unit.
        more_is: What a positive difference means.
    """
    corrected = holm([comparison.p for comparison in family])
    judged = []
    for comparison, p in zip(family, corrected, strict=True):
        found = comparison.difference
        if comparison.bound == "exact":
            sign = (found.low > 0) - (found.high < 0)
        else:
            sign = (found.mean > 0) - (found.mean < 0)
        real = found.n >= FEWEST_PAIRS and sign != 0 and p <= 1 - LEVEL and abs(found.mean) >= matters
        told = {"exact": True, "at least": sign > 0, "at most": sign < 0, "unknown": False}[comparison.bound]
        verdict: Verdict = "undecided"
        if real and told:
            verdict = "better" if (sign > 0) == (more_is == "better") else "worse"
        judged.append(replace(comparison, verdict=verdict, p_holm=p))
    return judged


def _standard_error(array: Floats) -> float:
    if float(array.max()) == float(array.min()):
        return 0.0  # not what rounding of the mean leaves
    return float(array.std(ddof=1)) / math.sqrt(len(array))


def _t_p(differences: Sequence[float]) -> float:
    array = np.asarray(differences, dtype=np.float64)
    n = len(array)
    if n < 2:
        return math.nan
    mean, error = float(array.mean()), _standard_error(array)
    if error == 0.0:  # accuracy comes in steps of a test sample: equal differences are no certainty
        return 2.0 ** (1 - n) if mean else 1.0
    return 2.0 * float(stdtr(n - 1, -abs(mean) / error))


def _percent(log: float) -> float:
    return math.nan if math.isnan(log) else 100.0 * math.expm1(log)
