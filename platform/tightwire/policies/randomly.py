"""The policy `random`: a codec line drawn anew for each client and round."""

from typing import Literal, final

from pydantic import Field

from tightwire.keys import key
from tightwire.policies.base import Alone, Decision, NoState, Observation
from tightwire.policies.levels_of import AloneLine, sent
from tightwire.spec import Spec


@final
class Choice(Spec):
    """A codec line and how often it is drawn."""

    codec: AloneLine
    """The codec line."""
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Its chance, relative to the other lines'."""


@final
class Random(Alone):
    """Draws the line by chance: what any policy that looks at something must beat.

    The draw depends on the run's seed, the round and the client alone.
    """

    name: Literal["random"] = "random"
    codecs: tuple[Choice, ...] = Field(
        default=(
            Choice(codec="uniform(2) | rans"),
            Choice(codec="uniform(4) | rans"),
            Choice(codec="uniform(8) | rans"),
        ),
        min_length=1,
    )
    """Lines to draw from, such as ``[{codec: "uniform(2) | rans", weight: 2}, ...]``."""

    @property
    def lines(self) -> tuple[str, ...]:
        """All that can be drawn."""
        return tuple(part.codec for part in self.codecs)

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The line into whose share of the weights the draw falls."""
        drawn = key(observation.draws, "policy", round=observation.round, client=observation.client) / 2**64
        left = drawn * sum(choice.weight for choice in self.codecs)
        line = self.codecs[-1].codec
        for choice in self.codecs:
            if left < choice.weight:
                line = choice.codec
                break
            left -= choice.weight
        return sent(line, observation, "drawn"), state
