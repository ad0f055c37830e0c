"""A small world of clients whose uploads often break off, on which learning policies are compared by their regret."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from policy_views import SCHEMA, member, observed
from tightwire.keys import generator
from tightwire.policies.arms import Learner, Option, reasoned
from tightwire.policies.base import Closed, Cohort, Decision, Numbers, Observation, Outcome, Report
from tightwire.policies.monitor import Link


class Same(Learner):
    """Plays by the rule it is given; learns nothing."""

    rule: Callable[[list[Option], Observation], int]

    def choose(self, options: list[Option], observation: Observation) -> Decision:
        """As the rule says."""
        return reasoned(options[self.rule(options, observation)], "rule")


def uniformly(options: list[Option], observation: Observation) -> int:
    """Any option."""
    return int(generator(0, "any", round=observation.round, client=observation.client).integers(len(options)))


def predicted(options: list[Option], observation: Observation) -> int:  # noqa: ARG001 - a rule's arguments
    """The best if everything comes as predicted."""
    rewards = [option.context[3] for option in options]
    return rewards.index(max(rewards))


def broken_after(seconds: float) -> Callable[[int], float]:
    """The same patience in all rounds."""
    return lambda _: seconds


@dataclass
class World:
    """Clients of unlike links; the longer an upload takes, the likelier it breaks off."""

    patience: Callable[[int], float]
    """Round -> seconds after which half of the uploads have broken off."""
    clients: int = 30
    cohort: int = 10
    deadline: float | None = 120.0
    regrets: list[float] = field(default_factory=list)
    """Mean regret of each round: the best arm's expected reward less that of the one played."""
    shared: Numbers = field(default_factory=dict)
    """What the server remembers at the end."""
    last: Closed = field(default_factory=lambda: Closed(0, 0.0, (), 0.0, 0.0))
    """The last round."""

    def play(self, policy: Learner, rounds: int) -> "World":
        """Run, and fill `regrets`."""
        states: dict[int, Mapping[str, float]] = {}
        for number in range(1, rounds + 1):
            rng = generator(1, "world", round=number)
            chosen = sorted(int(c) for c in rng.choice(self.clients, self.cohort, replace=False))
            uplinks = {c: 2e3 * 4.0 ** (c % 5) for c in chosen}
            computes = {c: 2.0 + 9 * (c % 3) for c in chosen}
            members = tuple(member(c, uplink=uplinks[c], compute=computes[c], state=states.get(c)) for c in chosen)
            plan, self.shared = policy.plan(self.shared, Cohort(number, members, SCHEMA.size, self.deadline))
            reports, regret = [], []
            for c in chosen:
                seen = observed(
                    round=number,
                    client=c,
                    deadline=self.deadline,
                    computed=computes[c],
                    elapsed=1 + computes[c],
                    uplink=uplinks[c],
                    told=plan.get(c, {}),
                )
                state = policy.load(states[c]) if c in states else policy.initial()
                values = self._values(policy, seen)
                decision, state = policy.decide(state, seen)
                line = decision.codec or ""
                regret.append(max(values.values()) - values.get(line, 0.0))
                upload = (decision.predicted_seconds or 0.0) * float(1 + 0.1 * rng.standard_normal())
                used = rng.random() < self._odds(number, upload)
                turn = seen.elapsed + 0.01 + upload
                report = Report(c, 100, 1.0, decision, int(decision.predicted_bytes or 0), upload, turn, used)
                reports.append(report)
                state = policy.learn(state, _outcome(report, seen))
                states[c] = policy.dump(state)
            self.regrets.append(sum(regret) / len(regret))
            self.last = Closed(number, 60.0, tuple(reports), 1.0, 1.0)
            self.shared = policy.review(self.shared, self.last)
        return self

    def mean(self, first: int, last: int) -> float:
        """Mean regret over rounds `first` to `last`, the latter not included, counted from 0."""
        return sum(self.regrets[first:last]) / (last - first)

    def _odds(self, round: int, upload: float) -> float:
        return 1 / (1 + upload / self.patience(round))

    def _values(self, policy: Learner, seen: Observation) -> dict[str, float]:
        """Expected reward of every arm that can be played."""
        options, _ = policy.options(Link(seen.uplink), seen)
        return {
            option.decision.codec or "": option.context[3]
            * self._odds(seen.round, option.decision.predicted_seconds or 0.0)
            for option in options
        }


def _outcome(report: Report, seen: Observation) -> Outcome:
    return Outcome(
        round=seen.round,
        decision=report.decision,
        bytes=report.bytes,
        seconds=report.upload,
        latency=seen.latency,
        turn=report.turn,
        error=report.decision.predicted_error or 0.0,
        samples=100,
        deadline=seen.deadline,
        accepted=report.used,
        late=False,
    )
