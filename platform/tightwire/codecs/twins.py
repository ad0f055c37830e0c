"""Pure NumPy twins of the compiled kernels of this room; slow, plain, and equal bit for bit."""

import numpy as np

from tightwire.arrays import Bytes8, Flat, Floats, Ints
from tightwire.codecs import sums
from tightwire.codecs.affine import Affine
from tightwire.wire import twins
from tightwire.wire.packing import Codes


def extremes(values: Flat) -> tuple[np.float32, np.float32]:
    """The twin of `tightwire.codecs.kernels.extremes`, for values without NaN; -0 orders before 0."""
    order = np.lexsort((~np.signbit(values), values))
    return values[order[0]], values[order[-1]]


def noise(n: int, key: int) -> Ints:
    """The twin of `tightwire.codecs.kernels.noise` for the values 0 to n - 1."""
    x = np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) ^ np.uint32(key & 0xFFFFFFFF)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD) ^ np.uint32(key >> 32)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x735A2D97)
    return ((x ^ (x >> np.uint32(15))) >> np.uint32(8)).astype(np.int64)


def grids(low: Flat, high: Flat, steps: int, middle: float, stretch: float) -> tuple[Floats, bool]:
    """The twin of `tightwire.codecs.affine_kernels.grids`."""
    start, end = low.astype(np.float64), high.astype(np.float64)
    step = (end - start) / steps
    inverse = np.where(end > start, steps / np.where(end > start, end - start, 1) * stretch, 0)
    plain = (np.maximum(abs(start), abs(end)) < 2.0**125) & ((step == 0) | (step >= 2.0**-100))
    return np.stack([start, inverse, start + middle * step, step]), bool(plain.all())


def quantise(values: Flat, affine: Affine, *, key: int | None = None, shift: float = 0.5) -> Bytes8:
    """The twin of `tightwire.codecs.affine.quantise`, where nothing overflows."""
    real = affine.low.dtype.type
    group = np.arange(values.size) // affine.length
    x = (values - affine.low[group]) * affine.inverse[group]
    ends = real(-affine.zero), real(affine.top - affine.zero)
    if key is None:
        codes = np.floor(np.clip(x + real(shift), *ends)).astype(np.int32)
    else:
        x = np.clip(x, *ends)
        draws = noise(values.size, key).astype(np.float32) * real(2.0**-24)
        codes = np.floor(x).astype(np.int32) + (draws < x - np.floor(x))
    return twins.pack((codes + affine.zero).astype(np.uint32), affine.bits)


def moments(values: Flat, length: int, low: Flat, inverse: Flat, least: int, most: int) -> Floats:
    """The twin of `tightwire.codecs.sums.moments`."""
    rows = []
    for group, start in enumerate(range(0, values.size, length)):
        part = values[start : start + length]
        half = low.dtype.type(0.5)
        k = np.floor(np.clip((part - low[group]) * inverse[group] + half, least, most)).astype(np.float64)
        x = part.astype(np.float64) - np.float64(low[group])
        rows.append([ordered_sum(terms) for terms in (x, k, x * k, k * k)])
    return np.array(rows)


def quantise_sign(values: Flat) -> Bytes8:
    """The twin of `tightwire.codecs.affine_kernels.quantise_sign`."""
    return twins.pack((values >= 0).astype(np.uint32), 1)


def restore(data: Bytes8, n: int, affine: Affine) -> Flat:
    """The twin of `tightwire.codecs.affine.restore` for `n` codes, without a weight."""
    codes: Codes = twins.unpack(data, n, affine.bits)
    group = np.arange(n) // affine.length
    if affine.unit is None:
        values = affine.base[group] + codes.astype(np.float32) * affine.step[group]
    else:
        values = (codes.astype(np.int32) - affine.zero).astype(np.float32) * affine.unit * affine.step[group]
    return values.astype(np.float32)


def ordered_sum(terms: Floats) -> float:
    """The sum of one group's terms in the order that `tightwire.codecs.sums` describes."""
    total = 0.0
    for start in range(0, terms.size, sums.BLOCK):
        block = terms[start : start + sums.BLOCK]
        lanes = np.zeros(sums.LANES)
        for row in np.pad(block, (0, -block.size % sums.LANES)).reshape(-1, sums.LANES):
            lanes = lanes + row
        while lanes.size > 1:
            lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
        total += lanes[0]
    return total
