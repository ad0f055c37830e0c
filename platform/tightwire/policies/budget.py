"""The policy `budget`: the best that this very update can be within the time, bytes, energy and memory left."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from tightwire.arrays import Floats
from tightwire.policies.base import Alone, Decision, Observation, Outcome, skip
from tightwire.policies.layers import layered
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.predict import Point, best_within, shortest_frame

DENSITIES = tuple(sorted({float(f"{10 ** (tenth / 10):.3g}") for tenth in range(-40, 1)}))
"""0.0001 to 1, ten a decade, in three digits so that a codec line says exactly what was predicted."""

_DOUBT = 0.25
"""Mean deviation of the link's slowness that is assumed before any upload was seen."""
_ABOVE = 1 + 1e-9
"""So that rounding does not make a frame longer than itself."""
_WIDEST = 32.0
"""An outcome counts as at most so many times slower or faster than promised."""

Bits = Annotated[int, Field(ge=1, le=16)]
Density = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, slots=True)
class BudgetState:
    """What one client has learnt of its link, and what its last decision expected."""

    slowness: float = 1.0
    """Seconds a byte really took over seconds promised: moving average."""
    deviation: float = _DOUBT
    """Mean absolute deviation from `slowness`: moving average."""
    size: float = 1.0
    """Real frame length over predicted: moving average."""
    uplink: float = 0.0
    """bit/s that were promised when the last decision was taken."""
    bytes: float = 0.0
    """Frame length that was predicted then, before `size` is applied."""


