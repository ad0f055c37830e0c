"""The policy `lazy`: no upload from a client that has little to say."""

import math
from dataclasses import dataclass
from typing import Literal, final

from pydantic import Field

from tightwire.policies.base import Alone, Closed, Cohort, Decision, Numbers, Observation, Outcome, Plan, skip
from tightwire.policies.levels_of import sent
from tightwire.policies.lines import CodecLine


@dataclass(frozen=True, slots=True)
class LazyState:
    """When one client was heard last."""

    heard: float = -1.0
    """The round whose aggregate its update was last part of; negative before the first."""


@final
class Lazy(Alone):
    """Skips an upload that would move the model little, measured by how far the model moved of late.

    Sun et al., "Communication-Efficient Distributed Learning via Lazily Aggregated Quantized Gradients" (NeurIPS 2019,
    arXiv 1909.07588): a worker is silent while ||innovation||^2 <= 1 / (alpha^2 M^2) sum_{d=1..D} xi_d step_d^2 + 3
    (||e||^2 + ||e'||^2), and for no longer than its clock; step_d is the norm of the model's d-th last step, alpha the
    step size, M the workers, and e and e' the quantiser's errors now and in its last upload. Their code takes
    D = 10, xi_d = 0.8 / D and a clock of 100 rounds.

    Adapted to federated averaging with error feedback: an update u is trained already, so that what a worker adds
    to the model is w u, w being its share of the cohort's samples, in place of alpha times a gradient; the test
    reads (w M)^2 ||v||^2 <= `scale` sum xi_d step_d^2. The vector v is update plus residual. Unlike in LAQ the
    server does not reuse a silent client's last update; error feedback owes what was skipped, and adds it to the next.
    The terms in e and e' are left out, because v has the residual in it already. A client counts as silent until an
    update of it was used, in rounds, not in turns.

    Server's memory: `step_0` (the last) to `step_{D-1}`, norms of the model's steps.
    """

    name: Literal["lazy"] = "lazy"
    codec: CodecLine = "topk(0.1) | uniform(8) | rans"
    """Codec line of what is sent."""
    depth: int = Field(default=10, ge=1, le=100)
    """Steps of the model that are looked back on; D."""
    weight: float = Field(default=0.8, gt=0)
    """Sum of the weights xi_d, which are equal."""
    scale: float = Field(default=1.0, gt=0)
    """Factor on the threshold; the higher, the lazier."""
    clock: int = Field(default=20, ge=1)
    """Rounds of silence after which a client speaks, whatever it has to say."""

    def initial(self) -> LazyState:
        """Nobody has been heard."""
        return LazyState()

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Tell each member the squared norm up to which its vector says too little."""
        moved = 0.0
        for back in range(self.depth):
            norm = shared.get(f"step_{back}", 0.0)
            moved += self.scale * self.weight / self.depth * norm * norm
        total = sum(member.samples for member in cohort.members)
        told = {}
        for member in cohort.members:
            share = len(cohort.members) * member.samples / total if total > 0 else 0.0
            told[member.client] = {"threshold": moved / (share * share)} if share > 0 else {}
        return told, shared

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Remember the model's step."""
        if not math.isfinite(closed.step):
            return shared
        past = [closed.step, *(shared[f"step_{back}"] for back in range(self.depth - 1) if f"step_{back}" in shared)]
        return {f"step_{back}": norm for back, norm in enumerate(past)}

    def decide(self, state: LazyState, observation: Observation) -> tuple[Decision, LazyState]:
        """Speak if it is time, or if there is something to say."""
        if state.heard < 0:
            return sent(self.codec, observation, "was never heard"), state
        if observation.round - state.heard >= self.clock:
            return sent(self.codec, observation, "was silent for long"), state
        norm = observation.stats.norm
        if norm * norm <= observation.told.get("threshold", 0.0):
            return skip("says too little"), state
        return sent(self.codec, observation, "says enough"), state

    def learn(self, state: LazyState, outcome: Outcome) -> LazyState:
        """Heard is whose update was used."""
        return LazyState(float(outcome.round)) if outcome.accepted else state
