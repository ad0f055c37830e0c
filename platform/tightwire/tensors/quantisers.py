"""Quantisation to even grids on a device: the arithmetic of `tightwire.codecs.affine`, value by value."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tightwire.codecs.affine import Affine, AffineStage, check_largest
from tightwire.codecs.groups import group_length
from tightwire.codecs.stage import Context, Layout
from tightwire.codecs.uniform import Uniform
from tightwire.tensors.grids import column, rows, scaled
from tightwire.tensors.planes import TensorGroups, TensorPlane, TensorTarget, TensorUndo
from tightwire.tensors.words import noise, pack, unpack
from tightwire.wire.streams import Sink, Source

Codes = Callable[[Any, Tensor, Affine, Context], Tensor]
"""Codes of float32 values on grids, int32, both of shape (n,); the first argument is the stage."""


def _placed(values: Tensor, affine: Affine, shift: float) -> Tensor:
    """Where values lie on their grids, counted from the code for 0 where there is one."""
    least, most = -affine.zero, affine.top - affine.zero
    return scaled(values, affine.length, affine.low, affine.inverse, shift, least, most)


def quantise_shifted(values: Tensor, affine: Affine, shift: float) -> Tensor:
    """Codes of values, rounded down after `shift` is added."""
    return _placed(values, affine, shift).floor_().to(torch.int32).add_(affine.zero)


def quantise_stochastic(values: Tensor, affine: Affine, key: int) -> Tensor:
    """Codes of values, rounded up with the probability of their fraction."""
    fraction = _placed(values, affine, 0.0)
    whole = fraction.floor()
    fraction.sub_(whole)
    draws = noise(values.numel(), key, values.device).to(fraction.dtype).mul_(2.0**-24)
    return whole.to(torch.int32).add_(draws < fraction).add_(affine.zero)


def stochastic(stage: AffineStage, values: Tensor, affine: Affine, context: Context) -> Tensor:  # noqa: ARG001 - `Codes`
    """Of stages that round stochastically."""
    return quantise_stochastic(values, affine, context.key)


def uniform(stage: Uniform, values: Tensor, affine: Affine, context: Context) -> Tensor:
    """Of `Uniform`, as asked for."""
    if stage.rounding == "stochastic":
        return quantise_stochastic(values, affine, context.key)
    return quantise_shifted(values, affine, 0.5 if stage.rounding == "nearest" else 0.0)


def signs(stage: AffineStage, values: Tensor, affine: Affine, context: Context) -> Tensor:  # noqa: ARG001 - `Codes`
    """Of stages that send the sign: 1 for what is 0 or more."""
    return (values >= 0).to(torch.int32)


def encode(codes: Codes, stage: AffineStage, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:
    """As `AffineStage.encode`, with the codes that `codes` gives."""
    count = plane.layout.count
    groups = TensorGroups(count, group_length(plane.layout, stage.per, stage.bucket), plane)
    affine = stage.send(groups, sink, context)
    return TensorPlane(affine.layout(count), pack(codes(stage, plane.data, affine, context), affine.bits))


def restore(codes: Tensor, affine: Affine) -> Tensor:
    """The float32 values of `codes`, shape (n,)."""
    base, step = column(affine.base, codes.device), column(affine.step, codes.device)
    numbers = codes.sub(affine.zero) if affine.unit is not None else codes
    values = numbers.to(step.dtype)
    if affine.unit is not None:
        values.mul_(float(affine.unit))
    for groups, part in rows(values, affine.length):
        part.mul_(step[groups])
        if affine.unit is None:
            part.add_(base[groups])
    return values.to(torch.float32)


def read(stage: AffineStage, layout: Layout, source: Source) -> tuple[Layout, TensorUndo]:
    """As `AffineStage.read`."""
    affine = stage.receive(layout, source)

    def undo(plane: TensorPlane, target: TensorTarget | None) -> TensorPlane:  # noqa: ARG001 - `TensorUndo`
        codes = unpack(plane.data, layout.count, affine.bits)
        check_largest(int(codes.max()), affine)
        return TensorPlane(layout, restore(codes, affine))

    return affine.layout(layout.count), undo
