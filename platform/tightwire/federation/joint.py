"""Agreeing on one range for all clients of a round, so that the server adds integers (the stage `joint`).

Once trained, every client sends the largest magnitude of each of its tensors, a small frame. The server answers all of
them at once with the steps of grids that cover the largest; then clients encode. Frames that quote other steps are
refused. Codes times the clients' weights are added in int64 and made fixed point once, to the very bits that decoding
each frame first would give, because steps are integers in the round's fixed-point format.

Ranges are awaited for half of the deadline at most, so that time is left to send; who comes later cannot send, as the
grids might not cover it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tightwire.arrays import AnyArray, Flat, Sums
from tightwire.codecs.chain import slot
from tightwire.codecs.codec import Codec, Encoded, Memory, Piece, decode, opened
from tightwire.codecs.flatten import Flatten
from tightwire.codecs.joint import Joint, parts_of, step_for
from tightwire.codecs.stage import Layout, Plane, Target, Undo
from tightwire.devices.clock import Arrival, close_round
from tightwire.errors import ConfigError, FrameError
from tightwire.federation.aggregate import FixedPoint, check
from tightwire.federation.downlink import EVERYBODY
from tightwire.federation.tasks import Agreement, Offer
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Source

PATIENCE = 0.5
"""Fraction of the deadline for which ranges are awaited."""

MEASURING = 1.0
"""Passes over the update that finding its range takes."""


def has_joint(line: str) -> bool:
    """Whether any chain of a codec line has the stage `joint`."""
    codec = Codec.parse(line)
    chains = (codec.default, *(chain for _, chain in codec.rules))
    return any(isinstance(stage, Joint) for chain in chains for stage in chain.stages)


def joint_of(line: str) -> Codec | None:
    """The codec of `line` if it has the stage `joint`, else None.

    Raises:
        ConfigError: When `joint` is where sums of codes would not be sums of values.
    """
    codec = Codec.parse(line)
    chains = [codec.default, *(chain for _, chain in codec.rules)]
    for chain in chains:
        if not any(isinstance(stage, Joint) for stage in chain.stages):
            continue
        at = next(at for at, stage in enumerate(chain.stages) if isinstance(stage, Joint))
        before, behind = chain.stages[:at], chain.stages[at + 1 :]
        if not all(isinstance(stage, Flatten) for stage in before) or any(x.family != "entropy" for x in behind):
            raise ConfigError(
                f"codec `{line}`: the server adds the codes of joint, so only flatten may stand before it and only "
                f"entropy coding behind it; got `{chain}`"
            )
    return codec if has_joint(line) else None


@dataclass(frozen=True)
class Ranges:
    """What clients and server say to each other about the ranges of a codec's joint pieces."""

    codec: Codec
    schema: Schema

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces of an update that have a joint grid."""
        return tuple(piece for piece in self.codec.pieces(self.schema) if _is_joint(piece))

    @cached_property
    def words(self) -> Schema:
        """The schema of both messages: one value a piece."""
        return Schema.single(len(self.pieces), "range")

    def measure(self, vector: Flat) -> Flat:
        """The largest magnitude of each piece of what is to be encoded, shape (pieces,)."""
        return np.array([np.max(np.abs(piece.gather(vector))) for piece in self.pieces], np.float32)

    def say(self, words: Flat, *, round: int, client: int) -> Encoded:
        """A frame of peaks or of steps, shape (pieces,)."""
        return Codec.parse("none").encode(words, self.words, key=0, round=round, client=client)

    def hear(self, frame: bytes, *, round: int, client: int) -> Flat:
        """The inverse of `say`.

        Raises:
            FrameError: It is no such frame.
        """
        return decode(frame, self.words, round=round, client=client)

    def agree(
        self,
        offers: Sequence[Offer],
        fixed: FixedPoint,
        *,
        round: int,
        deadline: float | None,
        opened: Callable[[bytes, int], bytes] | None = None,
    ) -> Agreement:
        """What the server answers; independent of the order of `offers`.

        Args:
            offers: One of each client that was asked to train.
            fixed: The round's fixed-point format.
            round: The round's number.
            deadline: Of the round; see `PATIENCE`.
            opened: (what arrives, client) -> the frame in it, or raises FrameError; None where it is the frame.
        """
        arrivals = [Arrival(offer.client, offer.arrival) for offer in offers]
        limit = None if deadline is None else deadline * PATIENCE
        closing = close_round(arrivals, wanted=len(arrivals), deadline=limit)
        in_time = frozenset(closing.accepted)
        peaks = np.zeros(len(self.pieces), np.float32)
        outcomes: dict[int, str] = {}
        for offer in offers:
            if offer.frame is None or offer.client not in in_time:
                outcomes[offer.client] = "late"
                continue
            try:
                frame = offer.frame if opened is None else opened(offer.frame, offer.client)
                told = self.hear(frame, round=round, client=offer.client)
                check(told)
                if np.any(told < 0):
                    raise FrameError("scales", f"a magnitude is at least 0, got {told.min():g}")
            except FrameError as refusal:
                outcomes[offer.client] = refusal.reason
                continue
            outcomes[offer.client] = ""
            peaks = np.maximum(peaks, told)
        steps = [
            step_for(float(peak), _joint(piece).levels, -fixed.fraction_bits)
            for peak, piece in zip(peaks, self.pieces, strict=True)
        ]
        answer = self.say(np.array(steps, np.float32), round=round, client=EVERYBODY)
        agreed = self.hear(answer.frame, round=round, client=EVERYBODY)
        return Agreement(agreed, closing.seconds, answer.sections, outcomes)

    def memory(self, steps: Flat) -> Memory:
        """The steps as the encoder wants them, in the joint stages' slots."""
        return {
            slot(piece.part, _index(piece), _joint(piece)): np.array([step], np.float32)
            for piece, step in zip(self.pieces, steps, strict=True)
        }


