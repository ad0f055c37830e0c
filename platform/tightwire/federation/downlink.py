"""The model's way to the clients: what they hold, what they are sent, and what that weighs.

All clients decode the same public model. Uncompressed, it is the server's model itself. Compressed, each round's public
model is the last one plus what a frame of the difference decodes to, so the server owes the rest to the next round and
no separate residual is needed (the difference is always taken against what the clients really hold). A returning
client gets the frames it missed or the full model, whichever is smaller.
"""

from dataclasses import dataclass, field

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode
from tightwire.keys import key
from tightwire.wire.ledger import Sections
from tightwire.wire.schema import Schema

EVERYBODY = 2**32 - 1
"""The client number in the header of a broadcast frame."""

NEVER = -1
"""The version held by a client that has never been sent a model."""


@dataclass(frozen=True, slots=True)
class Public:
    """What the clients can hold: the newest public model, and the weight of the frame that led to each version."""

    model: Flat
    """Shape (parameters,)."""
    deltas: tuple[Sections, ...] = field(default=())
    """`deltas[v]` is the frame from version v - 1 to version v; the first entry stands for nothing and is empty."""

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return len(self.deltas) - 1


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

    def publish(self, public: Public | None, model: Flat) -> Public:
        """The next public version, as near to `model` as the codec brings it."""
        if public is None:
            return Public(model, (Sections(),))
        version = public.version + 1
        if not self.compressed:
            return Public(model, (*public.deltas, Sections()))
        encoded = Codec.parse(self.line).encode(
            model - public.model,
            self.schema,
            key=key(self.seed, "downlink", round=version),
            round=version,
            client=EVERYBODY,
        )
        step = decode(encoded.frame, self.schema, round=version, client=EVERYBODY)
        return Public(public.model + step, (*public.deltas, encoded.sections))

    def whole(self, public: Public) -> Delivery:
        """The full model in fp32, really encoded."""
        encoded = Codec.parse("none").encode(
            public.model,
            self.schema,
            key=key(self.seed, "whole", round=public.version),
            round=public.version,
            client=EVERYBODY,
        )
        return Delivery("none", encoded.sections, 1)

    def deliver(self, public: Public, held: int, whole: Delivery) -> Delivery:
        """What a client that holds version `held` is sent: the missed frames or `whole`, whichever is smaller."""
        if held == NEVER or not self.compressed:
            return whole
        missed = public.deltas[held + 1 :]
        sections = sum(missed, Sections())
        return Delivery(self.line, sections, len(missed)) if sections.total < whole.sections.total else whole
