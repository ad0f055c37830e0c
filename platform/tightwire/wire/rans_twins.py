"""Plain twins of the entropy coder's compiled loops, over Python's integers; slow, obvious, and equal bit for bit."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from tightwire.arrays import AnyArray, Ints
from tightwire.wire.rans_adaptive import FADING, LONG, QUICK, SHORT, WEIGHTS, Form
from tightwire.wire.rans_tables import FINENESS, FINEST, FINEST_POINT, LOSS, POINT, SPAN, Table, scale


def log2(value: int) -> int:
    """An entry of `tightwire.wire.rans_tables.logs`: bits of log2 come out one by one as the number is squared."""
    whole = value.bit_length() - 1
    x = (value << 30) >> whole
    result = whole
    for _ in range(POINT):
        x = (x * x) >> 30
        result = 2 * result + (x >> 31)
        x >>= x >> 31
    return result


def normalise(counts: Ints, precision: int) -> Ints:
    """The twin of `tightwire.wire.rans_adaptive.normalise`."""
    total, scale = int(counts.sum()), 1 << precision
    shares = np.where(counts > 0, np.maximum(1, (counts * scale + total // 2) // total), 0)
    excess = int(shares.sum()) - scale
    if shares.max() <= 2 * excess:
        return shares[:0]
    shares[shares.argmax()] -= excess
    result: Ints = shares
    return result


def roots_of(counts: Ints, largest: int, point: int) -> list[int]:
    """The twin of `tightwire.wire.rans_tables.roots_of`."""
    total = int(counts.sum())
    doubled = [math.isqrt((count << 2 * point + 2) // total) for count in np.delete(counts, largest).tolist()]
    present = np.delete(counts, largest) > 0
    return [max(1, (root + 1) // 2) if there else 0 for root, there in zip(doubled, present, strict=True)]


def shares_of(roots: list[int], largest: int, point: int, precision: int) -> list[int]:
    """The twin of `tightwire.wire.rans_tables.shares_of`."""
    unit = 4**point >> precision
    shares = [max(1, (root * root + unit // 2) // unit) if root else 0 for root in roots]
    shares.insert(largest, (1 << precision) - sum(shares))
    return shares if shares[largest] > 0 else []


def golomb(value: int, order: int) -> str:
    """A number in an exponential Golomb code, bits in their order."""
    upper = (value >> order) + 1
    return "0" * (upper.bit_length() - 1) + "1" + f"{upper:b}"[:0:-1] + f"{value % (1 << order) | 1 << order:b}"[:0:-1]


def roots_bits(roots: list[int]) -> str:
    """The twin of `tightwire.wire.rans_tables.write_roots`: bits in their order."""

    def numbers() -> Iterator[tuple[int, bool]]:
        """The numbers, and whether each is a root."""
        previous, differs, left = 0, 0, len(roots)
        for root, run in itertools.groupby(roots):
            often = len(list(run))
            while often:
                jump = 2 * (root - previous) if root >= previous else 2 * (previous - root) - 1
                yield (jump if root <= 2 * previous else root) - differs, True
                often, left, differs = often - 1, left - 1, 0
                if left and root in (0, previous):
                    yield often, False
                    left, often, differs = left - often, 0, 1
                previous = root

    bits, order = "", 0
    for value, is_root in numbers():
        bits += golomb(value, order if is_root else 0)
        if is_root:
            order += 1 if value >= 3 << order else -1 if order and value < 1 << order else 0
    return bits


def best(counts: Ints, bits: int) -> bytes:
    """The twin of `tightwire.wire.rans_tables.Table.best`: the table's bytes."""
    useful = min((int(counts.sum()).bit_length() - 1) // 2, FINEST_POINT)
    found: list[tuple[int, bytes]] = []
    for group, fineness in itertools.product(range(bits), range(1, FINENESS + 1)):
        point, precision = scale(fineness, group)
        grouped = counts.reshape(-1, 1 << group).sum(axis=1)
        largest = int(grouped.argmax())
        roots = roots_of(grouped, largest, point)
        shares = shares_of(roots, largest, point, precision)
        if not useful - SPAN <= point <= max(useful, 1) or not shares:
            continue
        pairs = zip(grouped.tolist(), shares, strict=True)
        size = sum(many * ((precision + group << POINT) - log2(share)) for many, share in pairs if many)
        size += size >> LOSS + 2 * (FINEST - precision - group)
        written = f"{largest | 1 << bits - group:b}"[:0:-1] + roots_bits(roots)
        data = np.packbits(np.array([int(bit) for bit in written], np.uint8), bitorder="little")
        found.append((size + (len(written) << POINT), bytes([group << 4 | fineness]) + data.tobytes()))
    return min(found, key=lambda entry: entry[0])[1]


def starts(shares: Ints) -> Ints:
    """The sums of the shares before each; the largest is the first."""
    order = np.argsort(np.arange(shares.size) != shares.argmax(), kind="stable")
    result = np.empty_like(shares)
    result[order] = np.cumsum(shares[order]) - shares[order]
    return result


def push(codes: AnyArray, start: int, stop: int, table: Table, states: list[int], words: list[int]) -> None:
    """The twin of `tightwire.wire.rans_kernels.push` and `push_one`; `words` grow at their begin."""
    before = starts(table.shares)
    for i in reversed(range(start, stop)):
        symbol, low = divmod(int(codes[i]), 1 << table.group)
        share, x = int(table.shares[symbol]), states[i % len(states)]
        if x >= share << 32 - table.precision - table.group:
            words.insert(0, x & 0xFFFF)
            x >>= 16
        x = (x // share << table.precision) + x % share + int(before[symbol])
        states[i % len(states)] = x << table.group | low


def pull(codes: AnyArray, start: int, stop: int, table: Table, states: list[int], words: list[int]) -> None:
    """The twin of `tightwire.wire.rans_kernels.pull` and `pull_one`; `words` are used up from their begin."""
    before = starts(table.shares)
    symbols = sorted(np.flatnonzero(table.shares).tolist(), key=lambda symbol: int(before[symbol]))
    places = before[symbols]
    for i in range(start, stop):
        x, low = divmod(states[i % len(states)], 1 << table.group)
        slot = x % (1 << table.precision)
        symbol = symbols[int(np.searchsorted(places, slot, "right")) - 1]
        share = int(table.shares[symbol])
        codes[i] = symbol << table.group | low
        x = share * (x >> table.precision) + slot - int(before[symbol])
        if x < 1 << 16 and words:
            x = x << 16 | words.pop(0)
        states[i % len(states)] = x


def predict(counts: Ints, weights: tuple[int, ...], precision: int) -> Ints:
    """The twin of `tightwire.wire.rans_adaptive.predict`: shape (weights, symbols)."""
    size, total = counts.size, int(counts.sum())
    below = 4 * np.cumsum(counts)
    spread = int(np.argmax(below >= 3 * total)) - int(np.argmax(below >= total))
    root = round(16 * 2 ** (total.bit_length() / 5))
    reach = (16 * (spread + 1) + root // 2) // root
    smooth = counts
    for _ in range(2):
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(smooth)])
        places = np.arange(size)
        smooth = sums[np.minimum(places + reach + 1, size)] - sums[np.maximum(places - reach, 0)]
    flat = max(1, int(smooth.sum()) // (total + 1))
    smooth = ((smooth * size + flat) << 16) // ((int(smooth.sum()) + flat) * size)
    room = (1 << precision) - size
    shares = np.zeros((len(weights), size), np.int64)
    for row, weight in zip(shares, weights, strict=True):
        each = (room << 40) // ((total + weight) << 16)
        row[:] = (((counts << 16) + weight * smooth) * each >> 40) + 1
        row[row.argmax()] += (1 << precision) - row.sum()
    return shares


def learn(codes: AnyArray, form: Form) -> tuple[Ints, list[int]]:
    """The twin of `tightwire.wire.rans_adaptive.learn`: the shares of each block, and where blocks end."""
    size, precision, group = form.symbols, form.precision, form.group
    long, short = np.zeros(size, np.int64), np.zeros(size, np.int64)
    past = [0] * (len(WEIGHTS) + len(QUICK))
    chosen, ends = [], [0]
    while ends[-1] < codes.size:
        done = ends[-1]
        ends.append(min(codes.size, done + min(max(4, size // 64, done // 8), max(4096, 16 * size))))
        shares = np.concatenate([predict(long, WEIGHTS, precision), predict(short, QUICK, precision)])
        chosen.append(shares[past.index(min(past))])
        fresh = np.bincount(codes[done : ends[-1]] >> group, minlength=size)
        for model, row in enumerate(shares.tolist()):
            pairs = zip(fresh.tolist(), row, strict=True)
            cost = sum(many * ((precision << POINT) - log2(share)) for many, share in pairs)
            past[model] += cost - (past[model] >> FADING)
        long, short = long + fresh, short + fresh
        if long.sum() > LONG:
            long = long >> 1
        while short.sum() > SHORT:
            short = short >> 1
    return np.array(chosen), ends[1:]
