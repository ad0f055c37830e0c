"""The policy `oracle`: knows how the link will turn out, and so shows what others could gain by guessing it better."""

import math
from typing import Annotated, Literal, final

from pydantic import Field

from tightwire.policies.base import Alone, Decision, NoState, Observation, skip
from tightwire.policies.levels_of import digits
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.predict import predict

Bits = Annotated[int, Field(ge=1, le=16)]
Density = Annotated[float, Field(ge=1e-4, le=1)]

DENSITIES = tuple(sorted({float(f"{10 ** (fifth / 5):.3g}") for fifth in range(-20, 1)}))
"""0.0001 to 1, five a decade, in three digits so that a codec line says exactly what was predicted."""


@final
class Oracle(Alone):
    """The best grid point by the link's true future: a bound, not a policy that could be deployed.

    With a deadline: the smallest predicted error that arrives in time; without: the most progress a second, (1 -
    error) over the seconds from the start of the round to the arrival. It is no paper's, but what regret is measured
    against.

    What it does not know: the frame's exact length, which it predicts and gives some slack; other clients' transfers
    where the server's link is shared; and later rounds, so that it is greedy. Battery and memory bind it too.
    """

    name: Literal["oracle"] = "oracle"
    bits: tuple[Bits, ...] = Field(default=(1, 2, 3, 4, 6, 8), min_length=1, max_length=16)
    """Bit widths to choose from, rising."""
    densities: tuple[Density, ...] = Field(default=DENSITIES, min_length=1, max_length=64)
    """Densities to choose from, rising."""
    entropy: Entropy = "rans"
    """Entropy coder at the end of the line."""
    slack: float = Field(default=0.03, ge=0, lt=1)
    """Share by which a frame may turn out longer than predicted without coming late."""

    @property
    def clairvoyant(self) -> bool:
        """Yes."""
        return True

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """Walk the grid from the smallest error on; of equals, from the fewest bytes."""
        grid = predict(observation.stats, self.bits, self.densities, self.entropy)
        energy = observation.stats.norm**2
        points = sorted(
            (digits(float(grid.error[row, column]) / energy) if energy > 0 else 0.0, digits(float(weight)), row, column)
            for row, weights in enumerate(grid.bytes)
            for column, weight in enumerate(weights)
        )
        best, most = None, 0.0
        for error, weight, row, column in points:
            if best is not None and 1 - error <= most * observation.elapsed:
                break  # even at once, no later point would make more progress a second
            line = quantised(self.bits[row], self.densities[column], self.entropy)
            size = math.ceil(weight * (1 + self.slack))
            joules = size * observation.joules_per_byte + observation.joules_per_upload
            if joules > observation.energy or observation.workspace(line) > observation.memory:
                continue
            begun = observation.elapsed + observation.encoding(line)
            arrival = _arrival(observation, size, begun)
            if not arrival <= (math.inf if observation.deadline is None else observation.deadline):
                continue
            if observation.deadline is not None:
                best = error, weight, row, column, arrival - begun
                break
            progress = max(1 - error, 0.0) / arrival if arrival > 0 else math.inf
            if arrival < math.inf and (best is None or progress > most):
                best, most = (error, weight, row, column, arrival - begun), progress
        if best is None:
            return skip("nothing would arrive in time"), state
        error, weight, row, column, seconds = best
        decision = Decision(
            codec=quantised(self.bits[row], self.densities[column], self.entropy),
            bits=float(self.bits[row]),
            density=self.densities[column],
            reason="most progress a second" if observation.deadline is None else "best that arrives in time",
            predicted_bytes=weight,
            predicted_seconds=digits(seconds),
            predicted_error=error,
        )
        return decision, state


def _arrival(observation: Observation, size: int, begun: float) -> float:
    """As it will be; as it is promised where the future is not given."""
    if observation.future is not None:
        return observation.future(size, begun)
    if observation.uplink <= 0:
        return math.inf
    return begun + observation.latency + 8 * size / observation.uplink
