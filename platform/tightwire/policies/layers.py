"""Bits and density for each layer: the options worth having, the choice among them, and the codec line that says it.

The choice is the knapsack of `tightwire.policies.knapsack`. Working out the bytes of all options would take as long as
training a small model, so only those are offered to it that are best for some price of a byte: for prices that rise and
fall until the bytes meet the limit, each layer walks downhill in (error + price * bytes) over the grid of bits and
densities, as in the Lagrangian treatment of bit allocation (Shoham and Gersho 1988). On real updates of small networks
the error that is found is 0 to 1.4 % above that of the knapsack over the whole grid, most often equal to it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from tightwire.arrays import Floats, Ints
from tightwire.policies.knapsack import cheapest
from tightwire.policies.levels import TABLES
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.predict import Known, Point, code_bytes, columns, known_of, widths_of
from tightwire.policies.stats import UpdateStats
from tightwire.policies.sweep import errors, opened
from tightwire.wire.frame import MAX_LINE, envelope_length
from tightwire.wire.schema import Schema

_NAMED = re.compile(r"[^\s|;:(),=*?\[\]]+", re.ASCII)
"""Names that a rule can give a chain to, and to nothing else."""
_PRICES = 7
"""Prices that are tried once the right one lies between two."""


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """How a schema's compressed tensors are told apart in a codec line."""

    known: Known
    names: tuple[str, ...]
    """Of each layer; the first is that of the default chain and has the empty name."""
    layer: Ints
    """Which layer each compressed tensor belongs to, shape (compressed tensors,)."""
    fixed: Floats
    """Bytes of each layer but its codes: its words in the line, scales, indices; shape (layers, bits, densities)."""
    share: int
    """Bytes of a frame that belong to no layer."""
    of: tuple[int, ...]
    """`layer`, as Python likes it."""
    values: int
    """Of all compressed tensors together."""


@dataclass(frozen=True, slots=True)
class Layered:
    """A codec line with rules, and what is predicted for it."""

    line: str
    bits: float
    """Mean over the kept values."""
    density: float
    """Kept share of the values that are compressed."""
    bytes: float
    error: float


def layered(
    stats: UpdateStats,
    bits: Sequence[int],
    densities: Sequence[float],
    entropy: Entropy,
    limit: float,
    start: Point,
) -> Layered | None:
    """The line that gives each layer its own bits and density, of small error, in a frame of at most `limit` bytes.

    Args:
        stats: Of the vector that would be encoded.
        bits: Bit widths, 1 to 16, rising.
        densities: Kept fractions in (0, 1], rising.
        entropy: The entropy coder.
        limit: In bytes.
        start: The best choice with one chain for all.

    Returns:
        None where there is one layer only, or none of the options is short enough.
    """
    layers = layers_of(stats.schema, tuple(bits), tuple(densities), entropy, stats.tag)
    if len(layers.names) < 2:
        return None
    known, widths = layers.known, widths_of(tuple(bits))
    room = limit - layers.share
    options = entropy == "rans", densities[-1] == 1, room
    first = start.row, start.column, max(start.error, 1e-300) / limit
    choice, coded, lost = _chosen(
        known.tensors, widths, known.kept, layers.fixed, layers.layer, *options, *first, *columns(stats), TABLES,
    )  # fmt: skip
    if choice[0] < 0:
        return None
    picks = [divmod(option, known.kept.shape[1]) for option in choice.tolist()]
    chains = [quantised(bits[row], densities[point], entropy) for row, point in picks]
    rules = [f"{name}: {chain}" for name, chain in zip(layers.names[1:], chains[1:], strict=True) if chain != chains[0]]
    line = "; ".join((chains[0], *rules))
    tensors = [picks[layer] for layer in layers.of]
    kept = [known.kept.item(at, point) for at, (_, point) in enumerate(tensors)]
    part = [known.part.item(at, point) for at, (_, point) in enumerate(tensors)]
    return Layered(
        line=line,
        bits=sum(k * bits[row] for k, (row, _) in zip(kept, tensors, strict=True)) / sum(kept),
        density=sum(kept) / layers.values,
        bytes=float(coded.sum()) + float(np.add.reduce(part)) + known.plain + envelope_length(line.replace(" ", "")),
        error=float(lost.sum()),
    )


