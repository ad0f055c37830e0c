"""The policy `schedule`: codec lines by round."""

from itertools import pairwise
from typing import Literal, final

from pydantic import ConfigDict, Field, field_validator

from tightwire.policies.base import Alone, Decision, NoState, Observation
from tightwire.policies.levels_of import AloneLine, sent
from tightwire.spec import Spec


@final
class Step(Spec):
    """A codec line and the round from which it is used."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    start: int = Field(alias="from", ge=1)
    """First round with this line; rounds count from 1."""
    codec: AloneLine
    """The codec line."""


@final
class Schedule(Alone):
    """Sends with the line of the round, the same for all clients.

    A plan made before the run, such as ascending or descending bits: the two trends that the literature's adaptive
    policies follow (ascending: AdaQuantFL, Jhunjhunwala et al. 2021, arXiv 2102.04487; descending: FedDQ, Qu et al.
    2021, arXiv 2110.02291), without their signals. What they gain over a plan is what the signals are worth.
    """

    name: Literal["schedule"] = "schedule"
    codecs: tuple[Step, ...] = Field(
        default=(
            Step(start=1, codec="uniform(2) | rans"),
            Step(start=21, codec="uniform(4) | rans"),
            Step(start=41, codec="uniform(8) | rans"),
        ),
        min_length=1,
    )
    """Lines and their first rounds, such as ``[{from: 1, codec: "uniform(2) | rans"}, ...]``; rounds rise, from 1."""

    @field_validator("codecs")
    @classmethod
    def _rises_from_one(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        starts = [step.start for step in steps]
        if starts[0] != 1 or any(later <= earlier for earlier, later in pairwise(starts)):
            raise ValueError(f"`from` must be 1 in the first and rise from line to line, got {starts}")
        return steps

    @property
    def lines(self) -> tuple[str, ...]:
        """Those of all steps."""
        return tuple(part.codec for part in self.codecs)

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The last line whose first round has come."""
        step = next((step for step in reversed(self.codecs) if step.start <= observation.round), self.codecs[0])
        return sent(step.codec, observation, f"from round {step.start}"), state
