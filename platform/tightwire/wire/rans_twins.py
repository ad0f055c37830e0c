"""Plain twins of the entropy coder's compiled loops, over Python's integers; slow, obvious, and equal bit for bit."""

import itertools

import numpy as np

from tightwire.arrays import AnyArray, Ints
from tightwire.wire.rans_adaptive import FADING, LONG, QUICK, SHORT, WEIGHTS, Form
from tightwire.wire.rans_tables import COARSEST, FINEST, FINEST_SHARES, LOSS, POINT, Table


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
    """The twin of `tightwire.wire.rans_tables.normalise`."""
    total, scale = int(counts.sum()), 1 << precision
    shares = np.where(counts > 0, np.maximum(1, (counts * scale + total // 2) // total), 0)
    excess = int(shares.sum()) - scale
    if shares.max() <= 2 * excess:
        return shares[:0]
    shares[shares.argmax()] -= excess
    result: Ints = shares
    return result


def counts_bits(shares: Ints) -> str:
    """The counts of a table in exponential Golomb codes, bits in their order."""
    bits, previous = "", 0
    for share in shares.tolist():
        step = share - previous
        value = 2 * step if step >= 0 else -2 * step - 1
        order = max(previous.bit_length() - 2, 0)
        upper = (value >> order) + 1
        length = upper.bit_length() - 1
        bits += "0" * length + "1" + f"{upper:b}"[:0:-1] + f"{value % (1 << order) | 1 << order:b}"[:0:-1]
        previous = share
    return bits


def pack(table: Table) -> bytes:
    """The twin of `tightwire.wire.rans_tables.Table.pack`."""
    bits = np.array([int(bit) for bit in counts_bits(table.shares)], np.uint8)
    return bytes([table.group << 4 | table.precision - COARSEST + 1]) + np.packbits(bits, bitorder="little").tobytes()


def best(counts: Ints, bits: int) -> tuple[int, int]:
    """The twin of the search of `tightwire.wire.rans_tables.Table.best`: (group, precision)."""
    useful = max(COARSEST, int(counts.sum()).bit_length() + 1)
    sizes = {}
    for group, precision in itertools.product(range(bits), range(COARSEST, FINEST_SHARES + 1)):
        grouped = counts.reshape(-1, 1 << group).sum(axis=1)
        if precision > min(FINEST - group, useful) or not normalise(grouped, precision).size:
            continue
        shares = normalise(grouped, precision)
        pairs = zip(grouped.tolist(), shares.tolist(), strict=True)
        size = sum(many * ((precision + group << POINT) - log2(share)) for many, share in pairs if many)
        size += size >> LOSS + 2 * (FINEST - precision - group)
        sizes[group, precision] = size + (len(counts_bits(shares)) << POINT)
    return min(sizes, key=lambda chosen: sizes[chosen])


def push(codes: AnyArray, start: int, stop: int, table: Table, states: list[int], words: list[int]) -> None:
    """The twin of `tightwire.wire.rans_kernels.push` and `push_one`; `words` grow at their begin."""
    before = np.cumsum(table.shares) - table.shares
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
    ends = np.cumsum(table.shares)
    for i in range(start, stop):
        x, low = divmod(states[i % len(states)], 1 << table.group)
        slot = x % (1 << table.precision)
        symbol = int(np.searchsorted(ends, slot, "right"))
        share = int(table.shares[symbol])
        codes[i] = symbol << table.group | low
        x = share * (x >> table.precision) + slot - (int(ends[symbol]) - share)
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
