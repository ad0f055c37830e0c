"""Which stages run on a device, and how."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightwire.arrays import Ints
from tightwire.codecs import sparse
from tightwire.codecs.flatten import Flatten
from tightwire.codecs.floats import Brain, Half, Plain
from tightwire.codecs.fp8 import Fp8
from tightwire.codecs.natural import Natural
from tightwire.codecs.qsgd import QSGD
from tightwire.codecs.signs import OneBit, Sign
from tightwire.codecs.stage import Context, Layout, Stage
from tightwire.codecs.ternary import TernGrad
from tightwire.codecs.topk import TopK
from tightwire.codecs.uniform import Uniform
from tightwire.tensors import floats, minifloats, quantisers
from tightwire.tensors.planes import TensorPlane, TensorTarget, TensorUndo
from tightwire.wire import indices
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True, slots=True)
class OnDevice:
    """How a stage works on reals that lie on a device; its first argument is the stage."""

    encode: Callable[[Any, TensorPlane, Sink, Context], TensorPlane]
    """As `Stage.encode`."""
    read: Callable[[Any, Layout, Source], tuple[Layout, TensorUndo]]
    """As `Stage.read`."""


def _flattened(stage: Flatten, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:  # noqa: ARG001
    return TensorPlane(replace(plane.layout, shape=()), plane.data)


def _read_flattened(stage: Flatten, layout: Layout, source: Source) -> tuple[Layout, TensorUndo]:  # noqa: ARG001
    return replace(layout, shape=()), lambda plane, _: plane


def largest(values: Tensor, k: int) -> Tensor:
    """Indices, increasing, of the `k` largest magnitudes, of equal ones the first; int64, shape (k,).

    Args:
        values: Shape (n,), contiguous float32. Infinities are larger than what is finite, and NaNs larger still.
        k: 1 to n.
    """
    sizes = values.view(torch.int32) & floats.MAGNITUDE
    least = torch.topk(sizes, k, sorted=False).values.amin()
    found = torch.nonzero(sizes >= least).view(-1)
    if found.numel() == k:
        return found
    equal = sizes[found] == least
    ties = k - (found.numel() - equal.sum())
    return found[~equal | (equal.cumsum(0) <= ties)]


def _topk(stage: TopK, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:  # noqa: ARG001 - the table's
    n = plane.layout.count
    k = stage.kept(n)
    if k == n:
        return TensorPlane(sparse.left(plane.layout, n), plane.data)
    chosen = largest(plane.data, k)
    sent: Ints = chosen.to(torch.int32).cpu().numpy().astype(np.int64)
    indices.write(sent, n, sink)
    return TensorPlane(sparse.left(plane.layout, k), plane.data[chosen])


def _read_topk(stage: TopK, layout: Layout, source: Source) -> tuple[Layout, TensorUndo]:
    chosen = indices.read(stage.kept(layout.count), layout.count, source)

    def undo(plane: TensorPlane, target: TensorTarget | None) -> TensorPlane:
        values = plane.data
        where = torch.from_numpy(chosen).to(values.device)
        if target is None:
            return TensorPlane(layout, values.new_zeros(layout.count).index_copy_(0, where, values))
        if target.weight is None:
            target.memory.zero_().index_copy_(0, where, values)
        else:  # what was not sent is left alone, so that -0 stays -0
            target.memory.index_copy_(0, where, target.memory[where] + values * target.weight)
        return TensorPlane(layout, target.memory)

    return sparse.left(layout, chosen.size), undo


def _affine(codes: quantisers.Codes) -> OnDevice:
    return OnDevice(partial(quantisers.encode, codes), quantisers.read)


STAGES: dict[type[Stage], OnDevice] = {
    Plain: OnDevice(floats.plain, floats.receiver(torch.float32, torch.int32, 0x7F800000)),
    Half: OnDevice(floats.half, floats.receiver(torch.float16, torch.int16, 0x7C00)),
    Brain: OnDevice(floats.brain, floats.receiver(torch.bfloat16, torch.int16, 0x7F80)),
    Fp8: OnDevice(minifloats.encode_fp8, minifloats.read_fp8),
    Natural: OnDevice(minifloats.encode_natural, minifloats.read_natural),
    Flatten: OnDevice(_flattened, _read_flattened),
    TopK: OnDevice(_topk, _read_topk),
    Uniform: _affine(quantisers.uniform),
    QSGD: _affine(quantisers.stochastic),
    TernGrad: _affine(quantisers.stochastic),
    Sign: _affine(quantisers.signs),
    OneBit: _affine(quantisers.signs),
}
"""Of exactly these types: a stage derived from one may do anything."""

_LARGEST = 2**31
"""Tensors of so many values are left to the host."""


def on_device(stage: Stage, layout: Layout) -> OnDevice | None:
    """How `stage` takes a plane of that layout on a device; None where it takes it on the host."""
    if layout.kind != "reals" or layout.count >= _LARGEST:
        return None
    return STAGES.get(type(stage))
