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


TABLES = np.stack([_expected_logs(), np.exp(-np.arange(_STEPS * _TABLE + 1) / _STEPS)])
"""E[log2(1 + c)] and the chance of c = 0, for c ~ Poisson(i / _STEPS); an argument of `tally`, so that the cache of
compiled code does not hold it."""


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hat(x):  # type: ignore[no-untyped-def]  # numba infers them
    """Integral of max(0, 1 - |t|) up to x: the chance of level 0, summed over places."""
    if x < 0:
        return max(1 + x, 0.0) ** 2 / 2
    return 1 - max(1 - x, 0.0) ** 2 / 2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _hills(x):  # type: ignore[no-untyped-def]  # numba infers them
    """Integral of f (1 - f), the variance of rounding, from 0 to x >= 0; f is the fraction of the place."""
    whole = math.floor(x)
    part = x - whole
    return whole / 6 + part * part / 2 - part * part * part / 3


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vacant(rate, doubled, chances):  # type: ignore[no-untyped-def]  # numba infers them
    """Chance that a level stays empty, under the same binomial as in `_expected_log`."""
    if rate >= _TABLE:
        return 0.0
    coin = doubled / rate
    if coin > 0.5:  # hardly more than one coin
        return math.exp(rate / coin * math.log1p(-min(coin, 0.999999)))
    place = rate * (1 + coin * (1 / 2 + coin * (1 / 3 + coin * (1 / 4 + coin / 5)))) * _STEPS
    at = int(place)
    if at + 1 >= len(chances):
        return 0.0
    return chances[at] + (place - at) * (chances[at + 1] - chances[at])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def variance(start, end, last):  # type: ignore[no-untyped-def]  # numba infers them
    """Mean variance of rounding values uniform on [start, end], in steps, clipped to the levels 0 .. last."""
    start = min(max(start, 0.0), last)
    end = min(max(end, 0.0), last)
    width = end - start
    floor = math.floor(start)
    if end <= floor + 1:
        part = (start + end) / 2 - floor
        return part * (1 - part) - width * width / 12
    return (_hills(end) - _hills(start)) / width


@numba.njit(cache=True, nogil=True, error_model="numpy")
def spread(start, end, mass, levels, doubled):  # type: ignore[no-untyped-def]  # numba infers them
    """Add `mass` values uniform on [start, end], in steps, to the levels: sums of chances and of their squares."""
    last = len(levels) - 1
    start = min(max(start, 0.0), float(last))
    end = min(max(end, 0.0), float(last))
    first = int(start)
    if end <= first + 1:
        beyond = (start + end) / 2 - first
        levels[first] += mass * (1 - beyond)
        doubled[first] += mass * (1 - beyond) * (1 - beyond)
        if beyond > 0:
            levels[first + 1] += mass * beyond
            doubled[first + 1] += mass * beyond * beyond
        return
    inside = 1 / (end - start)
    for level in range(first, min(math.ceil(end), last) + 1):
        if level - 1 >= start and level + 1 <= end:
            levels[level] += mass * inside
            doubled[level] += mass * inside * inside
            continue
        chance = (_hat(end - level) - _hat(start - level)) * inside
        levels[level] += mass * chance
        doubled[level] += mass * chance * chance


@numba.njit(cache=True, nogil=True, error_model="numpy")
def tally(levels, doubled, table):  # type: ignore[no-untyped-def]  # numba infers them
    """Sum of E[c log2 c] over the levels, and how many of them are expected to occur.

    Levels that got the same as the one before them, as most do within a cell wide in steps, cost next to nothing.
    """
    logs = occupied = 0.0
    before = twice = -1.0
    gain = present = 0.0
    for level in range(len(levels)):
        rate = levels[level]
        if rate != before or doubled[level] != twice:
            before, twice = rate, doubled[level]
            gain = _expected_log(rate, twice, table[0])
            present = 1 - _vacant(rate, twice, table[1]) if rate > 0 else 0.0
        logs += gain
        occupied += present
    return logs, occupied
