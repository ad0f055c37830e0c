"""The policy `tiered`: a table of codec lines by device tier."""

from typing import Literal

from pydantic import Field

from tightwire.policies.base import Alone, Decision, NoState, Observation
from tightwire.policies.lines import CodecLine, constant


class Tiered(Alone):
    """Sends with the codec of the client's tier."""

    name: Literal["tiered"] = "tiered"
    codecs: dict[str, CodecLine] = Field(default_factory=dict)
    """Codec line by tier name."""
    default: CodecLine = "topk(0.1) | uniform(4) | rans"
    """Codec line of the tiers that the table does not name."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The default one, and those of the table."""
        return (self.default, *self.codecs.values())

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The tier's codec, or the default one."""
        tier = observation.tier
        if tier in self.codecs:
            return constant(self.codecs[tier], observation, f"tier {tier}"), state
        return constant(self.default, observation, "default of all tiers"), state
