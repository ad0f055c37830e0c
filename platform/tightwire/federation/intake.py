"""The server's door: everything that an upload has to pass before it can change the model, and what it adds.

    message -> its tag, where frames are authenticated -> the frame -> its update -> finite, bounded, of no absurd norm

A refusal is about one upload and has a reason; nothing else of the round depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tightwire.arrays import AnyArray, Flat, Sums
from tightwire.codecs.codec import decode
from tightwire.codecs.sums import norms
from tightwire.errors import RefusedUpdateError
from tightwire.federation.aggregate import FixedPoint
from tightwire.federation.joint import Grids, Ranges, Reals
from tightwire.federation.tasks import Bounds, Broadcast
from tightwire.wire.authentication import Gate
from tightwire.wire.schema import Schema


@dataclass(frozen=True, slots=True)
class Taken:
    """An upload that was let in."""

    addend: AnyArray
    """What it adds; see `Reals.take` and `Grids.take`. Scaled down to `Bounds.clip` where it is longer."""
    update: Flat
    """What the frame decodes to, shape (parameters,)."""
    norm: float
    """The Euclidean norm of `update`; 0 where the round has no bounds, since nobody asks."""


class LongUpdateError(RefusedUpdateError):
    """An update of a norm that the server does not let in; the reason is ``norm``."""

    def __init__(self, norm: float, most: float) -> None:
        super().__init__("norm", f"the update's norm is {norm:g}; at most {most:g} is let in")
        self.norm = norm


@dataclass(frozen=True, slots=True)
class Intake:
    """What one round does with the uploads that arrive."""

    sums: Reals | Grids
    schema: Schema
    bounds: Bounds | None
    gate: Gate | None = None

    def opened(self, message: bytes, client: int) -> bytes:
        """The frame in a message; once for each client.

        Raises:
            FrameError: It is not authentic; see `Gate.open`.
        """
        return message if self.gate is None else self.gate.open(message, client)

    def take(self, frame: bytes, client: int) -> Taken:
        """Check a frame, and decode it.

        Raises:
            LongUpdateError: The update is longer than `Bounds.refuse`.
            FrameError: It is refused for another reason.
        """
        addend = self.sums.take(frame, client)
        update = addend if isinstance(self.sums, Reals) else decode(frame, self.schema)
        if self.bounds is None:
            return Taken(addend, update, 0.0)
        norm = float(norms(update, max(update.size, 1))[0]) if update.size else 0.0
        refuse, clip = self.bounds.refuse, self.bounds.clip
        if refuse is not None and norm > refuse:
            raise LongUpdateError(norm, refuse)
        if clip is not None and norm > clip:
            addend = update * np.float32(clip / norm)
        return Taken(addend, update, norm)

    def add(self, total: Sums, addend: AnyArray, weight: int) -> None:
        """Add `weight` times an addend, in place."""
        self.sums.add(total, addend, weight)

    def conclude(self, total: Sums) -> None:
        """Make a sum fixed point, in place."""
        self.sums.conclude(total)

    @property
    def fixed(self) -> FixedPoint:
        """The round's fixed-point format."""
        return self.sums.fixed


def intake(
    schema: Schema, ranges: Ranges | None, broadcast: Broadcast, keys: Callable[[int], bytes] | None = None
) -> Intake:
    """What a round does with uploads.

    Args:
        schema: Of the updates.
        ranges: What clients agree on, if anything.
        broadcast: The round.
        keys: Client -> its key; None where frames are not authenticated.
    """
    fixed = FixedPoint.for_weight(broadcast.weight)
    sums: Reals | Grids = Reals(schema, fixed, broadcast.round)
    if broadcast.agreement is not None and ranges is not None:
        sums = Grids(ranges, broadcast.agreement.steps, fixed, broadcast.round)
    return Intake(sums, schema, broadcast.bounds, None if keys is None else Gate(keys, broadcast.round))
