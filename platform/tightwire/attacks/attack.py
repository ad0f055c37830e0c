"""What hostile clients do, as a part of the experiment; the simulated server is told nothing of it.

Labels are turned before training; updates are spoiled before the client's error feedback and codec, so that its frames
are in perfect order; and frames are tampered with as bytes. Every attack leaves the hostile client's device, link and
clock as they are.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from tightwire.arrays import AnyArray, Flat, Ints
from tightwire.codecs.codec import Codec, Encoded
from tightwire.codecs.sums import norms
from tightwire.keys import generator, key
from tightwire.spec import Spec
from tightwire.wire.frame import amended
from tightwire.wire.ledger import Sections
from tightwire.wire.schema import Schema

Kind = Literal[
    "label_flip",
    "sign_flip",
    "scale",
    "noise",
    "nan",
    "infinite",
    "huge",
    "replay",
    "forge",
    "impersonate",
    "wrong_round",
    "oversized",
]

STRENGTHS: Mapping[Kind, float] = {"sign_flip": 1.0, "scale": 10.0, "noise": 10.0, "huge": 1e30, "forge": 10.0}
"""Strengths where the experiment gives none; the other kinds have none."""

EARLIER, BILL = "attack/earlier", "attack/bill"
"""Names in the memory of a client that replays: an earlier frame, as uint8, and its bytes by section."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One upload of a hostile client, before it goes out."""

    encoded: Encoded
    """What an honest client would send."""
    vector: Flat
    """What that encodes, shape (parameters,)."""
    codec: Codec
    schema: Schema
    round: int
    client: int
    others: int
    """Clients of the population."""
    seed: int
    memory: Mapping[str, AnyArray]
    """What the client remembers."""


@dataclass(frozen=True, slots=True)
class Tampered:
    """What it sends instead."""

    frame: bytes
    sections: Sections
    signed: bool = True
    """Whether its sender holds the client's key."""
    remembered: Mapping[str, AnyArray] = field(default_factory=dict)
    """What the client is to remember besides if the server uses this."""


class Attack(Spec):
    """Clients that mean harm. None by default."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Share of the population that is hostile, for good; keyed by the seed, so that whoever is hostile at a lower share
    is so at a higher one, whatever else differs."""
    kind: Kind = "sign_flip"
    """What they do. To what they learn from: `label_flip` (class y becomes classes - 1 - y). To their updates u:
    `sign_flip` (-strength u), `scale` (strength u), `noise` (u plus Gaussian noise of strength times its norm). To
    their frames: values that are `nan`, `infinite` or `huge` (strength), in fp32; `replay` (the bytes of an earlier
    one); `forge` (an outsider without the client's key sends -strength u in its name); `impersonate` (another client's
    number in the header); `wrong_round` (the next round's number); `oversized` (a length of 2**62 bytes)."""
    strength: float | None = Field(default=None, gt=0)
    """How hard; null takes 1 for sign_flip, 10 for scale, noise and forge, 1e30 for huge. The other kinds have none."""

    @model_validator(mode="after")
    def _strength_is_used(self) -> "Attack":
        if self.strength is not None and self.kind not in STRENGTHS:
            raise ValueError(
                f"strength is {self.strength:g}, but {self.kind} has none; leave it out, or use a kind that has: "
                f"{', '.join(STRENGTHS)}"
            )
        return self

    def hostile(self, client: int, *, clients: int, seed: int) -> bool:
        """Whether a client of a population of `clients` means harm."""
        return self.share > 0 and bool(_hostile(self.share, clients, seed)[client])

    def labels(self, y: Ints, classes: int) -> Ints:
        """The labels that a hostile client learns from, shape (samples,)."""
        return classes - 1 - y if self.kind == "label_flip" else y

    def spoiled(self, update: Flat, *, round: int, client: int, seed: int) -> Flat:
        """The update that a hostile client passes off as its own, shape (parameters,)."""
        strength = np.float32(self._strength)
        with np.errstate(over="ignore"):
            if self.kind == "sign_flip":
                return update * -strength
            if self.kind == "scale":
                return update * strength
            if self.kind == "noise":
                rng = generator(seed, "attack noise", round=round, client=client)
                scale = self._strength * float(norms(update, update.size)[0]) / update.size**0.5
                return update + np.float32(scale) * rng.standard_normal(update.size, np.float32)
        return update

    def tampered(self, sending: Sending) -> Tampered:
        """The frame that a hostile client sends."""
        frame, sections = sending.encoded.frame, sending.encoded.sections
        if self.kind == "wrong_round":
            return Tampered(amended(frame, round=sending.round + 1), sections)
        if self.kind == "impersonate":
            return Tampered(amended(frame, client=_other(sending)), sections)
        if self.kind == "oversized":
            return Tampered(amended(frame, length=2**62), sections)
        if self.kind == "replay":
            return _replayed(sending)
        if self.kind == "forge":
            forged = sending.codec.encode(
                sending.vector * -np.float32(self._strength),
                sending.schema,
                key=key(sending.seed, "forged", round=sending.round, client=sending.client),
                round=sending.round,
                client=sending.client,
                memory=sending.encoded.memory,
            )
            return Tampered(forged.frame, forged.sections, signed=False)
        if self.kind in _VALUES:
            return _with_value(sending, _VALUES[self.kind] * self._strength)
        return Tampered(frame, sections)

    @property
    def _strength(self) -> float:
        return STRENGTHS.get(self.kind, 1.0) if self.strength is None else self.strength


@lru_cache(maxsize=4)
def _hostile(share: float, clients: int, seed: int) -> npt.NDArray[np.bool_]:
    """Who means harm, shape (clients,)."""
    return generator(seed, "hostile").permutation(clients) < round(share * clients)


_VALUES = {"nan": float("nan"), "infinite": float("inf"), "huge": 1.0}


def _other(sending: Sending) -> int:
    """Any client but this one, or a number that nobody has where there is but one."""
    drawn = key(sending.seed, "impersonated", round=sending.round, client=sending.client) % max(sending.others - 1, 1)
    return drawn + (drawn >= sending.client)


def _replayed(sending: Sending) -> Tampered:
    """The first frame that the server used; an honest one until then."""
    earlier = sending.memory.get(EARLIER)
    if earlier is not None:
        kept = {EARLIER: earlier, BILL: sending.memory[BILL]}
        return Tampered(earlier.tobytes(), Sections(*kept[BILL].tolist()), remembered=kept)
    frame, sections = sending.encoded.frame, sending.encoded.sections
    kept = {EARLIER: np.frombuffer(frame, np.uint8).copy(), BILL: np.array(astuple(sections), np.int64)}
    return Tampered(frame, sections, remembered=kept)


def _with_value(sending: Sending, value: float) -> Tampered:
    """A frame of raw fp32 values, the first of which is `value`; no encoder makes it."""
    honest = Codec.parse("none").encode(
        sending.vector, sending.schema, key=0, round=sending.round, client=sending.client
    )
    return Tampered(amended(honest.frame, body=np.array([value], "<f4").tobytes()), honest.sections)
