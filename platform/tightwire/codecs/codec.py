"""A codec: one line that says how every tensor of an update is coded, and the frames it makes."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from tightwire.arrays import Flat
from tightwire.codecs import grammar
from tightwire.codecs.chain import Chain, Part
from tightwire.codecs.floats import Plain
from tightwire.codecs.registry import stages
from tightwire.codecs.stage import Plane, Stage, Tally, Target
from tightwire.errors import CodecError, FrameError, LedgerError
from tightwire.wire.frame import Header, envelope_length, seal, unseal
from tightwire.wire.ledger import Sections
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink, Source

Memory = Mapping[str, Flat]
"""What a sender remembers from one encoding to the next: arrays by name, small or of the update's size."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame and what it cost."""

    frame: bytes
    sections: Sections
    """Bytes by section; they add up to ``len(frame)``."""
    nominal_bits: float
    """What a paper would count. Never part of a bill."""
    memory: Memory = field(default_factory=dict)
    """What the sender's next `Codec.encode` wants to know: all that stages left so far, by their slots."""


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
        return _parse(line, tuple(stages().values()))

    @cached_property
    def _hash(self) -> int:
        return zlib.crc32(str(self).encode())

    def __hash__(self) -> int:
        """Computed once, as each frame looks a codec up; and the same in all processes, as codecs travel."""
        return self._hash

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
        total = sum(piece.chain.passes * piece.part.size for piece in self.pieces(schema))
        return total / schema.size if schema.size else 0.0

    def chain(self, name: str) -> Chain:
        """The chain for the tensor of that name, small or not."""
        return next((chain for pattern, chain in self.rules if fnmatchcase(name, pattern)), self.default)

    def pieces(self, schema: Schema) -> tuple["Piece", ...]:
        """What a frame of that schema consists of, in its order.

        A tensor is a piece of its own, but those of one flattened chain, which are one piece at the place of the first.
        A tensor of fewer than `small` values that no rule names is sent plain. Empty ones take no bytes.
        """
        return _pieces(self, schema)

    def _tallies(self, schema: Schema) -> Iterator[Tally]:
        return (piece.chain.tally(piece.part.shape) for piece in self.pieces(schema))

    def nominal_bits(self, schema: Schema) -> float:
        """Bits that a paper would count for an update: values, naive positions and scales, no header and no table."""
        return _nominal_bits(self, schema)

    def bits(self, schema: Schema) -> float:
        """Quantiser bits a kept value, mean over all kept values of an update; 0 where there are none."""
        tallies = list(self._tallies(schema))
        kept = sum(tally.kept for tally in tallies)
        return sum(tally.kept * tally.bits for tally in tallies) / kept if kept else 0.0

    def density(self, schema: Schema) -> float:
        """Kept fraction of an update's values; 1 where there are none."""
        return sum(tally.kept for tally in self._tallies(schema)) / schema.size if schema.size else 1.0

    def planes(
        self,
        update: Flat,
        schema: Schema,
        sink: Sink,
        *,
        key: int,
        round: int = 0,
        memory: Memory | None = None,
        left: dict[str, Flat] | None = None,
    ) -> Iterator[list[Plane]]:
        """Encode piece by piece to `sink`; each piece's planes, from its values to its bytes.

        Args:
            update: As `encode`.
            schema: As `encode`.
            sink: Takes the bytes.
            key: As `encode`.
            round: As `encode`.
            memory: As `encode`.
            left: Takes what stages leave for the next round.

        Raises:
            CodecError: As `encode`.
        """
        values = flat(update, schema)
        for piece in self.pieces(schema):
            planes, fresh = piece.chain.encode(
                piece.gather(values), sink, piece.part, key=key, round=round, memory=memory, section=piece.section
            )
            if left is not None:
                left.update(fresh)
            yield planes

    def encode(
        self, update: Flat, schema: Schema, *, key: int, round: int, client: int, memory: Memory | None = None
    ) -> Encoded:
        """Encode an update into a frame. Pure: same arguments, same bytes, on every machine.

        Args:
            update: Shape (schema.size,); other floats than float32, and strided ones, are converted.
            schema: Its tensors.
            key: The only source of randomness, 64 bits, as from `tightwire.keys.key`.
            round: Goes into the header; 32 bits.
            client: Likewise.
            memory: `Encoded.memory` of this sender's last frame; None for the first. Only some stages have any.

        Raises:
            CodecError: When the update has another shape, is not of floats, or is not finite.
            LedgerError: When the bill does not add up to the frame's length.
            ValueError: When the key has more than 64 bits.
        """
        if not 0 <= key < 1 << 64:
            raise ValueError(f"a key is of 64 bits, 0 or more, got {key}")
        sink = Sink()
        left: dict[str, Flat] = dict(memory or {})
        for _ in self.planes(update, schema, sink, key=key, round=round, memory=memory, left=left):
            pass
        return self.sealed(sink, schema, round=round, client=client, memory=left)

    def sealed(self, sink: Sink, schema: Schema, *, round: int, client: int, memory: Memory) -> Encoded:
        """The frame of all pieces, which `sink` holds in their order.

        Args:
            sink: The bytes of the pieces.
            schema: As `encode`.
            round: As `encode`.
            client: As `encode`.
            memory: What the sender is to remember.

        Raises:
            LedgerError: When the bill does not add up to the frame's length.
        """
        frame, sections = seal(sink, digest=schema.digest, round=round, client=client, line=self.compact)
        if sections.total != len(frame):
            raise LedgerError(
                f"round {round}, client {client}: the sections of a `{self}` frame add up to {sections.total} bytes, "
                f"but the frame has {len(frame)}"
            )
        return Encoded(frame, sections, self.nominal_bits(schema), memory)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an update, the chain that codes it, and where it lies."""

    part: Part
    chain: Chain
    places: tuple[slice, ...]
    """Where its tensors lie in the flat vector; those that touch are one place."""
    section: str
    """Where its values are booked."""

    def gather(self, values: Flat) -> Flat:
        """Its values, one after another; a view where they lie so."""
        if len(self.places) == 1:
            return values[self.places[0]]
        return np.concatenate([values[place] for place in self.places])

    def scatter(self, source: Source, target: Target) -> None:
        """Decode it into its places of the whole update's target."""
        if len(self.places) == 1:
            self.chain.decode(source, self.part, Target(target.memory[self.places[0]], target.weight))
            return
        values = np.empty(self.part.size, np.float32)
        self.chain.decode(source, self.part, Target(values))
        start = 0
        for place in self.places:
            end = start + place.stop - place.start
            Target(target.memory[place], target.weight).put(values[start:end])
            start = end


