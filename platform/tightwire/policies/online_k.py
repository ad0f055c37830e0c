"""The policy `online_k`: the server searches the density at which the loss falls fastest a second."""

import math
from typing import Literal, Self, final

from pydantic import Field, model_validator

from tightwire.policies.base import Alone, Closed, Cohort, Decision, NoState, Numbers, Observation, Plan
from tightwire.policies.levels_of import sent, told
from tightwire.policies.lines import Entropy, quantised


@final
class OnlineK(Alone):
    """One density for all, moved against the sign of the finite difference of the time that a drop in loss takes.

    Han, Wang, Leung, "Adaptive Gradient Sparsification for Efficient Federated Learning: An Online Learning Approach"
    (ICDCS 2020, arXiv 2001.04756): k_{m+1} = P(k_m - delta_m s_m) with delta_m = (k_max - k_min) /
    sqrt(2 m), P the projection on [k_min, k_max], and s_m the sign of the derivative of the time that a given drop in
    loss takes, from a probe at k' = k_m - delta_m / 2.

    Deviations: the paper probes k' within the same round, with an extra small batch at another model. Here a step takes
    three rounds: one at k_m and one at k', in an order that alternates from step to step so that the ordinary slowing
    of training favours neither; and one more at k_m, by whose training losses the second one's drop is known. k' lies
    above k_m where it would be below k_min. The loss is the cohort's mean training loss, and k a density. The
    shrinking of the interval, and the paper's fair share of the kept values, are not part of it.

    Server's memory: `density` k_m; `step` m; `place` the round within the step; `loss` and `seconds` of the last
    round; `first` the drop a second of the step's first round. A round without a finite loss starts the step anew.
    """

    name: Literal["online_k"] = "online_k"
    start: float = Field(default=0.1, ge=1e-4, le=1)
    """Density of the first step."""
    smallest: float = Field(default=0.01, ge=1e-4, le=1)
    """Smallest density."""
    largest: float = Field(default=0.5, ge=1e-4, le=1)
    """Largest density."""
    bits: int = Field(default=8, ge=1, le=16)
    """Quantiser bits of each kept value."""
    entropy: Entropy = "rans"
    """Entropy coder at the end of the line."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if not self.smallest <= self.start <= self.largest or self.smallest == self.largest:
            raise ValueError(
                "must be smallest <= start <= largest and smallest < largest, "
                f"got {self.smallest}, {self.start} and {self.largest}"
            )
        return self

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Tell everybody the round's density."""
        numbers = {"density": self._density(shared)}
        return {member.client: numbers for member in cohort.members}, shared

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Measure; after a step's last round, move."""
        step, density = self._step(shared), self._base(shared)
        loss, place = closed.loss, int(shared.get("place", 0))
        memory = {"density": density, "step": float(step)}
        if loss is None or not math.isfinite(loss) or not 0 < closed.seconds < math.inf:
            return {**memory, "place": 0.0}
        memory |= {"loss": loss, "seconds": closed.seconds, "place": float(place + 1)}
        if place == 0:
            return memory
        drop = (shared["loss"] - loss) / shared["seconds"]
        if place == 1:
            return {**memory, "first": drop}
        base, probe = (shared["first"], drop) if step % 2 else (drop, shared["first"])
        away = self._probe(density, step) - density
        if base != probe:
            delta = self._delta(step)
            rises = (probe > base) == (away > 0)
            density = density + delta if rises else density - delta
            density = min(max(density, self.smallest), self.largest)
        return {"density": density, "step": float(step + 1), "place": 0.0}

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The density that the server named."""
        density = float(f"{told(observation.told, 'density', self.start):.4g}")
        return sent(quantised(self.bits, density, self.entropy), observation, "density of the round"), state

    def _density(self, shared: Numbers) -> float:
        """Of the coming round: odd steps probe second, even ones first."""
        step, density, place = self._step(shared), self._base(shared), int(shared.get("place", 0))
        return self._probe(density, step) if place == step % 2 else density

    def _probe(self, density: float, step: int) -> float:
        half = self._delta(step) / 2
        if density - half >= self.smallest:
            return density - half
        return min(density + half, self.largest)

    def _delta(self, step: int) -> float:
        return (self.largest - self.smallest) / math.sqrt(2 * step)

    def _step(self, shared: Numbers) -> int:
        return int(shared.get("step", 1))

    def _base(self, shared: Numbers) -> float:
        return shared.get("density", self.start)
