"""The policy `bcrs`: everybody takes as long as the slowest, and sends what its own bandwidth carries in that time."""

from typing import Literal, final

from pydantic import Field

from tightwire.policies.base import Alone, Cohort, Decision, Member, Numbers, Observation, Outcome, Plan
from tightwire.policies.budget import DENSITIES
from tightwire.policies.kimad import filled
from tightwire.policies.lines import Entropy
from tightwire.policies.monitor import Link


@final
class Bcrs(Alone):
    """Bandwidth-aware compression ratio scheduling: ratios that make all uploads of a round take the same time.

    Tang et al., "Bandwidth-Aware and Overlap-Weighted Compression for Communication-Efficient Federated Learning" (ICPP
    2024, arXiv 2408.14736): with V bits of model, T* = max_i (L_i + ratio V / B_i) is the slowest client's time at the
    base ratio, and a client may send (T* - L_i) B_i / V of the model, L_i being its latency and B_i its bandwidth.

    Deviations: the kept values are quantised and entropy-coded, and a ratio is that of whole frames, so that T* is met
    in seconds; B_i is what past uploads got, and the profile's promise only before the first. The paper also weighs
    a client's update by its ratio, and parameters by how many clients kept them (OPWA); here aggregation is not the
    policy's, and weighs by samples.
    """

    name: Literal["bcrs"] = "bcrs"
    ratio: float = Field(default=0.02, gt=0, le=1)
    """Base ratio: frame over update in fp32, which the slowest client sends."""
    bits: int = Field(default=8, ge=1, le=16)
    """Quantiser bits of each kept value."""
    entropy: Entropy = "rans"
    """Entropy coder at the end of the line."""
    memory: float = Field(default=0.7, ge=0, lt=1)
    """Weight of the past when an upload's rate is averaged in."""

    def initial(self) -> Link:
        """Trusts the profile until it has seen an upload."""
        return Link()

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Tell each member how many bytes fill the slowest one's time."""
        size = 4.0 * cohort.parameters
        rates = {member.client: _rate(member) for member in cohort.members}
        times = [
            member.latency + 8 * self.ratio * size / rates[member.client]
            for member in cohort.members
            if rates[member.client] > 0
        ]
        slowest = max(times, default=0.0)
        told = {
            member.client: {"bytes": min(max(slowest - member.latency, 0.0) * rates[member.client] / 8, size)}
            for member in cohort.members
        }
        return told, shared

    def decide(self, state: Link, observation: Observation) -> tuple[Decision, Link]:
        """Fill the bytes that the server named; the base ratio where it named none."""
        link = state.known(observation.uplink)
        allowed = observation.told.get("bytes", self.ratio * 4 * observation.schema.size)
        decision = filled(observation, link, allowed, bits=self.bits, densities=DENSITIES, entropy=self.entropy)
        return decision, link

    def learn(self, state: Link, outcome: Outcome) -> Link:
        """Average the upload's rate in."""
        return state.after(outcome, self.memory)


def _rate(member: Member) -> float:
    seen = member.state.get("rate", 0.0) if member.state is not None else 0.0
    return seen if seen > 0 else member.uplink
