"""What flows between the stages of a chain on a device: as in `tightwire.codecs.stage`, but tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tightwire.arrays import AnyArray, Flat, Floats
from tightwire.codecs.stage import Layout, Plane
from tightwire.codecs.sums import BLOCK, LANES, Groups, deviations_of
from tightwire.tensors.grids import column, rows, scaled

FOLD = 0x7FFFFFFF


def _keys(raw: Tensor) -> Tensor:
    """Integers that order as the floats with bits `raw`, or the way back."""
    return (raw >> 31).bitwise_and_(FOLD).bitwise_xor_(raw)


def _host(tensor: Tensor) -> AnyArray:
    array: AnyArray = tensor.cpu().numpy()
    return array


def _extremes(values: Tensor, length: int) -> Flat:
    ends = [torch.stack(part.aminmax(dim=1), dim=1) for _, part in rows(_keys(values.view(torch.int32)), length)]
    both: Flat = _host(_keys(torch.cat(ends))).view(np.float32)
    return both


@dataclass(frozen=True)
class TensorPlane:
    """Values on their way through a chain, on a device."""

    layout: Layout
    data: Tensor
    """As `Plane.data`."""

    @cached_property
    def extremes(self) -> tuple[np.float32, np.float32]:
        """As `Plane.extremes`."""
        ((low, high),) = _extremes(self.data, self.layout.count)
        return low, high

    def to_host(self) -> Plane:
        """The same plane in the host's memory."""
        return Plane(self.layout, _host(self.data))


@dataclass(frozen=True, slots=True)
class TensorTarget:
    """Where decoded reals go, as `tightwire.codecs.stage.Target`."""

    memory: Tensor
    """Shape (n,), contiguous."""
    weight: float | None = None
    """A float32."""

    def put(self, values: Tensor) -> None:
        """Deliver `values`, shape (n,)."""
        if self.weight is None:
            self.memory.copy_(values)
        else:
            self.memory.add_(values * self.weight)


TensorUndo = Callable[[TensorPlane, TensorTarget | None], TensorPlane]
"""As `tightwire.codecs.stage.Undo`."""


def _ordered(terms: Tensor, length: int) -> Floats:
    """Sums of groups of `length` float64 terms, shape (groups,), in the order of `tightwire.codecs.sums`."""
    return np.concatenate([_sum(part) for _, part in rows(terms, length)])


def _sum(terms: Tensor) -> Floats:
    """Sums of all rows of `terms`."""
    groups, length = terms.shape
    edge = length // BLOCK * BLOCK
    sums = []
    if edge:
        sums.append(_folded(terms[:, :edge].reshape(groups, -1, BLOCK // LANES, LANES)))
    if length > edge:
        rest = torch.nn.functional.pad(terms[:, edge:], (0, -length % LANES))
        sums.append(_folded(rest.view(groups, 1, -1, LANES)))
    blocks: Floats = _host(torch.cat(sums, dim=1))
    return np.add.accumulate(blocks, axis=1)[:, -1]  # one after another, as np.sum does not


def _folded(blocks: Tensor) -> Tensor:
    """Sums of blocks, shape (groups, blocks, rows, 32), to (groups, blocks): rows in order, then lanes by halves."""
    lanes = torch.zeros_like(blocks[:, :, 0])
    for row in range(blocks.shape[2]):
        lanes += blocks[:, :, row]
    while lanes.shape[2] > 1:
        width = lanes.shape[2] // 2
        lanes = lanes[:, :, :width] + lanes[:, :, width:]
    return lanes[:, :, 0]


@dataclass(frozen=True)
class TensorGroups(Groups):
    """Groups of a plane of reals on a device; one number a block of 8192 values crosses to the host."""

    plane: TensorPlane

    @property
    def _values(self) -> Tensor:
        return self.plane.data.to(torch.float64)

    def extremes(self) -> Flat:
        """Those of a whole plane are known."""
        if self.length == self.count:
            return np.array([self.plane.extremes], np.float32)
        return _extremes(self.plane.data, self.length)

    def norms(self) -> Floats:
        """As `tightwire.codecs.sums.norms`."""
        values = self._values
        norms: Floats = np.sqrt(_ordered(values * values, self.length))
        return norms

    def deviations(self) -> Floats:
        """As `tightwire.codecs.sums.deviations`."""
        values = self._values
        for _, part in rows(values, self.length):
            part -= part[:, :1].clone()
        return deviations_of(_ordered(values, self.length), _ordered(values * values, self.length), self.sizes)

    def halves(self) -> Floats:
        """As `tightwire.codecs.sums.halves`."""
        values = self._values
        negative = [_host((part < 0).sum(1)) for _, part in rows(values, self.length)]
        below, above = values.clamp(max=0.0), values.clamp(min=0.0)
        ends = (_ordered(below, self.length), _ordered(above, self.length))
        return np.stack([*ends, np.concatenate(negative)], axis=1)

    def moments(self, low: AnyArray, inverse: AnyArray, least: int, most: int) -> Floats:
        """As `tightwire.codecs.sums.moments`."""
        x, start = self._values, column(low, self.plane.data.device)
        for groups, part in rows(x, self.length):
            part -= start[groups]
        k = scaled(self.plane.data, self.length, low, inverse, 0.5, least, most).floor_().to(torch.float64)
        return np.stack([_ordered(terms, self.length) for terms in (x, k, x * k, k * k)], axis=1)
