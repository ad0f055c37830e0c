"""What the learning policies share: a small grid of arms, what an arm promises, and what it turned out to be worth.

An arm is a pair (bits, density): the codec line ``topk(density) | uniform(bits) | rans``. What a client expects of each
arm, from its profile, its link as past uploads showed it, and the very vector that it will encode, is written into the
decision: predicted bytes, seconds and error. The server gets decisions back with the round's reports, so that both
sides know the context in which an arm was chosen, and one model of rewards on the server learns from every client.
What a client sees of itself otherwise (norms, residual, battery) does not get to the server in time. In the world of
`tests/support/bandit_world.py`, a model for each arm over bandwidth and compute, the usual choice, had several
times the regret of one model over what arms promise.

The context of an arm (`features`) is a vector of six numbers in [0, 1]:

0. 1.
1. gain: 1 - predicted NMSE. It stands for the update: a client's norms and residual matter to the reward through it.
2. pace: seconds before the upload over seconds before and with it; download, training and encoding are in it.
3. gain x pace: what the reward would be if everything came as predicted and the update were used.
4. load: share of the time left before the deadline that the upload should take; 0 without a deadline.
5. gain x breadth, breadth = rate / (rate + 1 Mbit/s) of the predicted upload: the logistic of log bandwidth, without
   a logarithm, whose last bit would differ between machines.

The reward of an upload is useful progress a second, (1 - NMSE) * used / turn seconds, times the seconds before the
upload. This factor belongs to the client and not to the arm, and brings all clients to one scale, [0, 1]: 1 is a
perfect update that took no time to send. The server knows the predicted NMSE only, and takes it for the real one.

Arms that by prediction miss the deadline, or that battery or memory do not afford, are not played.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

from pydantic import Field, field_validator

from tightwire.policies.base import Alone, Decision, Observation, Outcome, Report, skip
from tightwire.policies.levels_of import digits
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.monitor import Link
from tightwire.policies.predict import predict

Arm = tuple[Annotated[int, Field(ge=1, le=16)], Annotated[float, Field(ge=1e-4, le=1)]]
"""Bits and density."""
Vector = tuple[float, ...]

ARMS: tuple[Arm, ...] = (
    (2, 0.001),
    (3, 0.003),
    (3, 0.01),
    (4, 0.03),
    (4, 0.1),
    (4, 0.3),
    (6, 0.3),
    (4, 1.0),
    (8, 1.0),
)
"""From the smallest frames to the best."""

DIMENSIONS = 6
"""Length of `features`."""
PRIOR: Vector = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
"""The linear model under which everything comes as predicted; what a learner believes before it knows better."""

_BREADTH = 1e6
"""bit/s at which the breadth is one half."""


@dataclass(frozen=True, slots=True)
class Option:
    """What a client expects of one arm."""

    arm: int
    """Its place among the arms."""
    decision: Decision
    """Without a reason yet, with all predictions."""
    context: Vector
    """See the module."""


def features(*, gain: float, before: float, upload: float, size: float, left: float | None) -> Vector:
    """The context of an arm; see the module.

    Args:
        gain: 1 - predicted NMSE.
        before: Seconds of the round before the upload.
        upload: Seconds that it should take.
        size: Bytes of its frame.
        left: Seconds from its start to the deadline; None without one.
    """
    gain = _share(gain)
    pace = _ratio(before, before + upload)
    load = 0.0 if left is None else (_ratio(upload, left) if left > 0 else 1.0)
    rate = _ratio(8 * size, upload) if upload < math.inf else 0.0
    return (1.0, gain, pace, gain * pace, _share(load), gain * _share(rate / (rate + _BREADTH)))


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one report teaches."""

    client: int
    line: str
    context: Vector
    reward: float


def lesson(report: Report, deadline: float | None) -> Lesson | None:
    """The context in which an arm was chosen, and its reward, as the server sees them.

    Args:
        report: Of one client. Nothing in it is believed beyond the range it may have.
        deadline: Of the round.

    Returns:
        None where nothing was sent, or nothing can be learnt from it.
    """
    decision = report.decision
    expected = decision.predicted_bytes, decision.predicted_seconds, decision.predicted_error
    if decision.codec is None or None in expected:
        return None
    size, upload, error = (float(number) for number in expected if number is not None)
    before = report.turn - report.upload
    if not all(math.isfinite(number) for number in (size, upload, error, before, report.turn)) or report.turn <= 0:
        return None
    before, upload, size = max(before, 0.0), max(upload, 0.0), max(size, 0.0)
    left = None if deadline is None else deadline - before
    context = features(gain=1 - error, before=before, upload=upload, size=size, left=left)
    reward = context[1] * _ratio(before, report.turn) if report.used else 0.0
    return Lesson(report.client, decision.codec, context, _share(reward))


