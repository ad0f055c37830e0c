"""Codec lines as policies write and describe them."""

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator

from tightwire.codecs.codec import Codec
from tightwire.errors import CodecError
from tightwire.policies.base import Decision, NoState, Observation

__all__ = ["CodecLine", "Entropy", "NoState", "constant", "quantised"]

Entropy = Literal["rans", "none"]
"""Entropy coders that a chain can end in."""


@lru_cache(maxsize=65536)
def quantised(bits: int, density: float, entropy: Entropy) -> str:
    """The line ``topk(density) | uniform(bits) | entropy``, without the stages that would do nothing."""
    stages = [f"uniform({bits})"]
    if density < 1:
        stages.insert(0, f"topk({density})")
    if entropy != "none":
        stages.append(entropy)
    return " | ".join(stages)


def constant(line: str, observation: Observation, reason: str) -> Decision:
    """The decision to send with `line`, whatever the update looks like."""
    codec, schema = Codec.parse(line), observation.schema
    return Decision(codec=line, bits=codec.bits(schema), density=codec.density(schema), reason=reason)


def _canonical(line: str) -> str:
    try:
        return str(Codec.parse(line))
    except CodecError as error:
        raise ValueError(str(error)) from None


CodecLine = Annotated[str, AfterValidator(_canonical)]
"""A codec line in an experiment file; it parses, and is kept as the codec prints itself."""
