"""The policy `adagq`: bits for equal finishing times, levels up or down by what pays in loss per second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Literal, final

from pydantic import Field, model_validator

from tightwire.policies.base import Alone, Closed, Cohort, Decision, Member, Numbers, Observation, Outcome, Plan
from tightwire.policies.levels_of import check_template, clamped, digits, filled, sent, told

_MOST_BITS = 14
"""2**14 - 1 levels, with their signs, are what QSGD's 16 bits hold."""


@dataclass(frozen=True, slots=True)
class AdaGQState:
    """What the server wants to know of a client: how long one more bit takes it."""

    bits: float = 0.0
    """b of the last upload that was decided on."""
    pace: float = 0.0
    """Seconds that the last upload took without its latency, for each of its b bits; 0 before there was one."""


@final
class AdaGQ(Alone):
    """AdaGQ: a mean number of levels that follows the loss's fall per second, bits such that all finish together.

    Liu, He and Cao 2023, "Communication-efficient federated learning for heterogeneous edge devices based on adaptive
    gradient quantization", INFOCOM, arXiv 2212.08272, section III. The mean number of levels s is doubled where more
    levels make the loss fall faster per second, else halved (equations 8 and 9), and follows the norm of the mean
    update (10): s <- s + lambda (log2 |g_k| - log2 |g_k-1|). Client j then gets the b_j bits, and 2^b_j - 1 levels, for
    which it should finish at the same time as the others, its seconds for a bit being those of its last upload
    (11 to 13), while the mean of the levels is s.

    Where this differs from the paper: the sign of the derivative is not that of two losses that all clients evaluate
    with the same mean update, quantised once with s levels and once with a bit less. That would take an evaluation of
    each client and a second quantiser on it. Here s is held for `period` rounds, the relative fall of the training loss
    per simulated second over them is compared with that of the period before, at other levels, and the difference says
    where to go: a finite difference over time. It is noisier, and relative so that the slowing down of training itself
    weighs less. After the first period, and whenever s could not be moved, s is moved by one bit to learn something:
    downward, as the paper's second quantiser is, or up from the fewest. Equal times are found in whole bits: everybody
    who is not at a bound finishes within one of its bits of the others, and s is not exceeded. Times of training and
    download are those of the profile; newcomers' seconds for a bit are those of the profile's bandwidth, scaled by what
    the others' uploads took over that.
    """

    name: Literal["adagq"] = "adagq"
    levels: int = Field(default=15, ge=1, le=2**_MOST_BITS - 1)
    """s of the first rounds."""
    max_bits: int = Field(default=8, ge=1, le=_MOST_BITS)
    """Most bits b of a client; it then has 2**b - 1 levels, signs besides."""
    period: int = Field(default=5, ge=2)
    """Rounds for which s is held."""
    sensitivity: float = Field(default=1.0, ge=0)
    """lambda: levels by which a doubled norm of the mean update raises s; the paper takes 1."""
    codec: str = "qsgd(levels={levels}) | rans"
    """Template of the codec line, with ``{levels}`` in it."""

    @model_validator(mode="after")
    def _makes_lines(self) -> "AdaGQ":
        if self.levels > 2**self.max_bits - 1:
            raise ValueError(
                f"levels must be at most 2**max_bits - 1 = {2**self.max_bits - 1}, got {self.levels}; choose fewer"
            )
        check_template(self.codec, "levels", (2**bits - 1 for bits in range(1, self.max_bits + 1)))
        return self

    def initial(self) -> AdaGQState:
        """Nothing known."""
        return AdaGQState()

    def decide(self, state: AdaGQState, observation: Observation) -> tuple[Decision, AdaGQState]:
        """The bits that the server told; those of the first levels where it told nothing."""
        bits = clamped(told(observation.told, "bits", self.levels.bit_length()), 1, self.max_bits)
        mean = told(observation.told, "levels", self.levels)
        levels = 2**bits - 1
        reason = "as the mean" if levels <= mean < 2 * levels + 1 else "has time" if levels > mean else "short of time"
        return sent(filled(self.codec, "levels", levels), observation, reason), replace(state, bits=float(bits))

    def learn(self, state: AdaGQState, outcome: Outcome) -> AdaGQState:
        """How long a bit took, in an upload that arrived whole: one that was used, or late."""
        seconds, whole = outcome.seconds - outcome.latency, outcome.accepted or outcome.late
        if not whole or outcome.bytes <= 0 or state.bits < 1 or not 0 < seconds < math.inf:
            return state
        return replace(state, pace=seconds / state.bits)

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Bits for equal finishing times at the mean number of levels."""
        mean = shared.get("levels", float(self.levels))
        starts = [member.download + member.compute + member.latency for member in cohort.members]
        paces = _paces(cohort.members, cohort.parameters)
        bits = equal_times(starts, paces, mean, self.max_bits)
        return {
            member.client: {"bits": float(b), "levels": mean} for member, b in zip(cohort.members, bits, strict=True)
        }, shared

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Follows the norm; at the end of a period, compares what a second was worth and moves the levels."""
        now = dict(shared)
        used = levels = now.get("levels", float(self.levels))
        if 0 < closed.update < math.inf:
            ratio = closed.update / now.get("norm", closed.update)
            if 0 < ratio < math.inf:
                levels = self._bounded(levels + self.sensitivity * digits(math.log2(ratio)))
            now["norm"] = closed.update
        now["levels"] = levels
        loss, rounds = closed.loss, now.get("rounds", 0.0)
        if loss is not None and 0 < loss < math.inf:
            rounds += 1
            now |= {"rounds": rounds, "last": loss}
            if rounds == 1:
                now |= {"first": loss, "seconds": 0.0, "held": used}
        if rounds < self.period:
            now["seconds"] = now.get("seconds", 0.0) + closed.seconds
            return now
        rate = worth(now["first"], now["last"], now["seconds"])
        now["rounds"] = 0.0
        now["levels"] = self._bounded(self._moved(now, levels, rate))
        now |= {"rate": rate, "before": now["held"]}
        return now

    def _moved(self, now: Numbers, levels: float, rate: float) -> float:
        """The levels of the next period, before bounds: doubled or halved."""
        held, before = now["held"], now.get("before", now["held"])
        if max(held, before) < 1.5 * min(held, before):  # the same bits
            return 2 * levels if levels <= 1 else levels / 2
        return 2 * levels if (rate > now["rate"]) == (held > before) and rate != now["rate"] else levels / 2

    def _bounded(self, levels: float) -> float:
        return min(max(levels, 1.0), float(2**self.max_bits - 1))


