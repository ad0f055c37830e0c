"""The policy `kimad`: as many values as the bandwidth lets through in a given time."""

from collections.abc import Sequence
from typing import Literal, final

from pydantic import Field

from tightwire.policies.base import Alone, Decision, Observation, Outcome, skip
from tightwire.policies.budget import DENSITIES
from tightwire.policies.levels_of import digits
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.monitor import Link
from tightwire.policies.predict import predict


def filled(
    observation: Observation, link: Link, allowed: float, *, bits: int, densities: Sequence[float], entropy: Entropy
) -> Decision:
    """The densest uniform top-k whose predicted frame weighs no more than allowed; the sparsest if none does.

    Args:
        observation: Of the client.
        link: What is known of its uplink.
        allowed: Bytes.
        bits: Quantiser bits of each kept value.
        densities: To choose from, rising.
        entropy: Entropy coder at the end of the line.
    """
    grid = predict(observation.stats, (bits,), densities, entropy)
    weights = [float(weight) for weight in grid.bytes[0]]
    fitting = [place for place, weight in enumerate(weights) if weight <= allowed]
    place = fitting[-1] if fitting else 0
    density, energy = densities[place], observation.stats.norm**2
    reason = "fills the budget"
    if not fitting:
        reason = "sparsest that there is"
    elif place == len(densities) - 1:
        reason = "densest that there is"
    return Decision(
        codec=quantised(bits, density, entropy),
        bits=float(bits),
        density=density,
        reason=reason,
        predicted_bytes=digits(weights[place]),
        predicted_seconds=digits(observation.latency + link.seconds(weights[place])) if link.rate > 0 else None,
        predicted_error=digits(float(grid.error[0, place]) / energy) if energy > 0 else 0.0,
    )


@final
class Kimad(Alone):
    """Uniform top-k that fills what the bandwidth, as past uploads showed it, carries in the time for communication.

    Xin et al., "Kimad: Adaptive Gradient Compression with Bandwidth Awareness" (DistributedML 2023, arXiv 2312.08053):
    a worker may send c = B t bits, B being its estimated bandwidth and t the time for communication.

    Deviations: the kept values are quantised and entropy-coded, and c is held against the whole predicted frame,
    positions included; the estimate is a moving average of the seconds that a bit took; a deadline, which the paper
    does not have, shortens t, and where it leaves none nothing is sent, but where even the sparsest frame is too long
    it is sent all the same; and the server's EF21 is whatever error feedback the experiment asks for. Kimad+, which
    spreads c over the layers, is not part of it.
    """

    name: Literal["kimad"] = "kimad"
    seconds: float = Field(default=5.0, gt=0)
    """Time for an upload's bytes."""
    bits: int = Field(default=8, ge=1, le=16)
    """Quantiser bits of each kept value."""
    entropy: Entropy = "rans"
    """Entropy coder at the end of the line."""
    memory: float = Field(default=0.7, ge=0, lt=1)
    """Weight of the past when an upload's rate is averaged in."""

    def initial(self) -> Link:
        """Trusts the profile until it has seen an upload."""
        return Link()

    def decide(self, state: Link, observation: Observation) -> tuple[Decision, Link]:
        """Fill the budget; send nothing where the deadline leaves no time at all."""
        link, seconds = state.known(observation.uplink), self.seconds
        if observation.deadline is not None:
            coding = observation.encoding(quantised(self.bits, DENSITIES[-1], self.entropy))
            left = observation.deadline - observation.elapsed - observation.latency - coding
            if left <= 0:
                return skip("no time is left"), link
            seconds = min(seconds, left)
        allowed = link.rate * seconds / 8
        decision = filled(observation, link, allowed, bits=self.bits, densities=DENSITIES, entropy=self.entropy)
        return decision, link

    def learn(self, state: Link, outcome: Outcome) -> Link:
        """Average the upload's rate in."""
        return state.after(outcome, self.memory)
