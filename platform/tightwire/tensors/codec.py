"""Frames from tensors on a device, and back, without the values crossing to the host.

A chain runs on the device of its values until they are packed codes or final bytes; only those, scales and positions
cross, and entropy coding is done on the host. Frames and decoded values are, bit for bit, those of
`tightwire.codecs.codec`. A stage that is not in `tightwire.tensors.stages.STAGES` runs on the host, with those behind
it, and then the values it takes cross instead: `stages_on_host` names such stages. A device must have float64, which
CUDA has and Apple's GPUs have not.
"""

import numpy as np
import torch
from torch import Tensor

from tightwire.arrays import Flat
from tightwire.codecs.chain import check_finite, slot
from tightwire.codecs.codec import Codec, Encoded, Memory, Piece, opened
from tightwire.codecs.stage import Context, Layout, Plane, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.keys import key as derive
from tightwire.tensors.planes import TensorPlane, TensorTarget, TensorUndo
from tightwire.tensors.stages import on_device
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink, Source


def stages_on_host(codec: Codec) -> tuple[str, ...]:
    """Names of the stages that make real values cross between device and host, in the order of the line; none is best.

    It is at most one a chain: those behind it run on the host, too.
    """
    found = []
    for chain in (codec.default, *(chain for _, chain in codec.rules)):
        kind = "reals"
        for stage in chain.whole:
            if kind == "reals" and on_device(stage, Layout("reals", 1, 32)) is None:
                found.append(stage.name)
                break
            kind = stage.gives or kind
    return tuple(dict.fromkeys(found))


def encode(
    codec: Codec,
    update: Tensor,
    schema: Schema,
    *,
    key: int,
    round: int,
    client: int,
    memory: Memory | None = None,
) -> Encoded:
    """Encode an update that lies on any device; the frame is that of `Codec.encode`.

    Args:
        codec: How.
        update: Shape (schema.size,); other floats than float32, and strided ones, are converted.
        schema: Its tensors.
        key: As `Codec.encode`.
        round: As `Codec.encode`.
        client: As `Codec.encode`.
        memory: As `Codec.encode`.

    Raises:
        CodecError: When the update has another shape, is not of floats, or is not finite.
        LedgerError: When the bill does not add up to the frame's length.
    """
    values = _flat(update, schema)
    sink = Sink()
    left = dict(memory or {})
    for piece in codec.pieces(schema):
        _encode(piece, values, sink, key, round, memory or {}, left)
    return codec.sealed(sink, schema, round=round, client=client, memory=left)


def decode(
    frame: bytes,
    schema: Schema,
    *,
    device: torch.device | str,
    round: int | None = None,
    client: int | None = None,
) -> Tensor:
    """Decode a frame to a device; the values are those of `tightwire.codecs.codec.decode`.

    Args:
        frame: One whole frame.
        schema: What the receiver expects.
        device: Where the update will be.
        round: The round it must be of, if given.
        client: The client it must be from, if given.

    Returns:
        The update, float32, shape (schema.size,), finite.

    Raises:
        FrameError: As the function on the host.
    """
    out = torch.empty(schema.size, dtype=torch.float32, device=device)
    _decode(frame, schema, TensorTarget(out), round, client)
    return out


def decode_add(
    frame: bytes,
    schema: Schema,
    total: Tensor,
    *,
    weight: float = 1.0,
    round: int | None = None,
    client: int | None = None,
) -> None:
    """Decode a frame and add it to a sum on a device, total += weight * decoded in float32.

    Args:
        frame: As `decode`.
        schema: As `decode`.
        total: The sum, shape (schema.size,), float32 and contiguous; on an error its content is undefined.
        weight: What the update counts; rounded to float32.
        round: As `decode`.
        client: As `decode`.

    Raises:
        FrameError: As `decode`.
        ValueError: When `total` is not as it must be.
    """
    if total.shape != (schema.size,) or total.dtype != torch.float32 or not total.is_contiguous():
        raise ValueError(
            f"total must be contiguous float32 of shape ({schema.size},), got {total.dtype} {tuple(total.shape)}"
        )
    _decode(frame, schema, TensorTarget(total, float(np.float32(weight))), round, client)