def worth(first: float, last: float, seconds: float) -> float:
    """Relative fall of the loss per second; 0 where no time passed.

    Args:
        first: Loss at the start, positive and finite.
        last: Loss at the end, likewise.
        seconds: Of simulated time in between.
    """
    rate = (first - last) / first / seconds if seconds > 0 else 0.0
    return rate if math.isfinite(rate) else 0.0


def equal_times(starts: Sequence[float], paces: Sequence[float], mean: float, most: int) -> list[int]:
    """Bits for which all finish at nearly the same time, 2**bits - 1 being `mean` or less in the mean.

    With time T, everybody has b_j = floor((T - start_j) / pace_j) bits, from 1 to `most`; T is the largest for which
    the levels do. So who is alike gets alike, whatever the order.

    Args:
        starts: Second at which each client begins to send.
        paces: Seconds that each bit takes each client.
        mean: Levels a client, 1 or more.
        most: Most bits.
    """
    raises = sorted(
        (start + bits * pace, client, bits)
        for client, (start, pace) in enumerate(zip(starts, paces, strict=True))
        for bits in range(2, most + 1)
    )
    chosen = [1] * len(starts)
    room = (mean - 1) * len(starts)
    for _, together in groupby(raises, key=itemgetter(0)):
        next_bits = [(client, bits) for _, client, bits in together]
        room -= sum(2 ** (bits - 1) for _, bits in next_bits)
        if room < 0:
            break
        for client, bits in next_bits:
            chosen[client] = bits
    return chosen


def _paces(members: Sequence[Member], parameters: int) -> list[float]:
    """Seconds a bit: those of the last upload, else those of the profile, scaled by what is known of the others."""
    measured = [0.0 if member.state is None else member.state.get("pace", 0.0) for member in members]
    planned = [parameters / member.uplink if member.uplink > 0 else 1e300 for member in members]
    pairs = [pair for pair in zip(measured, planned, strict=True) if 0 < pair[0] < math.inf and pair[1] < 1e300]
    expected = sum(plan for _, plan in pairs)
    scale = sum(pace for pace, _ in pairs) / expected if expected > 0 else 1.0
    return [
        pace if 0 < pace < math.inf else min(plan * scale, 1e300) for pace, plan in zip(measured, planned, strict=True)
    ]
