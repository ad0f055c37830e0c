"""The policy `fixed`: one codec line for every client and round."""

from typing import Literal

from tightwire.policies.base import Decision, Observation, Outcome
from tightwire.policies.lines import CodecLine, NoState, constant
from tightwire.spec import Spec


class Fixed(Spec):
    """Sends with the same codec, always."""

    name: Literal["fixed"] = "fixed"
    codec: CodecLine = "topk(0.1) | uniform(4) | rans"
    """The codec line, such as ``topk(0.1) | uniform(4) | rans``."""

    def initial(self) -> NoState:
        """There is nothing to remember."""
        return NoState()

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The one codec."""
        return constant(self.codec, observation, "fixed"), state

    def learn(self, state: NoState, outcome: Outcome) -> NoState:  # noqa: ARG002 - the interface's
        """There is nothing to learn."""
        return state

    def dump(self, state: NoState) -> dict[str, float]:  # noqa: ARG002 - the interface's
        """No numbers."""
        return {}

    def load(self, numbers: dict[str, float]) -> NoState:  # noqa: ARG002 - the interface's
        """The inverse of `dump`."""
        return NoState()
