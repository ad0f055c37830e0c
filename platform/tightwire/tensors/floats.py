"""Floats of 16 and 32 bits on a device: the arithmetic of `tightwire.codecs.float_kernels`."""

from collections.abc import Callable

import torch
from torch import Tensor

from tightwire.codecs.floats import Brain, Half, Plain
from tightwire.codecs.stage import Context, Layout
from tightwire.errors import FrameError
from tightwire.tensors.planes import TensorPlane, TensorTarget, TensorUndo
from tightwire.tensors.words import noise, signed
from tightwire.wire.streams import Sink, Source

MAGNITUDE = 0x7FFFFFFF
_LEAST_HALF = 113 << 23
_HALF_BIAS = 112 << 23
_HALF_TOP, _BRAIN_TOP = 0x7BFF, 0x7F7F
_LARGEST_HALF = 65504.0


def _sent(values: Tensor) -> TensorPlane:
    data = values.view(torch.uint8)
    return TensorPlane(Layout("bytes", data.numel(), 8), data)


def plain(stage: Plain, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:  # noqa: ARG001 - the table's
    """As `Plain.encode`."""
    return _sent(plane.data)


def half(stage: Half, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:  # noqa: ARG001 - the table's
    """As `Half.encode`."""
    if stage.rounding == "nearest":
        return _sent(plane.data.clamp(-_LARGEST_HALF, _LARGEST_HALF).to(torch.float16))
    raw = plane.data.view(torch.int32)
    size = raw & MAGNITUDE
    draws = noise(raw.numel(), context.key, raw.device)
    rounded = (size - _HALF_BIAS + (draws >> (24 - 13))) >> 13
    halves = torch.where(size < _LEAST_HALF, stochastic_small(size.view(torch.float32), 2.0**24, draws), rounded)
    return _halves(halves, _HALF_TOP, raw)


def brain(stage: Brain, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:  # noqa: ARG001 - the table's
    """As `Brain.encode`."""
    raw = plane.data.view(torch.int32)
    size = raw & MAGNITUDE
    if stage.rounding == "nearest":
        below = (size >> 16).bitwise_and_(1).add_(0x7FFF)
    else:
        below = noise(raw.numel(), context.key, raw.device) >> (24 - 16)
    return _halves((size + below) >> 16, _BRAIN_TOP, raw)


def _halves(sizes: Tensor, top: int, raw: Tensor) -> TensorPlane:
    """Words of 16 bits: magnitudes of at most `top`, and the signs of the floats with bits `raw`."""
    return _sent(((raw >> 16) & signed(0xFFFF8000)).bitwise_or_(sizes.clamp(max=top)).to(torch.int16))


def stochastic_small(sizes: Tensor, units: float, draws: Tensor) -> Tensor:
    """As `tightwire.codecs.float_kernels.stochastic_small`: int32, shape (n,)."""
    scaled = (sizes * units).clamp_(max=2.0**22)
    whole = scaled.floor()
    return whole.to(torch.int32).add_(draws.to(torch.float32).mul_(2.0**-24) < scaled.sub_(whole))


def receiver(
    float_type: torch.dtype, word_type: torch.dtype, infinite: int
) -> Callable[..., tuple[Layout, TensorUndo]]:
    """What reads floats of a type, whose magnitudes are below `infinite` as words of `word_type`."""

    def read(stage: object, layout: Layout, source: Source) -> tuple[Layout, TensorUndo]:  # noqa: ARG001 - the table's
        def undo(plane: TensorPlane, target: TensorTarget | None) -> TensorPlane:  # noqa: ARG001 - `TensorUndo`
            words = plane.data.view(word_type)
            if int((words & torch.iinfo(word_type).max).max()) >= infinite:
                raise FrameError("non-finite", "the frame holds a NaN or an infinity")
            return TensorPlane(layout, words.view(float_type).to(torch.float32))

        return Layout("bytes", layout.count * float_type.itemsize, 8), undo

    return read
