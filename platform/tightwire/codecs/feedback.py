"""Error feedback: what compression lost is remembered and added to the next update.

Seide et al. 2014; Karimireddy et al. 2019 (arXiv 1901.09847), algorithm 2. The residual is the client's explicit
state: a client that skips rounds keeps it as it is.
"""

import numba
import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, Encoded, decode, flat
from tightwire.wire.schema import Schema


def compensated(update: Flat, residual: Flat | None) -> Flat:
    """What is to be encoded: update + residual, shape (parameters,); the update itself where nothing is owed."""
    return update if residual is None else update + residual


def settle(owed: Flat, decoded: Flat) -> tuple[Flat, float]:
    """What is still owed once `decoded` has been taken in.

    Args:
        owed: What was encoded, shape (parameters,).
        decoded: What it decodes to, same shape.

    Returns:
        The new residual, owed - decoded; and the error (NMSE), its squared norm over that of `owed`, 0 for zeros.
    """
    residual = np.empty_like(owed)
    lost, norm = _subtract(owed, decoded, residual)
    return residual, lost / norm if norm > 0 else 0.0


def encode_with_feedback(
    codec: Codec,
    update: Flat,
    residual: Flat | None,
    schema: Schema,
    *,
    key: int,
    round: int,
    client: int,
) -> tuple[Encoded, Flat, Flat]:
    """Encode update + residual, for callers who need no step in between.

    Args:
        codec: How.
        update: Shape (schema.size,).
        residual: What the client still owes, same shape; None for nothing.
        schema: Their tensors.
        key: As `Codec.encode`.
        round: As `Codec.encode`.
        client: As `Codec.encode`.

    Returns:
        The frame; what it decodes to; and the new residual, update + residual - decoded. Both of shape (schema.size,).

    Raises:
        CodecError: As `Codec.encode`.
    """
    owed = compensated(flat(update, schema), residual)
    encoded = codec.encode(owed, schema, key=key, round=round, client=client)
    decoded = decode(encoded.frame, schema, round=round, client=client)
    return encoded, decoded, settle(owed, decoded)[0]


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
