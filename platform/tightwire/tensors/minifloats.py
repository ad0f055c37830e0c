"""Floats of few bits on a device: the arithmetic of `tightwire.codecs.minifloat_kernels`."""

import numpy as np
import torch
from torch import Tensor

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs.fp8 import FORMATS, Fp8, from_narrow, to_narrow
from tightwire.codecs.groups import group_length
from tightwire.codecs.minifloat import MiniFloat, Scales
from tightwire.codecs.natural import LEAST, Natural, exponents, powers
from tightwire.codecs.stage import Context, Layout
from tightwire.errors import FrameError
from tightwire.tensors.floats import stochastic_small
from tightwire.tensors.grids import column, rows
from tightwire.tensors.planes import TensorGroups, TensorPlane, TensorTarget, TensorUndo
from tightwire.tensors.words import noise, pack, unpack
from tightwire.wire.streams import Sink, Source

_NORMAL = 1 << 23
"""What the bits of a float's exponent count in."""


def _moves(format: MiniFloat) -> tuple[int, int]:
    """Bits that the narrow mantissa lacks, and the bits of the float32 with the exponent of the narrow denormals."""
    return 23 - format.mantissa, (127 - format.bias) << 23


def _scaled(sizes: Tensor, length: int, scales: Scales) -> None:
    """Multiply `sizes`, shape (n,), by their groups' scales."""
    first, second = column(scales.first, sizes.device), column(scales.second, sizes.device)
    for groups, part in rows(sizes, length):
        part.mul_(first[groups]).mul_(second[groups])


def narrow(values: Tensor, length: int, scales: Scales, format: MiniFloat, key: int | None) -> Tensor:
    """Codes of `values`, int32, shape (n,), in groups of `length`; to the nearest where the key is None."""
    shift, base = _moves(format)
    sizes = values.abs()
    _scaled(sizes, length, scales)
    raw = sizes.view(torch.int32)
    moved = raw - base
    if key is None:
        rounded = (moved + ((moved >> shift) & 1) + (2 ** (shift - 1) - 1)) >> shift
        half = 2.0**23 * format.least  # floats from here to twice it are whole multiples of the smallest
        start = int(np.float32(half).view(np.int32))
        small = (sizes + half).view(torch.int32) - start
    else:
        draws = noise(values.numel(), key, values.device)
        rounded = (moved + (draws >> (24 - shift))) >> shift
        small = stochastic_small(sizes, 1 / format.least, draws)
    levels = torch.where(raw < base + _NORMAL, small, rounded).clamp_(max=format.top)
    return torch.where(values.view(torch.int32) < 0, -levels, levels).add_(format.zero)


def widen(codes: Tensor, length: int, scales: Scales, format: MiniFloat) -> Tensor:
    """The float32 values of `codes`, shape (n,), in groups of `length`.

    Raises:
        FrameError: ``codes`` when one is none.
    """
    shift, base = _moves(format)
    places = codes - format.zero
    levels = places.abs()
    if int(levels.max()) > format.top:
        raise FrameError("codes", f"a code stands for no number; {format.bits} bits have {2 * format.top + 1} codes")
    moved = levels << shift
    small = levels.to(torch.float32).mul_(format.least)
    sizes = torch.where(moved < _NORMAL, small, (moved + base).view(torch.float32))
    _scaled(sizes, length, scales)
    most = column(scales.largest, codes.device)
    for groups, part in rows(sizes, length):
        part.copy_(torch.where(part < most[groups], part, most[groups]))
    return torch.where(places < 0, -sizes, sizes)


def _coded(stage: Fp8 | Natural, plane: TensorPlane, scales: Scales, form: MiniFloat, context: Context) -> TensorPlane:
    length = group_length(plane.layout, stage.per, stage.bucket)
    codes = narrow(plane.data, length, scales, form, context.key if stage.unbiased else None)
    return TensorPlane(form.layout(plane.layout.count), pack(codes, form.bits))


def _peaks(stage: Fp8 | Natural, plane: TensorPlane) -> Flat:
    length = group_length(plane.layout, stage.per, stage.bucket)
    return TensorGroups(plane.layout.count, length, plane).peaks()


def _undo(stage: Fp8 | Natural, layout: Layout, scales: Scales, form: MiniFloat) -> TensorUndo:
    length = group_length(layout, stage.per, stage.bucket)

    def undo(plane: TensorPlane, target: TensorTarget | None) -> TensorPlane:  # noqa: ARG001 - `TensorUndo`
        return TensorPlane(layout, widen(unpack(plane.data, layout.count, form.bits), length, scales, form))

    return undo


def _read(stage: Fp8 | Natural, layout: Layout, source: Source) -> tuple[Layout, Bytes8]:
    """What the stage itself reads and checks, and the bytes of the scales that it has checked."""
    ahead, before = source.peek(), source.left
    given, _ = stage.read(layout, source)
    return given, ahead[: before - source.left].copy()


def encode_fp8(stage: Fp8, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:
    """As `Fp8.encode`."""
    peaks, form = _peaks(stage, plane), FORMATS[stage.format]
    sink.write("scales", peaks.tobytes())
    return _coded(stage, plane, to_narrow(peaks, form.largest), form, context)


def read_fp8(stage: Fp8, layout: Layout, source: Source) -> tuple[Layout, TensorUndo]:
    """As `Fp8.read`."""
    form = FORMATS[stage.format]
    given, sent = _read(stage, layout, source)
    return given, _undo(stage, layout, from_narrow(sent.view(np.float32), form.largest), form)


def encode_natural(stage: Natural, plane: TensorPlane, sink: Sink, context: Context) -> TensorPlane:
    """As `Natural.encode`."""
    top = exponents(_peaks(stage, plane))
    sink.write("scales", (top - LEAST + 1).astype("<u2").tobytes())
    return _coded(stage, plane, powers(np.where(top < LEAST, top, -top)), stage.format, context)


def read_natural(stage: Natural, layout: Layout, source: Source) -> tuple[Layout, TensorUndo]:
    """As `Natural.read`."""
    given, sent = _read(stage, layout, source)
    return given, _undo(stage, layout, powers(sent.view("<u2").astype(np.int64) - 1 + LEAST), stage.format)
