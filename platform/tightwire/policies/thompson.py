"""The policy `thompson`: a discounted linear bandit that plays the best arm of a model drawn from its beliefs."""

from typing import Literal, final

from pydantic import Field

from tightwire.keys import generator
from tightwire.policies.arms import DIMENSIONS, Option, reasoned
from tightwire.policies.base import Cohort, Decision, Numbers, Observation, Plan
from tightwire.policies.linucb import Beliefs, Linear, backward, cholesky, dot, forward, noted


@final
class Thompson(Linear):
    """Linear Thompson sampling over the arms of `tightwire.policies.arms`; old rounds fade.

    Agrawal, Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs" (ICML 2013, arXiv 1209.3352),
    algorithm 1: draws a model from N(theta, spread^2 V^-1) and plays the arm that is best by it. Discounted as in
    Kim, Tewari, "Randomized Exploration for Non-Stationary Stochastic Linear Bandits" (UAI 2020, arXiv 1912.05695).

    Deviations: as of `linucb`, whose statistics on the server these are; the spread is a constant, and not the paper's
    growing bound; the covariance is that of the former paper, without the latter's squared discounts. Each client of
    a round gets a draw of its own.

    Server's memory: as of `linucb`. Told: the model that was drawn, as `t_i`.
    """

    name: Literal["thompson"] = "thompson"
    spread: float = Field(default=0.1, ge=0)
    """Standard deviation of a reward, as the draws take it."""

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Draw a model for each client."""
        beliefs = Beliefs.of(shared, self.ridge)
        lower = cholesky(beliefs.v)
        theta = backward(lower, forward(lower, beliefs.b))
        told = {}
        for member in cohort.members:
            rng = generator(cohort.draws, "thompson", round=cohort.round, client=member.client)
            noise = backward(lower, tuple(float(draw) for draw in rng.standard_normal(DIMENSIONS)))
            told[member.client] = {
                f"t_{i}": mean + self.spread * off for i, (mean, off) in enumerate(zip(theta, noise, strict=True))
            }
        return told, noted(shared, cohort.deadline)

    def choose(self, options: list[Option], observation: Observation) -> Decision:
        """The best option by the model that was drawn; of equals, the first."""
        theta = self.model(observation.told)
        rewards = [dot(theta, option.context) for option in options]
        return reasoned(options[rewards.index(max(rewards))], "best by the model drawn")
