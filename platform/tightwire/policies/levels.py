"""Expected counts of a quantiser's levels under stochastic rounding, and what follows from them.

Stochastic rounding sends a value at x (in steps) to level j with chance max(0, 1 - |x - j|), and adds the
variance f (1 - f), f being x's fraction. A level's count is a sum of independent coins; from the sum and the
sum of squares of their chances follow the expected entropy of the codes that are really drawn (which is below
the entropy of the chances: few values cannot fill many levels) and the number of levels that occur at all.
"""

import math

import numba
import numpy as np

from tightwire.arrays import Floats

_STEPS = 32
_TABLE = 64


def _expected_logs() -> Floats:
    """E[log2(1 + c)] for c ~ Poisson(i / _STEPS), i = 0 .. _STEPS * _TABLE."""
    counts = np.arange(1.0, 4 * _TABLE)
    factorials = np.cumsum(np.log(counts))
    rates = np.arange(1, _STEPS * _TABLE + 1)[:, None] / _STEPS
    chances = np.exp(counts * np.log(rates) - rates - factorials)
    return np.concatenate([[0.0], (chances * np.log2(1 + counts)).sum(axis=1)])


LOGS = _expected_logs()
"""The table that `spread` wants, as an argument, so that the cache of compiled code does not hold it."""


@numba.njit(cache=True, nogil=True)
def _expected_log(rate, doubled, table):  # type: ignore[no-untyped-def]  # numba infers them
    """E[c log2 c] for the count c of a level: a sum of coins of chances p, rate = sum p, doubled = sum p**2.

    c is taken as binomial with these two moments. Then E[c log2 c] = rate * E[log2(1 + c')], c' with one coin
    less; and that is the same of a Poisson count plus what the smaller variance changes, to second order.
    """
    if rate <= 0:
        return 0.0
    coin = doubled / rate
    mean = max(rate - coin, 0.0)
    place = mean * _STEPS
    curve = mean / ((1 + mean) * (1 + mean) * 2 * math.log(2.0))
    if place >= _STEPS * _TABLE:
        return rate * (math.log2(1 + mean) - (1 - coin) * curve)
    at = int(place)
    return rate * (table[at] + (place - at) * (table[at + 1] - table[at]) + coin * curve)


@numba.njit(cache=True, nogil=True)
def _hat(x):  # type: ignore[no-untyped-def]  # numba infers them
    """Integral of max(0, 1 - |t|) up to x: the chance of level 0, summed over places."""
    if x < 0:
        return max(1 + x, 0.0) ** 2 / 2
    return 1 - max(1 - x, 0.0) ** 2 / 2


@numba.njit(cache=True, nogil=True)
def _hills(x):  # type: ignore[no-untyped-def]  # numba infers them
    """Integral of f (1 - f), the variance of rounding, from 0 to x >= 0; f is the fraction of the place."""
    whole = math.floor(x)
    part = x - whole
    return whole / 6 + part * part / 2 - part * part * part / 3


@numba.njit(cache=True, nogil=True)
def _vacant(rate, doubled):  # type: ignore[no-untyped-def]  # numba infers them
    """Chance that a level stays empty, under the same binomial as in `_expected_log`."""
    coin = doubled / rate if rate > 0 else 0.0
    if coin < 1e-3:
        return math.exp(-rate)
    return math.exp(rate / coin * math.log1p(-min(coin, 0.999999)))


@numba.njit(cache=True, nogil=True)
def spread(start, end, mass, levels, doubled, totals, table):  # type: ignore[no-untyped-def]  # likewise
    """Add `mass` values uniform on [start, end], in steps of the quantiser, to the levels.

    The totals are the variance of rounding in square steps, the sum of E[c log2 c] over the levels, and the
    number of levels that are empty.
    """
    last = len(levels) - 1
    start = min(max(start, 0.0), float(last))
    end = min(max(end, 0.0), float(last))
    width = end - start
    narrow = width < 1e-7
    if narrow:
        part = start - math.floor(start)
        totals[0] += mass * part * (1 - part)
    else:
        totals[0] += mass * (_hills(end) - _hills(start)) / width
    inside = -1.0
    gain = 0.0
    for level in range(int(start), min(math.ceil(end), last) + 1):
        within = level - 1 >= start and level + 1 <= end
        if within and inside > 0:
            chance = inside
        elif narrow:
            chance = max(1 - abs(start - level), 0.0)
        else:
            chance = (_hat(end - level) - _hat(start - level)) / width
        rate, double = levels[level], doubled[level]
        levels[level] = rate + mass * chance
        doubled[level] = double + mass * chance * chance
        if rate > 0 or not within:
            totals[1] -= _expected_log(rate, double, table)
            totals[1] += _expected_log(levels[level], doubled[level], table)
            totals[2] += _vacant(levels[level], doubled[level]) - _vacant(rate, double)
            continue
        if inside < 0:
            inside = chance
            gain = _expected_log(levels[level], doubled[level], table)
            loss = 1 - _vacant(levels[level], doubled[level])
        totals[1] += gain
        totals[2] -= loss
