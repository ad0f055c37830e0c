"""Models of the entropy coder that learn from the codes before, so that no table is sent.

A stretch is coded in blocks whose ends follow from its length alone. The shares of a block follow from the codes of the
blocks before it: with N of them, c(s) of symbol s, and q a histogram smoothed by a triangular kernel and mixed with one
flat count, symbol s weighs c(s) + a q(s): the posterior mean under a Dirichlet prior of weight a around q. The kernel
is as wide as the spread of the codes suggests, interquartile range / N**(1/5) as of Silverman 1986 ("Density
estimation for statistics and data analysis", section 3.4). There is such a model for each a in `WEIGHTS` and `QUICK`;
a block takes the one that would have coded the blocks before it best, where older blocks count less. All symbols keep
a share of 1 at least. Counts are halved when there are more than `LONG`, and those of the models for `QUICK` when
there are more than `SHORT`, so that they follow what changes.

Of codes with more than `MODELLED` bits the models see the upper ones, and the lower ones are sent as they are; unless
the models are whole, which pays where single codes stand out. All arithmetic is in integers.
"""

from dataclasses import dataclass

import numba
import numpy as np

from tightwire.arrays import AnyArray
from tightwire.wire import rans_kernels as kernels
from tightwire.wire.rans_tables import FINEST, POINT, Table, count, grouped, logs

WEIGHTS = (128, 16, 2, 1024)
QUICK = (128, 16)
"""These models forget sooner; they start as the first of the others do."""
LONG = 1 << 19
SHORT = 1 << 12
FADING = 3
"""From block to block, what a model would have taken so far loses 1 / 2**this."""
MODELLED = 8
_PRECISION = 14
_WHOLE_PRECISION = 15
_FIRST = 4
"""Codes in the first block; 1 / 64 of the symbols, if more."""
_GROWTH = 3
"""A block is 1 / 2**this of all before it, but no shorter than the first,"""
_LONGEST = 1 << 12
"""and no longer than this, or 16 times the symbols."""
_POINT = 16
"""Fractional bits of weights."""
_ROOTS = (16, 18, 21, 24, 28, 32, 37, 42, 49, 56, 64, 74, 84, 97, 111, 128, 147, 169, 194, 223, 256, 294)
"""16 * 2**(i / 5)."""
_WIDTH = 16
"""The kernel's reach is this part of 16 * (interquartile range + 1) / N**(1/5)."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the models of a stretch look like."""

    symbols: int
    precision: int
    group: int


def form(bits: int, whole: bool) -> Form:
    """The form of models of codes of so many bits."""
    group = 0 if whole else max(0, bits - MODELLED)
    finest = _WHOLE_PRECISION if bits - group > MODELLED else _PRECISION
    return Form(1 << (bits - group), min(finest, FINEST - group), group)


