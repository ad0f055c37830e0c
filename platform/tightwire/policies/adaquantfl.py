"""The policy `adaquantfl`: more levels as the training loss falls."""

import math
from typing import Literal, final

from pydantic import Field, model_validator

from tightwire.policies.base import Alone, Closed, Cohort, Decision, NoState, Numbers, Observation, Plan
from tightwire.policies.levels_of import check_range, check_template, clamped, filled, sent, told


@final
class AdaQuantFL(Alone):
    """AdaQuantFL: s_k = s_0 sqrt(F(w_0) / F(w_k)) quantisation levels in round k, for all clients.

    Jhunjhunwala et al. 2021, "Adaptive quantization of model updates for communication-efficient federated learning",
    arXiv 2102.04487, rounded up. Ascending: levels rise as the loss falls.

    Where this differs from the paper: F is the mean training loss of the cohort, weighted by samples, and not of all
    clients, which would cost a message of each in every round; it is the mean over the local epochs; and it is that of
    the last round that closed, so that the first two rounds take s_0. A loss that is not finite, or not positive, is
    passed over. Levels are bounded by `max_levels`. The code is QSGD's, and an entropy coder follows.
    """

    name: Literal["adaquantfl"] = "adaquantfl"
    levels: int = Field(default=2, ge=1, le=32767)
    """s_0, levels in the first round; the paper takes 2."""
    max_levels: int = Field(default=1023, ge=1, le=32767)
    """Most levels that are asked for."""
    min_levels: int = Field(default=1, ge=1, le=32767)
    """Fewest levels that are asked for, should the loss rise."""
    codec: str = "qsgd(levels={levels}) | rans"
    """Template of the codec line, with ``{levels}`` in it."""

    @model_validator(mode="after")
    def _makes_lines(self) -> "AdaQuantFL":
        check_range(self.min_levels, self.levels, self.max_levels)
        least = self.min_levels
        check_template(self.codec, "levels", (least, min(least + 1, self.max_levels), self.max_levels))
        return self

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The levels that the server told; s_0 where it told nothing."""
        levels = clamped(told(observation.told, "levels", self.levels), self.min_levels, self.max_levels)
        reason = "first levels" if levels == self.levels else "loss fell" if levels > self.levels else "loss rose"
        return sent(filled(self.codec, "levels", levels), observation, reason), state

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """The same number of levels for all."""
        levels = float(self.levels)
        if "first" in shared:
            levels = float(
                max(levels_at(shared["first"], shared["last"], self.levels, self.max_levels), self.min_levels)
            )
        return {member.client: {"levels": levels} for member in cohort.members}, shared

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Keeps the first loss and the last."""
        loss = closed.loss
        if loss is None or not 0 < loss < math.inf:
            return shared
        return {"first": shared.get("first", loss), "last": loss}


def levels_at(first: float, last: float, levels: int, most: int) -> int:
    """s_k = ceil(s_0 sqrt(F(w_0) / F(w_k))), from 1 to `most`.

    Args:
        first: F(w_0), positive and finite.
        last: F(w_k), likewise.
        levels: s_0.
        most: Most levels.
    """
    ratio = first / last
    return most if math.isinf(ratio) else min(max(math.ceil(min(levels * math.sqrt(ratio), most)), 1), most)
