"""The policy `fixed`: one codec line for every client and round."""

from typing import Literal

from tightwire.policies.base import Alone, Decision, NoState, Observation
from tightwire.policies.lines import CodecLine, constant


class Fixed(Alone):
    """Sends with the same codec, always."""

    name: Literal["fixed"] = "fixed"
    codec: CodecLine = "topk(0.1) | uniform(4) | rans"
    """The codec line, such as ``topk(0.1) | uniform(4) | rans``."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The one."""
        return (self.codec,)

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The one codec."""
        return constant(self.codec, observation, "fixed"), state