@lru_cache(maxsize=4096)
def _nominal_bits(codec: Codec, schema: Schema) -> float:
    return sum(piece.chain.tally(piece.part.shape).nominal for piece in codec.pieces(schema))


_PLAIN = Chain((Plain(),))
SMALL = 10_000
"""Tensors of so many values are never small."""


def small(size: int) -> int:
    """Tensors with fewer values than this are sent plain, unless a rule names them or their chain is flattened.

    Networks hold many tensors, such as biases and norms, whose compression would save next to nothing and whose errors
    weigh much. QSGD leaves tensors of fewer than 10,000 values as they are, and notes that more than 99 % of all values
    are quantised all the same (Alistarh et al. 2017, arXiv 1610.02132, section 5). Models of federated learning are
    smaller, so a small tensor must also hold less than 0.1 % of the update.

    Args:
        size: Values of the whole update.
    """
    return min(SMALL, -(-size // 1000))


@lru_cache(maxsize=4096)
def _pieces(codec: Codec, schema: Schema) -> tuple[Piece, ...]:
    least = small(schema.size)
    patterns = tuple(pattern for pattern, _ in codec.rules)
    members: dict[object, list[int]] = {}
    chains: dict[object, Chain] = {}
    sections: dict[object, str] = {}
    for position, tensor in enumerate(schema.tensors):
        if not tensor.size:
            continue
        rule = _first(tensor.name, patterns)
        chain = codec.default if rule is None else codec.rules[rule][1]
        key: object = ("flattened", rule) if chain.flattens else position
        plain = rule is None and not chain.flattens and not chain.plain and tensor.size < least
        members.setdefault(key, []).append(position)
        chains[key] = _PLAIN if plain else chain
        sections[key] = "plain" if plain else "codes"
    slices = schema.slices()
    pieces = []
    for key, positions in members.items():
        places: list[slice] = []
        for position in positions:
            place = slices[position]
            if places and places[-1].stop == place.start:
                place = slice(places.pop().start, place.stop)
            places.append(place)
        first = schema.tensors[positions[0]]
        shape = (sum(place.stop - place.start for place in places),) if chains[key].flattens else first.shape
        pieces.append(Piece(Part(first.name, positions[0], shape), chains[key], tuple(places), sections[key]))
    return tuple(pieces)


@lru_cache(maxsize=4096)
def _first(name: str, patterns: tuple[str, ...]) -> int | None:
    """The first of the patterns that a name matches."""
    return next((at for at, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), None)


@lru_cache(maxsize=1024)
def _parse(line: str, known: tuple[type[Stage], ...]) -> Codec:  # what a line means depends on them
    first, *rules = line.split(";")
    try:
        if rules:  # many lines are made of few chains
            return Codec(_chain(first, known), tuple((name, _chain(text, known)) for name, text in map(_rule, rules)))
    except CodecError:
        pass  # the grammar says where in the whole line it is wrong
    return Codec(*grammar.parse(line))


@lru_cache(maxsize=4096)
def _rule(text: str) -> tuple[str, str]:
    name, _, chain = text.partition(":")
    return grammar.pattern(name), chain


@lru_cache(maxsize=4096)
def _chain(text: str, known: tuple[type[Stage], ...]) -> Chain:  # noqa: ARG001 - as above
    return grammar.parse(text)[0]


def flat(update: npt.ArrayLike, schema: Schema) -> Flat:
    """An update as contiguous float32 of shape (schema.size,).

    What is read-only is copied: numba would compile every loop anew for it, which takes seconds.

    Raises:
        CodecError: When it has another shape, or is not of floats.
    """
    values = np.asarray(update)
    if values.dtype.kind != "f":
        raise CodecError(f"an update is of floats, got {values.dtype}")
    if values.shape != (schema.size,):
        raise CodecError(f"an update has shape ({schema.size},) by its schema, got {values.shape}")
    if values.dtype == np.float32:
        return np.require(values, requirements=("C", "W"))
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
    if out is None:
        out = np.empty(schema.size, np.float32)
    _decode(frame, schema, Target(out), round, client)
    return out


def decode_add(
    frame: bytes,
    schema: Schema,
    total: Flat,
    *,
    weight: float = 1.0,
    round: int | None = None,
    client: int | None = None,
) -> None:
    """Decode a frame and add it to a sum, total += weight * decoded in float32, mostly in one pass over memory.

    Args:
        frame: As `decode`.
        schema: As `decode`.
        total: The sum, shape (schema.size,), float32 and contiguous; on an error its content is undefined.
        weight: What the update counts; rounded to float32.
        round: As `decode`.
        client: As `decode`.

    Raises:
        FrameError: As `decode`.
        ValueError: When `total` is not as it must be, or float32 cannot hold `weight`.
    """
    if not abs(weight) <= float(np.finfo(np.float32).max):
        raise ValueError(f"weight must be finite in float32, got {weight}")
    _decode(frame, schema, Target(total, np.float32(weight)), round, client)


def opened(frame: bytes, schema: Schema, round: int | None, client: int | None) -> tuple[Codec, Source]:
    """The codec of a frame, and its pieces' bytes, after everything before them has been checked.

    Raises:
        FrameError: As `decode`, for what stands before the pieces.
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
    return codec, Source(body)


def _decode(frame: bytes, schema: Schema, target: Target, round: int | None, client: int | None) -> None:
    codec, source = opened(frame, schema, round, client)
    out = target.memory
    if out.shape != (schema.size,) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out must be contiguous float32 of shape ({schema.size},), got {out.dtype} {out.shape}")
    for piece in codec.pieces(schema):
        piece.scatter(source, target)
    if source.left:
        raise FrameError("trailing", f"{source.left} bytes are left over behind the last tensor")


def fp32_frame_length(schema: Schema) -> int:
    """Exact length of the frame of any update under the codec ``none``, in any round and from any client."""
    return envelope_length("none") + 4 * schema.size
