"""Pure NumPy twins of the compiled loops of k-means; slow, plain, and equal bit for bit."""

import math
from itertools import pairwise

import numpy as np

from tightwire.arrays import Flat, Floats, Ints
from tightwire.codecs import lloyd_kernels as kernels
from tightwire.codecs import twins


def sample(values: Flat, size: int) -> Flat:
    """The twin of `tightwire.codecs.lloyd_kernels.sample`."""
    edges = np.arange(size + 1) * values.size // size
    found: Flat = values[edges[:-1] + (twins.noise(size, 0) * np.diff(edges) >> 24)]
    return found


def outside(values: Flat, low: float, high: float, room: int) -> Flat:
    """The twin of `tightwire.codecs.lloyd_kernels.outside`."""
    return values[(values < low) | (values > high)][:room]


def cube_root(x: float) -> float:
    """The twin of `tightwire.codecs.lloyd_kernels.cube_root`."""
    mantissa, exponent = math.frexp(x)
    third, rest = divmod(exponent, 3)
    return math.ldexp((0.586 + 0.42 * mantissa) * (1.0, 1.26, 1.587)[rest], third) if x else 0.0


def spread(points: Flat, weights: Floats, k: int) -> Floats:
    """The twin of the loop that places the first centroids."""
    last, stride, outer = points.size - 1, max(1, points.size // (32 * k)), kernels.OUTER
    ends = [0]
    while ends[-1] < last:
        inner = outer <= ends[-1] and ends[-1] + stride + outer <= last
        ends.append(ends[-1] + (stride if inner else 1))
    exact = points.astype(np.float64)
    gaps, masses = np.diff(exact[ends]), weights[ends[:-1]] * np.diff(ends)
    roots = [cube_root(gap) for gap in gaps * gaps * masses]
    reached = np.concatenate([[0.0], np.cumsum(roots)])
    wanted = reached[-1] * (np.arange(k) + 0.5) / k
    cell = np.minimum(np.searchsorted(reached[1:], wanted), len(ends) - 2)
    widths = reached[cell + 1] - reached[cell]
    part = np.divide(wanted - reached[cell], widths, out=np.zeros(k), where=widths > 0)
    start, end = exact[np.array(ends)[cell]], exact[np.array(ends)[cell + 1]]
    placed: Floats = start + (end - start) * part
    return placed


def lloyd(points: Flat, weights: Floats, k: int) -> Flat:
    """The twin of `tightwire.codecs.lloyd_kernels.lloyd`: the table."""
    different = np.unique(points) + np.float32(0)
    if different.size <= k:
        return different
    exact = points.astype(np.float64)
    centroids = spread(points, weights, k)
    terms = np.stack([weights, weights * exact, weights * exact * exact])
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum(terms, axis=1)], axis=1)
    ends = np.arange(k + 1) * points.size // k
    for _ in range(kernels.ROUNDS):
        before = ends
        inner = np.searchsorted(exact, (centroids[:-1] + centroids[1:]) * 0.5, side="right")
        ends = np.concatenate([[0], inner, [points.size]])
        full = bool((np.diff(ends) > 0).all())
        if not full:
            ends = refilled(exact, sums, ends)
        used = ends[1:] > ends[:-1]
        first, last = ends[:-1][used], ends[1:][used]
        mass, moment, _ = sums[:, last] - sums[:, first]
        centroids = np.full(k, exact[-1])
        centroids[used] = np.minimum(np.maximum(moment / mass, exact[first]), exact[last - 1])
        if full and (ends == before).all():
            break
    cells = [slice(first, last) for first, last in pairwise(ends) if last > first]
    found = [np.cumsum(weights[cell] * exact[cell])[-1] / np.cumsum(weights[cell])[-1] for cell in cells]
    table: Flat = np.unique(np.array(found).astype(np.float32)) + np.float32(0)
    return table


def refilled(exact: Floats, sums: Floats, ends: Ints) -> Ints:
    """The twin of the loop that cuts cells in two for each empty one."""
    k, edges = ends.size - 1, np.unique(ends).tolist()
    while len(edges) <= k:
        mass, moment, square = sums[:, edges[1:]] - sums[:, edges[:-1]]
        errors = square - moment * moment / mass
        worst = int(np.argmax(errors))
        middle = int(np.searchsorted(exact, moment[worst] / mass[worst], side="right"))
        if not (errors[worst] > 0 and edges[worst] < middle < edges[worst + 1]):
            break
        edges.insert(worst + 1, middle)
    return np.array(edges + [exact.size] * (k + 1 - len(edges)))


def assign(values: Flat, length: int, starts: Ints, thresholds: Flat) -> Ints:
    """The twin of `tightwire.codecs.kmeans_kernels.assign`, not packed."""
    codes = np.empty(values.size, np.int64)
    for group in range(math.ceil(values.size / length)):
        place = slice(group * length, (group + 1) * length)
        codes[place] = np.searchsorted(thresholds[starts[group] : starts[group + 1] - 1], values[place])
    return codes


def look_up(codes: Ints, length: int, starts: Ints, tables: Flat) -> Flat:
    """The twin of `tightwire.codecs.kmeans_kernels.look_up`, for codes that are in their tables."""
    values: Flat = tables[starts[np.arange(codes.size) // length] + codes]
    return values
