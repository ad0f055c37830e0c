"""Error feedback: what compression lost is remembered and made up for later.

A variant is a frozen record of two pure functions around the codec: `Feedback.owed` says what is to be encoded, and
`Feedback.settle` what the client remembers once it knows what that decodes to. The memory is the client's explicit
state: a client that skips rounds, or whose update is not used, keeps it as it was. Unbiased codecs need no feedback;
biased ones, such as `topk`, do not converge without (Karimireddy et al. 2019, section 3).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numba
import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, Encoded, Memory, decode, flat
from tightwire.wire.schema import Schema

RESIDUAL, SHIFT, MOMENTUM, VELOCITY = "residual", "shift", "momentum", "velocity"
OWN = frozenset((RESIDUAL, SHIFT, MOMENTUM, VELOCITY))
"""Arrays of a client's memory that belong to feedback, each of shape (parameters,); all others belong to stages."""


class Feedback(ABC):
    """One variant of error feedback."""

    name: ClassVar[str]
    source: ClassVar[str]
    accumulates: ClassVar[bool] = False
    """Whether messages are changes, of which the server keeps the sum over all rounds and clients."""

    @abstractmethod
    def owed(self, update: Flat, memory: Memory) -> tuple[Flat, Memory]:
        """What is to be encoded.

        Args:
            update: Shape (parameters,).
            memory: What this client remembers; empty for a newcomer. A name that is missing stands for zeros.

        Returns:
            The vector to encode, shape (parameters,); and what `settle` shall be told besides.
        """

    @abstractmethod
    def remembered(self, vector: Flat, residual: Flat, decoded: Flat, pending: Memory) -> Memory:
        """What the client remembers if the server uses its update; arrays of zeros may be in it."""

    def settle(self, vector: Flat, decoded: Flat, pending: Memory) -> tuple[Memory, float]:
        """What is left once the server has taken in `decoded`.

        Args:
            vector: What was encoded, shape (parameters,).
            decoded: What it decodes to, same shape.
            pending: What `owed` gave besides.

        Returns:
            What the client remembers, without arrays of zeros; and the error (NMSE): the squared norm of
            vector - decoded over that of `vector`, 0 for zeros.
        """
        residual, error = difference(vector, decoded)
        memory = self.remembered(vector, residual, decoded, pending)
        return {name: array for name, array in memory.items() if array.any()}, error


@dataclass(frozen=True, slots=True)
class Forget(Feedback):
    """None: what is lost is lost. Right for unbiased codecs."""

    name: ClassVar[str] = "none"
    source: ClassVar[str] = "Alistarh et al. 2017, arXiv 1610.02132, section 3"

    def owed(self, update: Flat, memory: Memory) -> tuple[Flat, Memory]:  # noqa: ARG002 - the interface's arguments
        """The update."""
        return update, {}

    def remembered(self, vector: Flat, residual: Flat, decoded: Flat, pending: Memory) -> Memory:  # noqa: ARG002 - as above
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Classic(Feedback):
    """The residual e is added to the next update: p = update + e is encoded as c, then e = p - decode(c)."""

    name: ClassVar[str] = "classic"
    source: ClassVar[str] = "Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847, algorithm 2"

    def owed(self, update: Flat, memory: Memory) -> tuple[Flat, Memory]:
        """The sum of update and residual; the update itself where nothing is owed."""
        residual = memory.get(RESIDUAL)
        return update if residual is None else update + residual, {}

    def remembered(self, vector: Flat, residual: Flat, decoded: Flat, pending: Memory) -> Memory:  # noqa: ARG002 - as above
        """The residual."""
        return {RESIDUAL: residual}


