"""A codec: one line that says how every tensor of an update is coded, and the frames it makes."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from tightwire.arrays import Flat
from tightwire.codecs import grammar
from tightwire.codecs.chain import Chain
from tightwire.codecs.stage import Plane, Tally
from tightwire.errors import CodecError, FrameError, LedgerError
from tightwire.wire.frame import Header, envelope_length, seal, unseal
from tightwire.wire.ledger import Sections
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame and what it cost."""

    frame: bytes
    sections: Sections
    """Bytes by section; they add up to ``len(frame)``."""
    nominal_bits: float
    """What a paper would count. Never part of a bill."""


@dataclass(frozen=True)
class Codec:
    """A default chain, and chains for the tensors whose names match a pattern; the first match counts.

    It parses from and prints as one line, such as ``topk(0.1) | uniform(4) | rans; *.bias: fp16``.
    """

    default: Chain
    rules: tuple[grammar.Rule, ...] = ()

    @staticmethod
    def parse(line: str) -> "Codec":
        """The codec that `line` describes; see `tightwire.codecs.grammar`.

        Raises:
            CodecError: With the column of what is wrong.
        """
        return _parse(line)

    def __str__(self) -> str:
        return "; ".join((str(self.default), *(f"{pattern}: {chain}" for pattern, chain in self.rules)))

    @cached_property
    def compact(self) -> str:
        """The line without spaces, as frames carry it."""
        return str(self).replace(" ", "")

    @property
    def unbiased(self) -> bool:
        """Whether the expectation of what is decoded is what was encoded; if not, error feedback helps."""
        return all(chain.unbiased for chain in (self.default, *(chain for _, chain in self.rules)))

    def passes(self, schema: Schema) -> float:
        """Passes that encoding makes over an update's values, mean over the values, for a device's cost model."""
        total = sum(self.chain(tensor.name).passes * tensor.size for tensor in schema.tensors)
        return total / schema.size if schema.size else 0.0

    def chain(self, name: str) -> Chain:
        """The chain for the tensor of that name."""
        return next((chain for pattern, chain in self.rules if fnmatchcase(name, pattern)), self.default)

    def _tallies(self, schema: Schema) -> Iterator[Tally]:
        return (self.chain(tensor.name).tally(tensor.size) for tensor in schema.tensors if tensor.size)

    def nominal_bits(self, schema: Schema) -> float:
        """Bits that a paper would count for an update: values, naive positions and scales, no header and no table."""
        return sum(tally.nominal for tally in self._tallies(schema))

    def bits(self, schema: Schema) -> float:
        """Quantiser bits a kept value, mean over all kept values of an update; 0 where there are none."""
        tallies = list(self._tallies(schema))
        kept = sum(tally.kept for tally in tallies)
        return sum(tally.kept * tally.bits for tally in tallies) / kept if kept else 0.0

    def density(self, schema: Schema) -> float:
        """Kept fraction of an update's values; 1 where there are none."""
        return sum(tally.kept for tally in self._tallies(schema)) / schema.size if schema.size else 1.0

    def planes(self, update: Flat, schema: Schema, sink: Sink, *, key: int) -> Iterator[list[Plane]]:
        """Encode tensor by tensor to `sink`; each tensor's planes, from its values to its bytes.

        Empty tensors take no bytes and give no planes.

        Raises:
            CodecError: As `encode`.
        """
        values = flat(update, schema)
        for position, (tensor, part) in enumerate(zip(schema.tensors, schema.slices(), strict=True)):
            if tensor.size:
                yield self.chain(tensor.name).encode(values[part], sink, key=key, tensor=position)

    def encode(self, update: Flat, schema: Schema, *, key: int, round: int, client: int) -> Encoded:
        """Encode an update into a frame. Pure: same arguments, same bytes, on every machine.

        Args:
            update: Shape (schema.size,); other floats than float32, and strided ones, are converted.
            schema: Its tensors.
            key: The only source of randomness, 64 bits, as from `tightwire.keys.key`.
            round: Goes into the header; 32 bits.
            client: Likewise.

        Raises:
            CodecError: When the update has another shape, is not of floats, or is not finite.
            LedgerError: When the bill does not add up to the frame's length.
        """
        sink = Sink()
        for _ in self.planes(update, schema, sink, key=key):
            pass
        frame, sections = seal(sink, digest=schema.digest, round=round, client=client, line=self.compact)
        if sections.total != len(frame):
            raise LedgerError(
                f"round {round}, client {client}: the sections of a `{self}` frame add up to {sections.total} bytes, "
                f"but the frame has {len(frame)}"
            )
        return Encoded(frame, sections, self.nominal_bits(schema))


@lru_cache(maxsize=1024)
def _parse(line: str) -> Codec:
    return Codec(*grammar.parse(line))


def flat(update: npt.ArrayLike, schema: Schema) -> Flat:
    """An update as contiguous float32 of shape (schema.size,).

    Raises:
        CodecError: When it has another shape, or is not of floats.
    """
    values = np.asarray(update)
    if values.dtype.kind != "f":
        raise CodecError(f"an update is of floats, got {values.dtype}")
    if values.shape != (schema.size,):
        raise CodecError(f"an update has shape ({schema.size},) by its schema, got {values.shape}")
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        return np.ascontiguousarray(values, np.float32)


def decode_header(frame: bytes) -> Header:
    """What a frame says about itself, after its envelope and checksum have been checked.

    Raises:
        FrameError: When they are not in order.
    """
    return unseal(frame)[0]


def decode(
    frame: bytes,
    schema: Schema,
    *,
    round: int | None = None,
    client: int | None = None,
    out: Flat | None = None,
) -> Flat:
    """Decode a frame. Nothing in it is believed, and memory is bounded by the schema before any is taken.

    Args:
        frame: One whole frame.
        schema: What the receiver expects.
        round: The round it must be of, if given.
        client: The client it must be from, if given.
        out: Memory for the result, shape (schema.size,), float32 and contiguous; on an error its content is undefined.

    Returns:
        The update, shape (schema.size,), finite.

    Raises:
        FrameError: With one of the reasons ``truncated``, ``magic``, ``version``, ``length``, ``checksum``, ``codec``,
            ``schema``, ``round``, ``client``, ``scales``, ``indices``, ``tables``, ``codes``, ``non-finite``,
            ``trailing``.
        ValueError: When `out` is not as it must be.
    """
    header, body = unseal(frame)
    if header.digest != schema.digest:
        raise FrameError("schema", f"the frame is of schema {header.digest.hex()}, expected {schema.digest.hex()}")
    for name, told, wanted in (("round", header.round, round), ("client", header.client, client)):
        if wanted is not None and told != wanted:
            raise FrameError(name, f"the frame is of {name} {told}, expected {wanted}")
    try:
        codec = Codec.parse(header.line)
    except CodecError as error:
        raise FrameError("codec", f"the codec line cannot be used: {error}") from None
    if out is None:
        out = np.empty(schema.size, np.float32)
    elif out.shape != (schema.size,) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out must be contiguous float32 of shape ({schema.size},), got {out.dtype} {out.shape}")
    source = Source(body)
    for tensor, part in zip(schema.tensors, schema.slices(), strict=True):
        if tensor.size:
            codec.chain(tensor.name).decode(source, out[part])
    if source.left:
        raise FrameError("trailing", f"{source.left} bytes are left over behind the last tensor")
    return out


def fp32_frame_length(schema: Schema) -> int:
    """Exact length of the frame of any update under the codec ``none``, in any round and from any client."""
    return envelope_length("none") + 4 * schema.size
