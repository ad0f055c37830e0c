"""The policy `tiered`: a table of codec lines by device tier."""

from typing import Literal

from pydantic import Field

from tightwire.policies.base import Decision, Observation, Outcome
from tightwire.policies.lines import CodecLine, NoState, constant
from tightwire.spec import Spec


class Tiered(Spec):
    """Sends with the codec of the client's tier."""

    name: Literal["tiered"] = "tiered"
    codecs: dict[str, CodecLine] = Field(default_factory=dict)
    """Codec line by tier name."""
    default: CodecLine = "topk(0.1) | uniform(4) | rans"
    """Codec line of the tiers that the table does not name."""

    def initial(self) -> NoState:
        """There is nothing to remember."""
        return NoState()

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The tier's codec, or the default one."""
        tier = observation.tier
        if tier in self.codecs:
            return constant(self.codecs[tier], observation, f"tier {tier}"), state
        return constant(self.default, observation, "default of all tiers"), state

    def learn(self, state: NoState, outcome: Outcome) -> NoState:  # noqa: ARG002 - the interface's
        """There is nothing to learn."""
        return state

    def dump(self, state: NoState) -> dict[str, float]:  # noqa: ARG002 - the interface's
        """No numbers."""
        return {}

    def load(self, numbers: dict[str, float]) -> NoState:  # noqa: ARG002 - the interface's
        """The inverse of `dump`."""
        return NoState()