def _flat(update: Tensor, schema: Schema) -> Tensor:
    """An update as contiguous float32 of shape (schema.size,)."""
    if update.layout != torch.strided:
        raise CodecError(f"an update is dense, got the layout {update.layout}")
    if not update.is_floating_point():
        raise CodecError(f"an update is of floats, got {update.dtype}")
    if update.shape != (schema.size,):
        raise CodecError(f"an update has shape ({schema.size},) by its schema, got {tuple(update.shape)}")
    return update.detach().to(torch.float32).contiguous()


def _encode(
    piece: Piece, values: Tensor, sink: Sink, key: int, round: int, memory: Memory, left: dict[str, Flat]
) -> None:
    """As `Chain.encode`."""
    part = piece.part
    gathered = (
        torch.cat([values[place] for place in piece.places]) if len(piece.places) > 1 else values[piece.places[0]]
    )
    plane: TensorPlane | Plane = TensorPlane(part.layout, gathered)
    for position, stage in enumerate(piece.chain.whole):
        place, own = slot(part, position, stage), derive(key, f"stage {position} of tensor {part.position}")
        context = Context(own, round, memory.get(place), tensor=part.position)
        check_finite(plane, stage, context)
        if isinstance(plane, TensorPlane) and (device := on_device(stage, plane.layout)):
            plane = device.encode(stage, plane, sink, context)
        else:
            plane = stage.encode(plane.to_host() if isinstance(plane, TensorPlane) else plane, sink, context)
        if context.left is not None:
            left[place] = context.left
    sink.write(piece.section, (plane.to_host() if isinstance(plane, TensorPlane) else plane).data)


def _decode(frame: bytes, schema: Schema, target: TensorTarget, round: int | None, client: int | None) -> None:
    codec, source = opened(frame, schema, round, client)
    for piece in codec.pieces(schema):
        _scatter(piece, source, target)
    if source.left:
        raise FrameError("trailing", f"{source.left} bytes are left over behind the last tensor")


def _scatter(piece: Piece, source: Source, target: TensorTarget) -> None:
    """As `Piece.scatter`."""
    if len(piece.places) == 1:
        _decode_piece(piece, source, TensorTarget(target.memory[piece.places[0]], target.weight))
        return
    values = target.memory.new_empty(piece.part.size)
    _decode_piece(piece, source, TensorTarget(values))
    start = 0
    for place in piece.places:
        end = start + place.stop - place.start
        TensorTarget(target.memory[place], target.weight).put(values[start:end])
        start = end


def _decode_piece(piece: Piece, source: Source, target: TensorTarget) -> None:
    """As `Chain.decode`."""
    stages = piece.chain.whole
    if on_device(stages[0], piece.part.layout) is None:
        adds = target.weight is not None
        memory = target.memory.cpu().numpy() if adds else np.empty(piece.part.size, np.float32)
        piece.chain.decode(source, piece.part, Target(memory, np.float32(target.weight) if adds else None))
        target.memory.copy_(torch.from_numpy(memory))
        return
    layout, near, far = piece.part.layout, list[TensorUndo](), list[Undo]()
    for stage in stages:
        device = None if far else on_device(stage, layout)
        if device is None:
            layout, undo = stage.read(layout, source)
            far.append(undo)
        else:
            layout, tensor_undo = device.read(stage, layout, source)
            near.append(tensor_undo)
    received = Plane(layout, source.array(layout.length))
    for undo in reversed(far):
        received = undo(received, None)
    plane = TensorPlane(received.layout, torch.from_numpy(received.data).to(target.memory.device))
    for position in reversed(range(len(near))):
        plane = near[position](plane, target if position == 0 else None)
    if plane.data is not target.memory:
        target.put(plane.data)
