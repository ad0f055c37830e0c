"""The policy `qlearning`: a table of what each arm is worth in each of a few classes of devices."""

from dataclasses import dataclass
from typing import Literal, final

from pydantic import Field

from tightwire.keys import generator
from tightwire.policies.arms import Learner, Option, lesson, reasoned
from tightwire.policies.base import Closed, Cohort, Decision, Member, Numbers, Observation, Plan
from tightwire.policies.monitor import Link


@dataclass(frozen=True, slots=True)
class QState(Link):
    """What one client knows of its link, and what the server may know of its battery."""

    low: float = 0.0
    """1 if the battery was low at the last turn."""


@final
class QLearning(Learner):
    """Tabular Q-learning: states are bandwidth tercile x compute tercile x battery low or not; actions are the arms.

    After Kim, Wu, "AutoFL: Enabling Heterogeneity-Aware Energy Efficient Federated Learning" (MICRO 2021, arXiv
    2107.08147): Q(s, a) += rate (reward + future max Q(s', .) - Q(s, a)), epsilon-greedy, in small discrete states of
    devices and network.

    Deviations: AutoFL's actions are who takes part and on which processor, and its reward is about energy and accuracy;
    here they are the arms and the reward of `tightwire.policies.arms`. All clients share one table, and since
    many write to one entry in a round, the rate is small. A client's next state is taken to be the same one, since
    devices change classes slowly. Terciles are among the members of the cohort. Of the battery the server knows
    what it was at the client's last turn: low, if it paid for less than `low_uploads` uploads with the last arm.

    Server's memory: `q_S_A`, of state S and arm A, for those that were tried; between plan and review also the
    `deadline`, and the members' states as `at_C`. Told: the member's row of the table, `q_A`.
    """

    name: Literal["qlearning"] = "qlearning"
    epsilon: float = Field(default=0.1, ge=0, le=1)
    """Chance of an arm drawn at random."""
    rate: float = Field(default=0.2, gt=0, le=1)
    """Weight of a new reward against what the table says."""
    future: float = Field(default=0.1, ge=0, lt=1)
    """Discount of what comes after."""
    low_uploads: float = Field(default=20.0, ge=0)
    """Uploads with the last arm below which a battery is low."""

    def initial(self) -> QState:
        """Trusts the profile, and is not low."""
        return QState()

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Tell each member its row."""
        kept = {name: value for name, value in shared.items() if name.startswith("q_")}
        if cohort.deadline is not None:
            kept["deadline"] = cohort.deadline
        told = {}
        for member in cohort.members:
            state = _class_of(member, cohort)
            kept[f"at_{member.client}"] = float(state)
            told[member.client] = {f"q_{arm}": self._value(shared, state, arm) for arm in range(len(self.arms))}
        return told, kept

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Learn from the round, client by client."""
        table = {name: value for name, value in shared.items() if name.startswith("q_")}
        places = {self.line(arm): arm for arm in range(len(self.arms))}
        for report in closed.reports:
            learnt, state = lesson(report, shared.get("deadline")), shared.get(f"at_{report.client}")
            if learnt is None or state is None or learnt.line not in places:
                continue
            arm = places[learnt.line]
            old = self._value(table, int(state), arm)
            best = max(self._value(table, int(state), other) for other in range(len(self.arms)))
            table[f"q_{int(state)}_{arm}"] = old + self.rate * (learnt.reward + self.future * best - old)
        return table

    def decide(self, state: Link, observation: Observation) -> tuple[Decision, QState]:
        """As all learners; the state says whether the battery is low."""
        decision, link = super().decide(state, observation)
        return decision, QState(link.rate, low=float(self._is_low(observation)))

    def choose(self, options: list[Option], observation: Observation) -> Decision:
        """The best option of the row, or now and then any."""
        rng = generator(observation.draws, "qlearning", round=observation.round, client=observation.client)
        if rng.random() < self.epsilon:
            return reasoned(options[int(rng.integers(len(options)))], "drawn at random")
        values = [observation.told.get(f"q_{option.arm}", 0.0) for option in options]
        return reasoned(options[values.index(max(values))], "best in the table")

    def _value(self, table: Numbers, state: int, arm: int) -> float:
        """What the table says; of what was never tried, the most that could be, so that everything is tried."""
        return table.get(f"q_{state}_{arm}", 1 / (1 - self.future))

    def _is_low(self, observation: Observation) -> bool:
        bits, density = self.arms[-1]
        size = observation.schema.size * bits * density / 8
        return observation.energy < self.low_uploads * (
            size * observation.joules_per_byte + observation.joules_per_upload
        )


def _class_of(member: Member, cohort: Cohort) -> int:
    """0 to 17: 6 x bandwidth tercile, the slowest first, + 2 x compute tercile, the quickest first, + battery low."""
    members = cohort.members
    slower = sum(other.uplink < member.uplink for other in members)
    quicker = sum(other.compute < member.compute for other in members)
    low = member.state is not None and member.state.get("low", 0.0) > 0
    return 6 * (3 * slower // len(members)) + 2 * (3 * quicker // len(members)) + int(low)
