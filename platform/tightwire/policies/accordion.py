"""The policy `accordion`: compress little while the update changes much, and much while it changes little."""

from dataclasses import dataclass, replace
from typing import Literal, final

from pydantic import Field

from tightwire.policies.base import Alone, Decision, Observation
from tightwire.policies.levels_of import AloneLine, sent


@dataclass(frozen=True, slots=True)
class AccordionState:
    """What one client compares its next update with."""

    norm: float = -1.0
    """Euclidean norm at the last comparison; negative before the first."""
    turns: float = 0.0
    """Turns since then."""
    critical: float = 1.0
    """1 in a critical regime, 0 outside."""


@final
class Accordion(Alone):
    """Little compression in critical regimes: when the update's norm has changed by the threshold or more.

    Agarwal et al., "Accordion: Adaptive Gradient Communication via Critical Learning Regime Identification" (MLSys
    2021, arXiv 2010.16248), algorithm 1: a regime is critical at first, and while | |old| - |new| | / |old| >= 0.5.

    Deviations: the paper compares each layer's accumulated gradient every ten epochs; here a client compares the whole
    vector that it will encode (update plus residual) with that of an earlier turn of its own. The paper also leaves
    high compression when the learning rate decays; a client is not told of that.
    """

    name: Literal["accordion"] = "accordion"
    low_compression: AloneLine = "topk(0.1) | uniform(8) | rans"
    """Codec line in critical regimes."""
    high_compression: AloneLine = "topk(0.01) | uniform(8) | rans"
    """Codec line outside them."""
    threshold: float = Field(default=0.5, gt=0)
    """Relative change of the norm from which a regime is critical."""
    interval: int = Field(default=1, ge=1)
    """Turns of a client from one comparison to its next."""

    def initial(self) -> AccordionState:
        """Critical until there is something to compare with."""
        return AccordionState()

    def decide(self, state: AccordionState, observation: Observation) -> tuple[Decision, AccordionState]:
        """Compare where it is time to, and take the regime's codec."""
        turns = state.turns + 1
        if state.norm < 0:
            state = AccordionState(observation.stats.norm)
        elif turns >= self.interval:
            norm = observation.stats.norm
            state = AccordionState(norm, critical=float(self._changed(state.norm, norm)))
        else:
            state = replace(state, turns=turns)
        if state.critical:
            return sent(self.low_compression, observation, "critical regime"), state
        return sent(self.high_compression, observation, "update changes little"), state

    def _changed(self, old: float, new: float) -> bool:
        return new > 0 if old == 0 else abs(old - new) >= self.threshold * old
