"""The model's way to the clients: what they hold, what they are sent, and what that weighs.

All clients decode the same public model. Uncompressed, it is the server's model itself. Compressed, each round's public
model is the last one plus what a frame of the difference decodes to, so the server owes the rest to the next round and
no separate residual is needed: the difference is always taken against what the clients really hold, and what is left of
it is the residual of classic error feedback on the model's steps. A returning client gets the frames it missed or the
full model, whichever is smaller.
"""

from dataclasses import dataclass, field

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, Memory, decode
from tightwire.keys import key
from tightwire.wire.ledger import Sections
from tightwire.wire.schema import Schema

EVERYBODY = 2**32 - 1
"""The client number in the header of a broadcast frame."""

NEVER = -1
"""The version held by a client that has never been sent a model."""


@dataclass(frozen=True, slots=True)
class Public:
    """What the clients can hold: the newest public model, and what the frames that lead to it weigh."""

    model: Flat
    """Shape (parameters,)."""
    version: int = 0
    """Rounds published before this one."""
    recent: tuple[Sections, ...] = ()
    """The frames of the last versions, the newest last; only as many as together weigh less than the whole model."""
    memory: Memory = field(default_factory=dict)
    """What stages of the downlink's codec left on the server for the next version."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one client is sent so that it holds the newest public model."""

    codec: str
    sections: Sections
    frames: int


@dataclass(frozen=True, slots=True)
class Downlink:
    """The rules of the downlink for one codec line."""

    line: str
    schema: Schema
    seed: int

    @property
    def compressed(self) -> bool:
        """Whether the clients' model can differ from the server's."""
        return self.line != "none"

    def whole(self) -> Delivery:
        """The full model in fp32, really encoded; every model's frame weighs the same."""
        zeros = np.zeros(self.schema.size, np.float32)
        return Delivery("none", Codec.parse("none").encode(zeros, self.schema, key=0, round=0, client=0).sections, 1)

    def publish(self, public: Public | None, model: Flat, whole: Delivery) -> Public:
        """The next public version, as near to `model` as the codec brings it."""
        if public is None:
            return Public(model)
        version = public.version + 1
        if not self.compressed:
            return Public(model, version)
        encoded = Codec.parse(self.line).encode(
            model - public.model,
            self.schema,
            key=key(self.seed, "downlink", round=version),
            round=version,
            client=EVERYBODY,
            memory=public.memory,
        )
        step = decode(encoded.frame, self.schema, round=version, client=EVERYBODY)
        recent = (*public.recent, encoded.sections)
        while recent and sum(recent, Sections()).total >= whole.sections.total:
            recent = recent[1:]
        return Public(public.model + step, version, recent, encoded.memory)

    def deliver(self, public: Public, held: int, whole: Delivery) -> Delivery:
        """What a client that holds version `held` is sent: the missed frames or `whole`, whichever is smaller."""
        missed = public.version - held
        if held == NEVER or missed > len(public.recent):
            return whole
        return Delivery(self.line, sum(public.recent[len(public.recent) - missed :], Sections()), missed)
