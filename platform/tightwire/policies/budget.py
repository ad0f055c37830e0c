"""The policy `budget`: the best that this very update can be within the time, bytes and energy left."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from tightwire.arrays import Floats
from tightwire.codecs.codec import Codec
from tightwire.policies.base import Decision, Observation, Outcome
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.predict import predict
from tightwire.spec import Spec

DENSITIES = tuple(sorted({float(f"{10 ** (tenth / 10):.3g}") for tenth in range(-40, 1)}))
"""0.0001 to 1, ten a decade, in three digits so that a codec line says exactly what was predicted."""

_DOUBT = 0.25
"""Mean deviation of the link's slowness that is assumed before any upload was seen."""
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


class Budget(Spec):
    """The (bits, density) of smallest expected error that meets deadline, battery and byte cap.

    The expected error and the expected frame length of ``topk(density) | uniform(bits) | rans`` come from the
    statistics of the vector that will be encoded; the link's rate is the promised one, corrected by what
    earlier uploads took. As in TCP's retransmission timer (RFC 6298, section 2), the time planned for is the
    average plus some mean deviations.
    """

    name: Literal["budget"] = "budget"
    max_ratio: float = Field(default=0.1, gt=0, le=1)
    """Largest frame, as a share of the update's bytes in fp32; the smallest frame that can be had is always allowed."""
    bits: tuple[Bits, ...] = Field(default=(1, 2, 3, 4, 5, 6, 8, 10, 12), min_length=1)
    """Bit widths to choose from, rising."""
    densities: tuple[Density, ...] = Field(default=DENSITIES, min_length=1)
    """Densities to choose from, rising, of at most four significant digits."""
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
        """The grid point of smallest expected error within all limits; of equals, that of fewest bytes."""
        grid = predict(observation.stats, self.bits, self.densities, self.entropy)
        planned = grid.bytes * state.size * (1 + self.slack)
        limits = self._limits(state, observation)
        limits["byte cap"] = np.maximum(limits["byte cap"], planned.min())
        allowed = np.minimum.reduce(list(limits.values()))
        fits = planned <= allowed
        if not fits.any():
            tightest = min(limits, key=lambda name: float(limits[name].max()))
            return self._skip(state, tightest)
        error = np.where(fits, grid.error, np.inf)
        best = np.argwhere(error == error.min())
        row, column = best[np.argmin(grid.bytes[tuple(best.T)])]
        reason = min(limits, key=lambda name: float(limits[name][column]))
        if grid.error[row, column] <= grid.error.min():
            reason = "finest grid point"
        bits, density = self.bits[row], self.densities[column]
        expected = float(grid.bytes[row, column])
        energy = observation.stats.norm**2
        decision = Decision(
            codec=quantised(bits, density, self.entropy),
            bits=float(bits),
            density=density,
            reason=reason,
            predicted_bytes=_digits(expected * state.size),
            predicted_seconds=_digits(
                observation.latency + 8 * expected * state.size * state.slowness / observation.uplink
            ),
            predicted_error=_digits(float(grid.error[row, column]) / energy) if energy > 0 else 0.0,
        )
        return decision, replace(state, uplink=observation.uplink, bytes=expected)

    def learn(self, state: BudgetState, outcome: Outcome) -> BudgetState:
        """Average the upload's real time and length in, whether it was used, late or lost."""
        seconds = outcome.seconds - outcome.latency
        if outcome.bytes <= 0 or state.bytes <= 0 or not 0 < seconds < math.inf:
            return state
        slowness = _clip(seconds * state.uplink / (8 * outcome.bytes))
        return replace(
            state,
            slowness=self._mix(state.slowness, slowness),
            deviation=self._mix(state.deviation, abs(slowness - state.slowness)),
            size=self._mix(state.size, _clip(outcome.bytes / state.bytes)),
        )

    def dump(self, state: BudgetState) -> dict[str, float]:
        """The state by field."""
        return asdict(state)

    def load(self, numbers: dict[str, float]) -> BudgetState:
        """The inverse of `dump`."""
        return BudgetState(**numbers)

    def _limits(self, state: BudgetState, observation: Observation) -> dict[str, Floats]:
        """Bytes that each limit allows at each density, by the word for it."""
        shape = len(self.densities)
        values = observation.stats.size
        limits = {
            "deadline": np.full(shape, math.inf),
            "battery": np.full(shape, math.inf),
            "byte cap": np.full(shape, self.max_ratio * 4 * values),
        }
        if observation.joules_per_byte > 0:
            limits["battery"][:] = observation.energy / observation.joules_per_byte
        if observation.deadline is not None:
            left = observation.deadline - observation.elapsed - observation.latency
            lines = [quantised(self.bits[0], density, self.entropy) for density in self.densities]
            passes = np.array([Codec.parse(line).passes(observation.schema) for line in lines])
            planned = (left - passes * values * observation.codec_seconds) * (1 - self.margin)
            pace = state.slowness + self.caution * state.deviation
            limits["deadline"][:] = np.maximum(planned, 0) * observation.uplink / (8 * pace)
        return limits

    def _skip(self, state: BudgetState, limit: str) -> tuple[Decision, BudgetState]:
        """Send nothing. Who sends nothing learns nothing, so a bad memory of the link must fade by itself."""
        verb = "meets" if limit == "deadline" else "fits"
        decision = Decision(codec=None, bits=0.0, density=0.0, reason=f"no codec {verb} the {limit}")
        if limit != "deadline":
            return decision, state
        return decision, replace(
            state, slowness=self._mix(state.slowness, 1.0), deviation=self._mix(state.deviation, _DOUBT)
        )

    def _mix(self, old: float, new: float) -> float:
        return self.memory * old + (1 - self.memory) * new


def _clip(ratio: float) -> float:
    return min(max(ratio, 1 / _WIDEST), _WIDEST)


def _digits(number: float) -> float:
    """Six digits, so that a last bit in which two machines' logarithms may differ reaches no digest."""
    return float(f"{number:.6g}")