@dataclass(frozen=True, slots=True)
class Ef21(Feedback):
    """Client and server keep a shift g that follows the client's updates, and only the change travels.

    c = encode(update - g), then g = g + decode(c) at both ends. The server keeps no shift but the weighted mean of all
    clients' shifts, those of newcomers being zero, and steps by it; clients that do not take part leave theirs as they
    are. Where updates change slowly the changes shrink, and with them the error of any contraction. Clients round their
    shifts to float32 and the server's sum is exact, so the two agree to about 1e-7 of the shift a turn.
    """

    name: ClassVar[str] = "ef21"
    source: ClassVar[str] = (
        "Richtarik, Sokolov, Fatkhullin 2021, arXiv 2106.05203, algorithm 2; "
        "partial participation: Fatkhullin et al. 2021, arXiv 2110.03294, EF21-PP"
    )
    accumulates: ClassVar[bool] = True

    def owed(self, update: Flat, memory: Memory) -> tuple[Flat, Memory]:
        """The update less the shift, and the shift."""
        shift = memory.get(SHIFT)
        return (update, {}) if shift is None else (update - shift, {SHIFT: shift})

    def remembered(self, vector: Flat, residual: Flat, decoded: Flat, pending: Memory) -> Memory:  # noqa: ARG002 - as above
        """The shift after what was decoded."""
        return {SHIFT: pending[SHIFT] + decoded if SHIFT in pending else decoded}


@dataclass(frozen=True, slots=True)
class Dgc(Feedback):
    """Momentum correction: u = m u + update, v = v + u, and v is encoded; what was sent leaves both.

    Momentum is taken on the client before values wait in v, so that late values carry the momentum that they would have
    had. Where values were sent (decoded to other than 0), u is set to 0 (momentum factor masking), and v keeps what was
    lost: v - decoded, which the paper's exact values make 0.
    """

    factor: float
    """m, in [0, 1)."""

    name: ClassVar[str] = "dgc"
    source: ClassVar[str] = "Lin et al. 2018, arXiv 1712.01887, sections 3.1 and 3.2, algorithm 1"

    def owed(self, update: Flat, memory: Memory) -> tuple[Flat, Memory]:
        """The velocity v, and the momentum u."""
        momentum, velocity = memory.get(MOMENTUM), memory.get(VELOCITY)
        fresh = update if momentum is None else np.float32(self.factor) * momentum + update
        return fresh if velocity is None else velocity + fresh, {MOMENTUM: fresh}

    def remembered(self, vector: Flat, residual: Flat, decoded: Flat, pending: Memory) -> Memory:  # noqa: ARG002 - as above
        """Both, without what was sent."""
        return {MOMENTUM: np.where(decoded == 0, pending[MOMENTUM], np.float32(0)), VELOCITY: residual}


def for_stages(memory: Memory) -> Memory:
    """The part of a client's memory that its codec's stages left."""
    return {name: array for name, array in memory.items() if name not in OWN}


def difference(whole: Flat, part: Flat) -> tuple[Flat, float]:
    """`whole` - `part`, shape (n,), and its squared norm over that of `whole`, 0 for zeros."""
    rest = np.empty_like(whole)
    lost, norm = _subtract(whole, part, rest)
    return rest, lost / norm if norm > 0 else 0.0


def encode_with_feedback(
    codec: Codec,
    feedback: Feedback,
    update: Flat,
    schema: Schema,
    memory: Memory,
    *,
    key: int,
    round: int,
    client: int,
) -> tuple[Encoded, Flat, Memory]:
    """One turn of a sender, for callers who need no step in between.

    Args:
        codec: How.
        feedback: The variant.
        update: Shape (schema.size,).
        schema: Its tensors.
        memory: What the last turn returned; empty for the first.
        key: As `Codec.encode`.
        round: As `Codec.encode`.
        client: As `Codec.encode`.

    Returns:
        The frame; what it decodes to, shape (schema.size,); and what to remember of stages and feedback.

    Raises:
        CodecError: As `Codec.encode`.
    """
    vector, pending = feedback.owed(flat(update, schema), memory)
    encoded = codec.encode(vector, schema, key=key, round=round, client=client, memory=for_stages(memory))
    decoded = decode(encoded.frame, schema, round=round, client=client)
    remembered, _ = feedback.settle(vector, decoded, pending)
    return encoded, decoded, {**encoded.memory, **remembered}


@numba.njit(cache=True, nogil=True)
def _subtract(whole: Flat, part: Flat, rest: Flat) -> tuple[float, float]:
    """Rest = whole - part; returns the squared norms of rest and whole, summed in order so that they never vary."""
    lost = 0.0
    norm = 0.0
    for i in range(whole.size):
        rest[i] = whole[i] - part[i]
        lost += np.float64(rest[i]) * np.float64(rest[i])
        norm += np.float64(whole[i]) * np.float64(whole[i])
    return lost, norm