class Learner(Alone):
    """The client's side of a policy that learns which arm pays; abstract."""

    arms: tuple[Arm, ...] = Field(default=ARMS, min_length=1, max_length=9)
    """(bits, density) pairs to choose from."""
    entropy: Entropy = "rans"
    """Entropy coder at the end of the line."""
    slack: float = Field(default=0.03, ge=0, lt=1)
    """Share by which a frame may turn out longer than predicted without breaking a limit."""
    memory: float = Field(default=0.7, ge=0, lt=1)
    """Weight of the past when an upload's rate is averaged in."""

    @field_validator("arms")
    @classmethod
    def _are_distinct(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if len(set(arms)) != len(arms):
            raise ValueError(f"must be different from one another, got {list(arms)}")
        for _, density in arms:
            if float(f"{density:.4g}") != density:
                raise ValueError(f"densities must have at most four significant digits, got {density}")
        return arms

    def initial(self) -> Link:
        """Trusts the profile until it has seen an upload."""
        return Link()

    def decide(self, state: Link, observation: Observation) -> tuple[Decision, Link]:
        """Play one of the arms that can be played; send nothing where there is none."""
        link = state.known(observation.uplink)
        options, limit = self.options(link, observation)
        if not options:
            if limit == "deadline":
                link = link.faded(observation.uplink, self.memory)
            return skip(f"no arm meets the {limit}"), link
        return self.choose(options, observation), link

    def learn(self, state: Link, outcome: Outcome) -> Link:
        """Average the upload's rate in; what arms are worth is learnt on the server."""
        return state.after(outcome, self.memory)

    @abstractmethod
    def choose(self, options: list[Option], observation: Observation) -> Decision:
        """One of the options, with a reason.

        Args:
            options: At least one, in the order of the arms.
            observation: Of the client.
        """

    def line(self, arm: int) -> str:
        """The codec line of an arm."""
        return quantised(*self.arms[arm], self.entropy)

    def options(self, link: Link, observation: Observation) -> tuple[list[Option], str]:
        """The arms that can be played.

        Returns:
            The options, in the order of the arms; and the limit that the last arm left out breaks, for a reason.
        """
        bits, densities, places = _grid_of(self.arms)
        grid = predict(observation.stats, bits, densities, self.entropy, self.arms)
        energy = observation.stats.norm**2
        options, limit = [], ""
        for arm, ((width, density), (row, column)) in enumerate(zip(self.arms, places, strict=True)):
            line = self.line(arm)
            size = digits(float(grid.bytes[row, column]))
            error = digits(float(grid.error[row, column]) / energy) if energy > 0 else 0.0
            seconds = digits(observation.latency + link.seconds(size))
            before = observation.elapsed + observation.encoding(line)
            left = None if observation.deadline is None else observation.deadline - before
            longest = observation.latency + link.seconds(size * (1 + self.slack))
            joules = size * (1 + self.slack) * observation.joules_per_byte + observation.joules_per_upload
            if joules > observation.energy:
                limit = "battery"
            elif observation.workspace(line) > observation.memory:
                limit = "memory"
            elif left is not None and not longest <= left:
                limit = "deadline"
            else:
                context = features(gain=1 - error, before=before, upload=seconds, size=size, left=left)
                decision = Decision(
                    codec=line,
                    bits=float(width),
                    density=density,
                    reason="",
                    predicted_bytes=size,
                    predicted_seconds=seconds if seconds < math.inf else None,
                    predicted_error=error,
                )
                options.append(Option(arm, decision, context))
        return options, limit


@lru_cache(maxsize=64)
def _grid_of(arms: tuple[Arm, ...]) -> tuple[tuple[int, ...], tuple[float, ...], tuple[tuple[int, int], ...]]:
    """The bits and densities of a grid that has all arms in it, rising, and each arm's row and column there."""
    bits = tuple(sorted({bits for bits, _ in arms}))
    densities = tuple(sorted({density for _, density in arms}))
    return bits, densities, tuple((bits.index(width), densities.index(density)) for width, density in arms)


def reasoned(option: Option, reason: str) -> Decision:
    """The option's decision, with the reason for it."""
    return replace(option.decision, reason=reason)


def _ratio(part: float, whole: float) -> float:
    return part / whole if 0 < whole < math.inf else 0.0


def _share(number: float) -> float:
    return min(max(number, 0.0), 1.0) if number == number else 0.0
