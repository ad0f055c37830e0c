"""Pure NumPy twins of the kernels of `hadamard` and `eden_kernels`; slow, plain, and equal bit for bit."""

import math

import numpy as np

from tightwire.arrays import Bytes8, Flat, Floats, Ints
from tightwire.codecs.eden_vectors import SUMS
from tightwire.codecs.hadamard import OF_BLOCK, SIGNS, STEPS, WORDS, keys, whole
from tightwire.codecs.hadamard_vectors import BLOCK, LARGEST, TILE, TWO_THIRDS
from tightwire.codecs.lloyd_max import LEVELS, thresholds
from tightwire.codecs.sixteen import LANES


def words(place: int, seed: int) -> Ints:
    """Random words of 32 bits, as many as a step may take."""
    k0, k1 = keys(seed)
    x = (np.arange(WORDS) + place * WORDS).astype(np.uint32) * np.uint32(0x9E3779B9) ^ k0
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD) ^ k1
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x735A2D97)
    return (x ^ (x >> np.uint32(15))).astype(np.int64)


def signs(n: int, drawn: Ints) -> Flat:
    """1 or -1 for each of `n` values."""
    at = np.arange(n)
    return np.where(drawn[at % SIGNS] >> (at // SIGNS) & 1, -1, 1).astype(np.float32)


def transform(values: Flat, first: int = 1, last: int = 0) -> Flat:
    """The twin of `tightwire.codecs.hadamard.transform`, out of place: butterflies `first` to half of `last` apart."""
    step = first
    while step < (last or values.size):
        pairs = values.reshape(-1, 2, step)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).ravel()
        step *= 2
    return values


def mix(values: Flat, rows: int) -> Flat:
    """Multiply by H, not normalised but for the reflection."""
    table = values.reshape(rows, -1)
    if rows == 3:
        table = table - (table[0] + table[1] + table[2]) * TWO_THIRDS
    return np.concatenate([transform(row) for row in table])


def reflect(values: Flat, drawn: Ints) -> Flat:
    """Reflect at the plane whose normal the words give."""
    normal = ((drawn & 255) + (drawn >> 8 & 255) + (drawn >> 16 & 255) + (drawn >> 24)).astype(np.float64) - 510
    exact = values.astype(np.float64)
    share = 2 * _in_order(normal * exact) / max(_in_order(normal * normal), 1.0)
    reflected: Flat = (exact - share * normal).astype(np.float32)
    return reflected


def _in_order(terms: Floats) -> float:
    return float(np.cumsum(np.append(0.0, terms))[-1])


def plan(n: int, thorough: bool) -> tuple[int, int, int, np.float32]:
    """Values of a step, rows that are reflected, steps, and the factor that makes a step orthonormal."""
    length = whole(n)
    rows = 1 if length & (length - 1) == 0 else 3
    if length < n:
        steps = 8 if thorough else 3
    elif not thorough:
        steps = 1
    elif rows == 3:
        steps = 5
    else:
        steps = 4 if n < TILE else 3
    return length, rows, steps, np.float32(1 / math.sqrt(length // rows))


def rotate(values: Flat, scale: np.float32, block: int, thorough: bool, seed: int) -> Flat:
    """The twin of `tightwire.codecs.hadamard.rotate`."""
    n = values.size
    if n == BLOCK:
        out = values * (scale * (OF_BLOCK * OF_BLOCK if thorough else OF_BLOCK)) * signs(n, words(block * STEPS, seed))
        out = transform(out)
        if thorough:
            out = transform(out * signs(n, words(block * STEPS, seed)[SIGNS:]), first=TILE)
            out = transform(out, last=TILE)
        return out
    out = values * scale
    length, rows, steps, factor = plan(n, thorough)
    for step in range(steps):
        part = slice((n - length) * (step & 1), (n - length) * (step & 1) + length)
        drawn = words(block * STEPS + step, seed)
        turned = values[part] * (factor * scale) if step == 0 else out[part] * factor
        turned = turned * signs(length, drawn)
        if thorough and n < TILE:
            turned = reflect(turned, drawn[length : 2 * length])
        out[part] = mix(turned, rows)
    return out


def unrotate(values: Flat, room: np.float32, scale: np.float32, block: int, thorough: bool, seed: int) -> Flat:
    """The twin of `tightwire.codecs.hadamard.unrotate`, out of place, and added to nothing."""
    n, out = values.size, values.copy()
    if n == BLOCK:
        if thorough:
            out = transform(transform(out, last=TILE), first=TILE) * signs(n, words(block * STEPS, seed)[SIGNS:])
        out = transform(transform(out, first=TILE), last=TILE)
        out = out * signs(n, words(block * STEPS, seed)) * (room * (OF_BLOCK * OF_BLOCK if thorough else OF_BLOCK))
    else:
        length, rows, steps, factor = plan(n, thorough)
        for step in reversed(range(steps)):
            part = slice((n - length) * (step & 1), (n - length) * (step & 1) + length)
            drawn = words(block * STEPS + step, seed)
            turned = mix(out[part], rows)
            if thorough and n < TILE:
                turned = reflect(turned, drawn[length : 2 * length])
            out[part] = turned * (factor if step else factor * room) * signs(length, drawn)
        out[length:] *= room
    with np.errstate(over="ignore"):
        limited: Flat = np.clip(out * scale, -LARGEST, LARGEST)
    return limited


def start(n: int, block: int, seed: int) -> int:
    """The twin of `tightwire.codecs.hadamard.start`."""
    return int(words(block * STEPS + STEPS - 1, seed)[0]) * n >> 32


def summed(terms: Flat) -> float:
    """A sum in 512 parts, of which halves are added up until 16 are left, in float32, and these in float64."""
    sums = np.zeros(SUMS, np.float32)
    for row in np.array_split(terms, range(SUMS, terms.size, SUMS)):
        sums[: row.size] += row
    while sums.size > LANES:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    return _in_order(sums.astype(np.float64))


def quantise(values: Flat, factor: np.float32, bits: int) -> tuple[Bytes8, float]:
    """The twin of `tightwire.codecs.eden_kernels.quantise`."""
    bits = min(bits, 8)  # there are no values for 9
    scaled = values * factor
    ranks = np.searchsorted(thresholds(bits), np.abs(scaled), side="right")
    codes = ranks | np.signbit(scaled).astype(np.int64) << (bits - 1)
    return codes.astype(np.uint8), summed(LEVELS[bits - 1][ranks] * np.abs(scaled))


def _squares(values: Flat) -> float:
    return _in_order(values.astype(np.float64) ** 2)


def centroids(codes: Bytes8, bits: int) -> Flat:
    """Levels of codes."""
    positive = LEVELS[min(bits, 8) - 1]  # there are no codes of 9 bits
    return np.concatenate([positive, -positive])[codes]


def encode_block(
    values: Flat, block: int, fine: int, bits: int, unbiased: bool, seed: int
) -> tuple[Bytes8, Bytes8, np.float32]:
    """The twin of one block of `tightwire.codecs.eden_kernels.encode`: codes, extra bits, and the scale."""
    n = values.size
    if not values.any():
        count = n if bits else fine
        return np.zeros(count, np.uint8), np.zeros(fine if bits else 0, np.uint8), np.float32(0)
    top = int(np.abs(values).max().view(np.uint32))
    exponent = min(max((top >> 23) - 127, -126), 126)
    unit = np.float32(math.ldexp(1.0, -exponent))
    norm = summed((values * unit) * (values * unit))
    rotated = rotate(values, unit, block, True, seed)
    factor = np.float32(math.sqrt(n / norm))
    kept = norm
    if bits == 0:
        rotated = np.roll(rotated, -start(n, block, seed))[:fine]
        kept = summed(rotated * rotated)
    codes, product = quantise(rotated[:fine], factor, bits + 1)
    weight = _squares(centroids(codes, bits + 1))
    extras = codes[:0]
    if bits:
        rest, more = quantise(rotated[fine:], factor, bits)
        codes, extras = np.concatenate([codes >> np.uint8(1), rest]), codes & np.uint8(1)
        product, weight = product + more, weight + _squares(centroids(rest, bits))
    product /= float(factor)
    if product <= 0:
        return codes, extras, np.float32(0)
    scale = kept / product * (1.0 if bits else n / fine) if unbiased else product / weight
    return codes, extras, np.float32(min(math.ldexp(scale, exponent), float(LARGEST)))


def decode_block(codes: Bytes8, extras: Bytes8, n: int, block: int, bits: int, scale: np.float32, seed: int) -> Flat:
    """The twin of one block of `tightwire.codecs.eden_kernels.decode`: `n` values."""
    fine = extras.size if bits else codes.size
    values = np.zeros(n, np.float32)
    if bits == 0:
        values[:fine] = centroids(codes, 1)
        values = np.roll(values, start(n, block, seed))
    else:
        values[:fine] = centroids(codes[:fine] << np.uint8(1) | extras, bits + 1)
        values[fine:] = centroids(codes[fine:], bits)
    return unrotate(values, np.float32(1), scale, block, True, seed)