class Budget(Alone):
    """The (bits, density) of smallest expected error that meets deadline, battery, memory and byte cap.

    The expected error and the expected frame length of ``topk(density) | uniform(bits) | rans`` come from the
    statistics of the vector that will be encoded; the link's rate is the promised one, corrected by what
    earlier uploads took. As in TCP's retransmission timer (RFC 6298, section 2), the time planned for is the
    average plus some mean deviations.
    """

    name: Literal["budget"] = "budget"
    max_ratio: float = Field(default=0.1, gt=0, le=1)
    """Largest frame, as a share of the update's bytes in fp32, authentication not counted; the smallest frame that can
    be had is always allowed."""
    bits: tuple[Bits, ...] = Field(default=(1, 2, 3, 4, 5, 6, 8, 10, 12), min_length=1)
    """Bit widths to choose from, rising."""
    densities: tuple[Density, ...] = Field(default=DENSITIES, min_length=1)
    """Densities to choose from, rising, of at most four significant digits."""
    layers: bool = False
    """Whether each layer has its own bits and density: the total error is then minimised over all of them at once
    (L-GreCo, Alimohammadi et al. 2023, arXiv 2210.17357)."""
    entropy: Entropy = "rans"
    """Entropy coder at the end of the line."""
    margin: float = Field(default=0.1, ge=0, lt=1)
    """Share of the time left that is not planned for."""
    caution: float = Field(default=2.0, ge=0)
    """Mean deviations of the link's slowness that are planned for on top of its average."""
    slack: float = Field(default=0.03, ge=0, lt=1)
    """Share by which a frame may turn out longer than predicted without breaking a limit."""
    memory: float = Field(default=0.7, ge=0, lt=1)
    """Weight of the past when a new outcome is averaged in."""

    @field_validator("bits", "densities")
    @classmethod
    def _rises(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)):
            raise ValueError(f"must rise from value to value, got {list(values)}")
        return values

    @field_validator("densities")
    @classmethod
    def _is_short(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for value in values:
            if float(f"{value:.4g}") != value:
                raise ValueError(f"must have at most four significant digits, got {value}")
        return values

    def initial(self) -> BudgetState:
        """Trusts the profile, with some doubt."""
        return BudgetState()

    def decide(self, state: BudgetState, observation: Observation) -> tuple[Decision, BudgetState]:
        """The choice of smallest expected error within all limits; of equals, that of fewest bytes."""
        stats = observation.stats
        limits = _Limits.of(self, state, observation)
        found = _within(self, limits)
        if found is None:
            shortest = shortest_frame(stats, self.bits, self.densities, self.entropy) * limits.factor
            limits = replace(limits, cap=max(limits.cap, shortest * _ABOVE))
            found = _within(self, limits)
        if found is None:
            return self._skip(state, _tightest(self, limits))
        point, reason = found
        line, bits, density = _line(self, point), float(self.bits[point.row]), self.densities[point.column]
        expected, error = point.bytes, point.error
        if self.layers and not point.free:
            room = min(limits.by_line(line).values()) / limits.factor
            own = layered(stats, self.bits, self.densities, self.entropy, room, point)
            if own is not None and own.error < error and limits.allow(own.line, own.bytes):
                line, bits, density, expected, error = own.line, own.bits, own.density, own.bytes, own.error
        energy = stats.norm**2
        transfer = 8 * expected * state.size * state.slowness / observation.uplink if observation.uplink else math.inf
        decision = Decision(
            codec=line,
            bits=_digits(bits),
            density=_digits(density),
            reason=reason,
            predicted_bytes=_digits(expected * state.size),
            predicted_seconds=_digits(observation.latency + transfer),
            predicted_error=_digits(error / energy) if energy > 0 else 0.0,
        )
        return decision, BudgetState(state.slowness, state.deviation, state.size, observation.uplink, expected)

    def learn(self, state: BudgetState, outcome: Outcome) -> BudgetState:
        """Average the upload's real time in, whether it was used, late or lost; and its length if all of it came."""
        seconds = outcome.seconds - outcome.latency
        if outcome.bytes <= 0 or state.bytes <= 0 or not 0 < seconds < math.inf:
            return state
        slowness = _clip(seconds * state.uplink / (8 * outcome.bytes))
        whole = outcome.accepted or outcome.late
        return replace(
            state,
            slowness=self._mix(state.slowness, slowness),
            deviation=self._mix(state.deviation, abs(slowness - state.slowness)),
            size=self._mix(state.size, _clip(outcome.bytes / state.bytes)) if whole else state.size,
        )

    def _skip(self, state: BudgetState, limit: str) -> tuple[Decision, BudgetState]:
        """Send nothing. Who sends nothing learns nothing, so a bad memory of the link must fade by itself."""
        decision = skip(f"no codec {'meets' if limit == 'deadline' else 'fits'} the {limit}")
        if limit != "deadline":
            return decision, state
        return decision, replace(
            state, slowness=self._mix(state.slowness, 1.0), deviation=self._mix(state.deviation, _DOUBT)
        )

    def _mix(self, old: float, new: float) -> float:
        return self.memory * old + (1 - self.memory) * new


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a frame must keep within; bytes as planned, that is after `factor`."""

    observation: Observation
    factor: float
    """Bytes that are planned for each byte that is predicted."""
    cap: float
    battery: float
    left: float
    """Seconds for encoding and sending; infinity without a deadline."""
    pace: float
    """Bytes a second that are planned for."""

    @classmethod
    def of(cls, budget: Budget, state: BudgetState, observation: Observation) -> "_Limits":
        """The limits of one decision."""
        joules = observation.energy - observation.joules_per_upload
        battery = 0.0 if joules < 0 else math.inf
        if joules >= 0 and observation.joules_per_byte > 0:
            battery = joules / observation.joules_per_byte
        left = math.inf
        if observation.deadline is not None:
            left = observation.deadline - observation.elapsed - observation.latency
        pace = 8 * (state.slowness + budget.caution * state.deviation) / (1 - budget.margin)
        factor = state.size * (1 + budget.slack)
        return cls(
            observation=observation,
            factor=factor,
            cap=budget.max_ratio * 4 * observation.schema.size + observation.tag * factor,
            battery=battery,
            left=left,
            pace=observation.uplink / pace,
        )

    def deadline(self, encoding: float) -> float:
        """Bytes that the deadline leaves after so many seconds of encoding."""
        return math.inf if self.left == math.inf else max(self.left - encoding, 0.0) * self.pace

    def by_line(self, line: str) -> dict[str, float]:
        """Bytes that each limit leaves to frames of a codec line, by the word for it."""
        seen = self.observation
        return {
            "deadline": self.deadline(seen.encoding(line)) if self.left < math.inf else math.inf,
            "battery": self.battery,
            "byte cap": self.cap,
            "memory": math.inf if seen.memory == math.inf or seen.workspace(line) <= seen.memory else 0.0,
        }

    def allow(self, line: str, predicted: float) -> bool:
        """Whether a frame of that predicted length keeps within all of them."""
        return predicted * self.factor <= min(self.by_line(line).values())


def _line(budget: Budget, point: Point) -> str:
    return quantised(budget.bits[point.row], budget.densities[point.column], budget.entropy)


def _within(budget: Budget, limits: _Limits) -> tuple[Point, str] | None:
    """The best grid point and what keeps it from being better; None if none keeps within the limits."""
    stats = limits.observation.stats

    def search(allowed: Floats) -> Point | None:
        return best_within(stats, budget.bits, budget.densities, budget.entropy, allowed / limits.factor)

    for timely, memory in _allowed(budget, limits):
        point = search(timely if memory is None else np.minimum(timely, memory))
        if point is None:
            continue
        by_line = limits.by_line(_line(budget, point))
        if point.bytes * limits.factor <= min(by_line.values()):
            if point.free:
                return point, "finest grid point"
            without = None if memory is None or memory.min() > 0 else search(timely)
            if without is not None and without.error < point.error:
                return point, "memory"
            return point, min(by_line, key=by_line.__getitem__)
    return None


def _allowed(budget: Budget, limits: _Limits) -> Iterator[tuple[Floats, Floats | None]]:
    """Bytes that time, battery and cap leave at each density, and memory where it is looked at; more and more exactly.

    Encoding time and memory are asked about as rarely as can be, for that takes longer than the search. Where they do
    not matter, it is enough that the point that is best without them turns out to keep within them.
    """
    constant = np.full(len(budget.densities), min(limits.cap, limits.battery))
    if limits.deadline(0.0) >= constant[0]:
        yield constant, None
    yield np.minimum(constant, _deadline(budget, limits, exact=False)), None
    yield np.minimum(constant, _deadline(budget, limits, exact=True)), _memory(budget, limits)


def _deadline(budget: Budget, limits: _Limits, *, exact: bool) -> Floats:
    """Bytes that the deadline leaves at each density.

    Encoding takes time in proportion to the kept values and some more: where not `exact`, the ends say what lies
    between.
    """
    if limits.left == math.inf:
        return np.full(len(budget.densities), math.inf)
    questions = _questions(budget.bits[-1], budget.densities, budget.entropy, exact=exact)
    seconds = np.array([limits.observation.encoding(line) for line in questions.lines])
    between = seconds if exact else np.interp(questions.densities, questions.asked, seconds)
    return np.maximum(limits.left - between, 0.0) * limits.pace


@dataclass(frozen=True, slots=True, eq=False)
class _Questions:
    """Codec lines whose encoding time is asked about."""

    densities: Floats
    """Of the grid."""
    asked: Floats
    """Those of the lines."""
    lines: tuple[str, ...]


@lru_cache(maxsize=64)
def _questions(bits: int, densities: tuple[float, ...], entropy: Entropy, *, exact: bool) -> _Questions:
    asked = densities if exact else sorted({densities[0], *[d for d in densities if d < 1][-1:], densities[-1]})
    lines = tuple(quantised(bits, density, entropy) for density in asked)
    return _Questions(np.array(densities), np.array(asked), lines)


def _memory(budget: Budget, limits: _Limits) -> Floats:
    """Infinity at each density whose encoding fits the device's memory, 0 where it does not."""
    seen = limits.observation
    lines = _questions(budget.bits[-1], budget.densities, budget.entropy, exact=True).lines
    return np.array([math.inf if seen.workspace(line) <= seen.memory else 0.0 for line in lines])


def _tightest(budget: Budget, limits: _Limits) -> str:
    """The limit that leaves the fewest bytes."""
    most = {
        "deadline": float(_deadline(budget, limits, exact=True).max()),
        "battery": limits.battery,
        "byte cap": limits.cap,
        "memory": float(_memory(budget, limits).max()),
    }
    return min(most, key=most.__getitem__)


def _clip(ratio: float) -> float:
    return min(max(ratio, 1 / _WIDEST), _WIDEST)


def _digits(number: float) -> float:
    """Six digits, so that a last bit in which two machines' logarithms may differ reaches no digest."""
    return float(f"{number:.6g}")