@numba.njit(cache=True, nogil=True)
def normalise(counts, precision):  # type: ignore[no-untyped-def]  # numba infers the types
    """Scale counts to sum to 2**precision, present ones to at least 1; empty when there are too many of them."""
    scale = np.int64(1) << precision
    total = counts.sum()
    shares = np.zeros(counts.size, np.int64)
    largest = 0
    for i in range(counts.size):
        if counts[i]:
            shares[i] = max(1, (counts[i] * scale + total // 2) // total)
            if shares[i] > shares[largest]:
                largest = i
    excess = shares.sum() - scale
    if shares[largest] <= 2 * excess:
        return shares[:0]
    shares[largest] -= excess
    return shares


def whole_pays(codes: AnyArray, bits: int) -> bool:
    """Whether models of all bits of `codes` are expected to be worth what they cost to learn."""
    if bits <= MODELLED:
        return False
    counts = count(codes, bits)
    sizes = []
    for whole in (False, True):
        model = form(bits, whole)
        shares = normalise(grouped(counts, model.group), model.precision)
        cost = Table(shares, model.precision, model.group).cost(counts) if shares.size else None
        if cost is None:
            return False
        sizes.append(cost + np.count_nonzero(shares) * int(codes.size).bit_length() // 2)
    floor = codes.size * (1 << bits) >> _WHOLE_PRECISION  # bits lost to a share of 1 for each code
    return bool(sizes[1] + 3 * floor // 2 < sizes[0])


@numba.njit(cache=True, nogil=True)
def ends(n, symbols):  # type: ignore[no-untyped-def]  # numba infers the types
    """Where the blocks of a stretch of `n` codes, n > 0, end, if models have so many symbols."""
    found = []
    done = 0
    while done < n:
        done = min(n, done + min(max(_FIRST, symbols >> 6, done >> _GROWTH), max(_LONGEST, symbols << 4)))
        found.append(done)
    return np.array(found)


def last_block(n: int, model: Form) -> int:
    """Codes in the last block of a stretch of `n` codes, n > 0."""
    found = ends(n, model.symbols)
    return int(found[-1] - (found[-2] if found.size > 1 else 0))


@numba.njit(cache=True, nogil=True)
def _reach(counts, total):  # type: ignore[no-untyped-def]  # numba infers the types
    """Half the width of the boxes that smooth a histogram."""
    below, lower, upper = np.int64(0), -1, 0
    for symbol in range(counts.size):
        below += counts[symbol]
        if lower < 0 and 4 * below >= total:
            lower = symbol
        if 4 * below >= 3 * total:
            upper = symbol
            break
    length = 0
    while total >> length:
        length += 1
    root = _ROOTS[length]
    return (_WIDTH * (upper - lower + 1) + root // 2) // root


@numba.njit(cache=True, nogil=True)
def _box(counts, reach, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Sums of `counts` over all symbols no further than `reach`."""
    inside = np.int64(0)
    for symbol in range(min(reach, counts.size)):
        inside += counts[symbol]
    for symbol in range(counts.size):
        if symbol + reach < counts.size:
            inside += counts[symbol + reach]
        if symbol > reach:
            inside -= counts[symbol - reach - 1]
        out[symbol] = inside


@numba.njit(cache=True, nogil=True)
def predict(counts, weights, precision, shares):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill the first rows of `shares` by the models of `weights`, for a block behind codes that were counted."""
    size, total = counts.size, counts.sum()
    reach = _reach(counts, total)
    once, smooth = np.empty(size, np.int64), np.empty(size, np.int64)
    _box(counts, reach, once)
    _box(once, reach, smooth)
    flat = max(np.int64(1), smooth.sum() // (total + 1))
    mass = (smooth.sum() + flat) * size
    for symbol in range(size):
        smooth[symbol] = ((smooth[symbol] * size + flat) << _POINT) // mass
    room = (np.int64(1) << precision) - size
    for model in range(len(weights)):
        each = (room << 40) // ((total + weights[model]) << _POINT)
        left, largest = room, 0
        for symbol in range(size):
            share = (((counts[symbol] << _POINT) + weights[model] * smooth[symbol]) * each) >> 40
            left -= share
            shares[model, symbol] = share + 1
            if shares[model, symbol] > shares[model, largest]:
                largest = symbol
        shares[model, largest] += left


@numba.njit(cache=True, nogil=True)
def _predict_all(counts, precision, shares):  # type: ignore[no-untyped-def]  # numba infers the types
    predict(counts[0], WEIGHTS, precision, shares)
    if counts[0].sum() == counts[1].sum():
        shares[len(WEIGHTS) :] = shares[: len(QUICK)]
    else:
        predict(counts[1], QUICK, precision, shares[len(WEIGHTS) :])


@numba.njit(cache=True, nogil=True)
def _learn_block(part, group, precision, shares, fresh, counts, past, logs):  # type: ignore[no-untyped-def]  # so
    """Count a block, and charge each model what it would have taken; returns that of the model that was chosen."""
    g = np.uint32(group)
    fresh[:] = 0
    if group:
        for code in part:
            fresh[0, code >> g] += 1
    else:
        kernels.count(part, fresh)
    for symbol in range(fresh.shape[1]):
        fresh[0, symbol] += fresh[1, symbol] + fresh[2, symbol] + fresh[3, symbol]
        counts[0, symbol] += fresh[0, symbol]
        counts[1, symbol] += fresh[0, symbol]
    if counts[0].sum() > LONG:
        counts[0] >>= 1
    while counts[1].sum() > SHORT:
        counts[1] >>= 1
    chosen, taken = np.argmin(past), np.int64(0)
    for model in range(past.size):
        cost = np.int64(0)
        for symbol in range(fresh.shape[1]):
            cost += fresh[0, symbol] * ((precision << POINT) - logs[shares[model, symbol]])
        past[model] += cost - (past[model] >> FADING)
        if model == chosen:
            taken = cost
    return taken


@numba.njit(cache=True, nogil=True)
def _fresh_memory(size):  # type: ignore[no-untyped-def]  # numba infers the types
    """(counts, shares, past) of the models of an alphabet of that size, at the start of a stretch."""
    models = len(WEIGHTS) + len(QUICK)
    return np.zeros((2, size), np.int64), np.empty((models, size), np.int64), np.zeros(models, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """The models of all blocks of a stretch."""

    form: Form
    shares: AnyArray
    """Shape (blocks, symbols)."""
    cost: int
    """Bits of all codes."""

    @property
    def last(self) -> Table:
        """The model of the last block."""
        return Table(self.shares[-1].astype(np.int64), self.form.precision, self.form.group)


@numba.njit(cache=True, nogil=True)
def _learn(codes, found, precision, group, chosen, logs):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill `chosen` with the shares of all blocks; bits of all codes, in fixed point."""
    size = chosen.shape[1]
    counts, shares, past = _fresh_memory(size)
    fresh = np.empty((4, size), np.int64)
    cost = np.int64(codes.size * group) << POINT
    first = 0
    for i in range(found.size):
        _predict_all(counts, precision, shares)
        chosen[i] = shares[np.argmin(past)]
        cost += _learn_block(codes[first : found[i]], group, precision, shares, fresh, counts, past, logs)
        first = found[i]
    return cost


def learn(codes: AnyArray, bits: int, whole: bool) -> Learnt:
    """The models of one stretch of codes of so many bits."""
    model = form(bits, whole)
    found = ends(codes.size, model.symbols)
    shares = np.empty((found.size, model.symbols), np.uint16)
    cost = _learn(codes, found, model.precision, model.group, shares, logs())
    return Learnt(model, shares, int(cost >> POINT) + 1)


@numba.njit(cache=True, nogil=True)
def _push(codes, start, stop, found, shares, precision, group, states, words, at):  # type: ignore[no-untyped-def]  # so
    table = np.empty(shares.shape[1], np.uint64)
    no_symbols, no_table = np.empty(0, np.uint8), np.empty(0, np.uint32)
    for i in range(found.size - 1, -1, -1):
        first, end = start, min(stop, start + found[i])
        if i:
            first += found[i - 1]
        kernels.tables(shares[i], table, no_symbols, no_table)
        if states.size == 1:
            at = kernels.push_one(codes, first, end, table, precision, group, states, words, at)
        else:
            at = kernels.push(codes, first, end, table, precision, group, states, words, at)
        if at < 0:
            return at
    return at


def push(
    codes: AnyArray, start: int, stop: int, end: int, learnt: Learnt, states: AnyArray, words: AnyArray, at: int
) -> int:
    """`tightwire.wire.rans_kernels.push` for the stretch codes[start:end], but for the end of its last block."""
    found = ends(end - start, learnt.form.symbols)
    model = (learnt.shares, learnt.form.precision, learnt.form.group)
    return int(_push(codes, start, stop, found, *model, states, words, at))


@numba.njit(cache=True, nogil=True)
def _pull(codes, start, stop, found, precision, group, states, words, at, last, symbols, table, logs):  # type: ignore[no-untyped-def]  # so
    size = last.size
    counts, shares, past = _fresh_memory(size)
    fresh = np.empty((4, size), np.int64)
    no_table = np.empty(0, np.uint64)
    first = start
    for i in range(found.size):
        end = min(stop, start + found[i])
        _predict_all(counts, precision, shares)
        last[:] = shares[np.argmin(past)]
        kernels.tables(last, no_table, symbols, table)
        if states.size == 1:
            at = kernels.pull_one(codes, first, end, symbols, table, precision, group, states, words, at)
        else:
            at = kernels.pull(codes, first, end, symbols, table, precision, group, states, words, at)
        if at < 0:
            return at
        _learn_block(codes[first:end], group, precision, shares, fresh, counts, past, logs)
        first = end
    return at


def pull(
    codes: AnyArray, model: Form, start: int, stop: int, end: int, states: AnyArray, words: AnyArray, at: int
) -> tuple[Table, tuple[AnyArray, AnyArray], int]:
    """`tightwire.wire.rans_kernels.pull` for the stretch codes[start:end], but for the end of its last block.

    Returns:
        The model of the last block, its tables, and the next `at`.
    """
    shares = np.empty(model.symbols, np.int64)
    symbols: AnyArray = np.empty(1 << model.precision, np.uint8 if model.symbols <= 256 else np.uint16)
    decoding = symbols, np.empty(model.symbols, np.uint32)
    made = (model.precision, model.group)
    found = ends(end - start, model.symbols)
    at = int(_pull(codes, start, stop, found, *made, states, words, at, shares, *decoding, logs()))
    return Table(shares, *made), decoding, at
