"""The policy `dadaquant`: levels that double when the loss stalls, shared out among clients by their samples."""

import math
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Literal, final

from pydantic import Field, model_validator

from tightwire.policies.base import Alone, Closed, Cohort, Decision, NoState, Numbers, Observation, Plan
from tightwire.policies.levels_of import check_range, check_template, clamped, filled, sent, told

_MOST = 32767
"""Most levels that QSGD has."""
_CONTEXT = Context(prec=20)
_TWO_THIRDS = _CONTEXT.divide(Decimal(2), Decimal(3))


@final
class DAdaQuant(Alone):
    """DAdaQuant: quantisation levels adapted over time and between clients.

    Hoenig et al. 2022, "DAdaQuant: Doubly-adaptive quantization for communication-efficient federated learning", ICML,
    arXiv 2111.00465, algorithm 1. Over time (section 3.4), q doubles when the moving average of the training loss is no
    lower than in the first of the last `patience` rounds, and q was the same in all of these. Between clients
    (section 3.5, theorem 1), client i of a round takes q_i = max(1, round(sqrt(a / b) w_i^(2/3))) with
    a = sum w_j^(2/3), b = sum w_j^2 / q^2 and w its share of the samples: the fewest levels in sum for which the
    aggregate's expected variance is that of q for everybody.

    Where this differs from the paper: the loss is the mean over the local epochs that the clients train anyway, and
    not that of an evaluation before them; `patience` is a number of rounds and not a tenth of the run, whose length
    policies do not know; the weights are those of the clients that are asked, some of which may then not be used; and
    a loss that is not finite is passed over.
    """

    name: Literal["dadaquant"] = "dadaquant"
    adapts: Literal["both", "time", "clients"] = "both"
    """What the levels follow: `time` gives all clients of a round the same; `clients` never doubles."""
    levels: int = Field(default=1, ge=1, le=32767)
    """q of the first rounds; of all rounds where time is not adapted to."""
    max_levels: int = Field(default=32, ge=1, le=32767)
    """q stops doubling here. A client with many samples may take more."""
    min_levels: int = Field(default=1, ge=1, le=32767)
    """Fewest levels that a client takes; the paper takes 1, which not all quantisers can."""
    patience: int = Field(default=10, ge=2, le=1000)
    """Rounds over which the loss must fall, the least that a q is kept (phi)."""
    memory: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the past in the moving average of the loss (psi)."""
    codec: str = "qsgd(levels={levels}) | rans"
    """Template of the codec line, with ``{levels}`` in it."""

    @model_validator(mode="after")
    def _makes_lines(self) -> "DAdaQuant":
        check_range(self.min_levels, self.levels, self.max_levels)
        check_template(self.codec, "levels", (self.min_levels, min(self.min_levels + 1, self.max_levels), _MOST))
        return self

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The levels that the server told; the first ones where it told nothing."""
        levels = clamped(told(observation.told, "levels", self.levels), self.min_levels, _MOST)
        base = clamped(told(observation.told, "base", self.levels), self.min_levels, _MOST)
        reason = "level of the round" if levels == base else "few samples" if levels < base else "many samples"
        return sent(filled(self.codec, "levels", levels), observation, reason), state

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Levels of the round, shared out among the cohort."""
        base = shared.get("levels", float(self.levels))
        exact = [base] * len(cohort.members)
        if self.adapts != "time":
            exact = client_levels([member.samples for member in cohort.members], base)
        plan = {
            member.client: {"levels": float(clamped(levels, self.min_levels, _MOST)), "base": base}
            for member, levels in zip(cohort.members, exact, strict=True)
        }
        return plan, shared

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Averages the loss in, and doubles the levels where that has not fallen over the last `patience` rounds."""
        loss = closed.loss
        if self.adapts == "clients" or loss is None or not math.isfinite(loss):
            return shared
        count = int(shared.get("count", 0.0))
        past = shared.get("average", loss)
        average = self.memory * past + (1 - self.memory) * loss
        slot = f"average_{count % self.patience}"
        new = {**shared, "count": float(count + 1), "average": average, slot: average}
        levels, changed = shared.get("levels", float(self.levels)), shared.get("changed", 0.0)
        if count + 1 - changed >= self.patience and average >= new[f"average_{(count + 1) % self.patience}"]:
            levels, changed = min(2 * levels, float(self.max_levels)), float(count + 1)
        return {**new, "levels": levels, "changed": changed}


def client_levels(samples: Sequence[int], base: float) -> list[float]:
    """q_i = sqrt(a / b) w_i^(2/3) of theorem 1, before rounding: the fewest levels at the variance of `base` for all.

    Args:
        samples: Of each client of the round; only their ratios matter.
        base: q, the levels that all would take.
    """
    roots = {count: float(_CONTEXT.power(Decimal(count), _TWO_THIRDS)) if count else 0.0 for count in set(samples)}
    squares = sum(count * count for count in samples) / (base * base)
    if not squares:
        return [base] * len(samples)
    scale = math.sqrt(sum(roots[count] for count in samples) / squares)
    return [scale * roots[count] for count in samples]
