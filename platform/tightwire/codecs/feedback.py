"""Error feedback: what compression lost is remembered and added to the next update.

Seide et al. 2014; Karimireddy et al. 2019 (arXiv 1901.09847), algorithm 2. The residual is the client's explicit
state: a client that skips rounds keeps it as it is.
"""

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, Encoded, decode, flat
from tightwire.wire.schema import Schema


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
    """Encode update + residual.

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
    owed = flat(update, schema) if residual is None else flat(update, schema) + flat(residual, schema)
    encoded = codec.encode(owed, schema, key=key, round=round, client=client)
    decoded = decode(encoded.frame, schema, round=round, client=client)
    return encoded, decoded, owed - decoded