@dataclass(frozen=True)
class Reals:
    """Adds up updates by what their frames decode to."""

    schema: Schema
    fixed: FixedPoint
    round: int

    def take(self, frame: bytes, client: int) -> AnyArray:
        """What a frame adds.

        Raises:
            FrameError: It is refused.
        """
        decoded = decode(frame, self.schema, round=self.round, client=client)
        check(decoded)
        return decoded

    def add(self, total: Sums, addend: AnyArray, weight: int) -> None:
        """Add `weight` times what `take` gave, in place."""
        self.fixed.add(total, addend, weight)

    def conclude(self, total: Sums) -> None:
        """Make a sum fixed point: it is."""


@dataclass(frozen=True)
class Grids:
    """Adds up updates by their codes on the round's joint grids; other pieces in fixed point."""

    ranges: Ranges
    steps: Flat
    """Shape (pieces,)."""
    fixed: FixedPoint
    round: int

    def take(self, frame: bytes, client: int) -> AnyArray:
        """What a frame adds: int64, codes from 0 at zero where there is a grid, else fixed point.

        Raises:
            FrameError: It is refused; ``scales`` when it is not on the round's grids.
        """
        codec, source = opened(frame, self.ranges.schema, self.round, client)
        if codec != self.ranges.codec:
            raise FrameError("codec", f"the frame is in `{codec}`, expected `{self.ranges.codec}`")
        units = np.empty(self.ranges.schema.size, np.int64)
        agreed = iter(self.steps)
        for piece in self.ranges.codec.pieces(self.ranges.schema):
            if not _is_joint(piece):
                values = np.empty(piece.part.size, np.float32)
                piece.chain.decode(source, piece.part, Target(values))
                check(values)
                found = np.zeros(piece.part.size, np.int64)
                self.fixed.add(found, values, 1)
            else:
                step = float(next(agreed))
                found = _codes(piece, source, step)
                check(np.array([np.abs(found).max(initial=0) * step], np.float32))
            start = 0
            for place in piece.places:
                units[place] = found[start : start + place.stop - place.start]
                start += place.stop - place.start
        if source.left:
            raise FrameError("trailing", f"{source.left} bytes are left over behind the last tensor")
        return units

    def add(self, total: Sums, addend: AnyArray, weight: int) -> None:
        """Add `weight` times what `take` gave, in place."""
        total += weight * addend

    def conclude(self, total: Sums) -> None:
        """Make a sum of what was added fixed point, in place and exactly."""
        for piece, step in zip(self.ranges.pieces, self.steps, strict=True):
            mantissa, exponent = parts_of(float(step))
            for place in piece.places:
                total[place] *= mantissa << (exponent + self.fixed.fraction_bits)


def _codes(piece: Piece, source: Source, agreed: float) -> Sums:
    """The codes of a joint piece, without the reals that they stand for, from 0 at zero."""
    layout: Layout = piece.part.layout
    undos: list[Undo] = []
    for stage in piece.chain.stages[: _index(piece)]:
        layout, _ = stage.read(layout, source)
    joint = _joint(piece)
    step = joint.read_step(source)
    if step != agreed:
        raise FrameError("scales", f"the round's clients agreed on the step {agreed:g}, got {step:g}")
    codes = layout = joint.layout(layout.count)
    for stage in piece.chain.stages[_index(piece) + 1 :]:
        layout, undo = stage.read(layout, source)
        undos.append(undo)
    plane = Plane(layout, source.array(layout.length))
    for undo in reversed(undos):
        plane = undo(plane, None)
    return joint.codes(plane, codes.count).astype(np.int64) - joint.levels


def _is_joint(piece: Piece) -> bool:
    return any(isinstance(stage, Joint) for stage in piece.chain.stages)


def _index(piece: Piece) -> int:
    return next(at for at, stage in enumerate(piece.chain.stages) if isinstance(stage, Joint))


def _joint(piece: Piece) -> Joint:
    return next(stage for stage in piece.chain.stages if isinstance(stage, Joint))