@lru_cache(maxsize=64)
def layers_of(
    schema: Schema, bits: tuple[int, ...], densities: tuple[float, ...], entropy: Entropy, tag: int = 0
) -> Layers:
    """How tensors are told apart; arguments as `layered`, and `UpdateStats.tag`.

    The default chain is for all tensors that no rule can name, or else for the largest. Where rules for all others
    might make a line longer than a frame takes, the smallest tensors go to the default chain as well.
    """
    known = known_of(schema, bits, densities, entropy, tag)
    tensors = [tensor for tensor in schema.tensors if tensor.size]
    members = [tensors[at] for at in known.tensors]
    words = np.array([[len(quantised(b, d, entropy).replace(" ", "")) for d in densities] for b in bits], np.int64)
    named = [bool(_NAMED.fullmatch(tensor.name)) for tensor in members]
    if members and all(named):
        named[max(range(len(members)), key=lambda at: members[at].size)] = False
    longest, length = int(words.max()), int(words.max())
    for at in sorted(range(len(members)), key=lambda at: -members[at].size):
        length += (len(members[at].name) + 2 + longest) * named[at]
        named[at] = named[at] and length <= MAX_LINE
    names = ("", *(tensor.name for tensor, own in zip(members, named, strict=True) if own))
    layer = np.array([names.index(tensor.name) if own else 0 for tensor, own in zip(members, named, strict=True)])
    layer = layer.astype(np.int64)
    fixed = np.array([words + (len(name) + 2 if name else 0) for name in names], np.float64)
    np.add.at(fixed, layer, known.part[:, None, :])
    values = sum(tensor.size for tensor in members)
    return Layers(known, names, layer, fixed, envelope_length("") + known.plain, tuple(layer.tolist()), values)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _offers(  # type: ignore[no-untyped-def]  # numba infers them
    tensors, bits, kept, fixed, layer, rans, dense, room, row, point, price,
    starts, cells, counts, sums, squares, low, high, table,
):  # fmt: skip
    """Bytes of the layers' options, infinity where they are not worked out, and errors; both like `fixed`.

    All layers start from `row` and `point`, and `price` is the error that a byte is worth at first. `dense` says
    whether the last density is 1, where indices fall away: a valley of its own, which is looked at in full.
    """
    layers, rows, points = fixed.shape
    parts = opened(tensors, kept, starts, cells, counts, sums, squares, low, high)
    levels, doubled = np.empty(1 << bits[rows - 1]), np.empty(1 << bits[rows - 1])
    error, cost = np.zeros(fixed.shape), np.full(fixed.shape, np.inf)
    floor = fixed.copy()  # options cost so much at least
    valley = dense and points > 1
    inner = points - 1 if valley else points
    known, known_last = np.zeros((layers, rows), np.bool_), np.zeros((layers, rows), np.bool_)  # whose errors are there
    at_row, at_point = np.full(layers, row), np.full(layers, min(point, inner - 1))
    least, most = 0.0, np.inf  # prices known to be too low and high enough
    tries = 0
    while tries < _PRICES and 1e-300 < price < 1e300:
        total = 0.0
        for own in range(layers):
            best, bytes_at_best = np.inf, 0.0
            last_row, last_point = -1, -1
            while True:
                moved = last_row != at_row[own] or last_point != at_point[own]
                last_row, last_point = at_row[own], at_point[own]
                first_row, stop_row = max(last_row - 1, 0), min(last_row + 2, rows)
                first, stop = max(last_point - 2, 0), min(last_point + 3, inner)
                if not moved:
                    first_row, stop_row, first, stop = 0, rows, points - 1, points
                for r in range(first_row, stop_row):
                    apart = valley and not moved
                    if not (known_last if apart else known)[own, r]:
                        (known_last if apart else known)[own, r] = True
                        for at in range(len(layer)):
                            if layer[at] == own:
                                part, cut = parts[at]
                                errors(part, cut, bits[r], inner if apart else 0, inner, apart, error[own, r])
                    for p in range(first, stop):
                        if error[own, r, p] + price * floor[own, r, p] >= best:
                            continue
                        if cost[own, r, p] == np.inf:
                            width = bits[r]
                            coded = 0.0
                            for at in range(len(layer)):
                                if layer[at] == own:
                                    part, cut = parts[at]
                                    few, twice = levels[: 1 << width], doubled[: 1 << width]
                                    coded += code_bytes(rans, width, kept[at, p], p, part, cut, few, twice, table)
                            cost[own, r, p] = fixed[own, r, p] + coded
                            for finer in range(r, rows):
                                for denser in range(p, points):
                                    bound = fixed[own, finer, denser] + coded
                                    floor[own, finer, denser] = max(floor[own, finer, denser], bound)
                        value = error[own, r, p] + price * cost[own, r, p]
                        if value < best:
                            best, bytes_at_best = value, cost[own, r, p]
                            if moved:
                                at_row[own], at_point[own] = r, p
                if not moved:
                    break
            total += bytes_at_best
        if total > room:
            least = price
        else:
            most = price
        if least == 0:
            price /= 4
        elif most == np.inf:
            price *= 4
        else:
            price = math.sqrt(least) * math.sqrt(most)
            tries += 1
    return cost, error


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _chosen(  # type: ignore[no-untyped-def]  # numba infers them
    tensors, bits, kept, fixed, layer, rans, dense, room, row, point, price,
    starts, cells, counts, sums, squares, low, high, table,
):  # fmt: skip
    """The option of each layer, flat over (bits, densities) and -1 for none, the bytes of its codes, and its error."""
    costs, error = _offers(
        tensors, bits, kept, fixed, layer, rans, dense, room, row, point, price,
        starts, cells, counts, sums, squares, low, high, table,
    )  # fmt: skip
    layers, rows, points = fixed.shape
    choice = cheapest(costs.reshape(layers, rows * points), error.reshape(layers, rows * points), room)
    coded, lost = np.zeros(layers), np.zeros(layers)
    for own in range(layers):
        if choice[own] >= 0:
            at = own, choice[own] // points, choice[own] % points
            coded[own], lost[own] = costs[at] - fixed[at], error[at]
    return choice, coded, lost
