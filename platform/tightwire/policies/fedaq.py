"""The policy `fedaq`: bits for a fixed resolution, as far as the battery's share for the round allows."""

import math
from typing import Literal, final

from pydantic import Field, model_validator

from tightwire.codecs.codec import Codec
from tightwire.policies.base import Alone, Decision, NoState, Observation, skip
from tightwire.policies.levels_of import WIDEST, check_template, extent, filled, foreseen, sent, width_of


@final
class FedAQ(Alone):
    """FedAQ, uplink: the bits of FedDQ, or as many fewer as it takes to keep to the energy of the round.

    Qu et al. 2024, "FedAQ: Communication-efficient federated edge learning via joint uplink and downlink adaptive
    quantization", arXiv 2406.18156: decreasing bits on the uplink, by the range of the updates, under a constraint on
    the energy of communication.

    Where this differs from the paper: its downlink, quantised with increasing bits by the range of the weights, is not
    here, as policies choose what clients send (`wire.downlink` sets the other direction, for all rounds alike). The
    paper shares a given energy out over a known number of rounds by a convergence bound; here a round may take a fixed
    share of what the battery still holds above its reserve, on mains anything. Ranges and bounds are as in `feddq`. Who
    cannot afford the fewest bits skips the round.
    """

    name: Literal["fedaq"] = "fedaq"
    resolution: float = Field(default=0.005, gt=0)
    """Widest step of the quantiser that is aimed at, in units of the update's values."""
    share: float = Field(default=0.01, gt=0, le=1)
    """Share of the energy left that one upload may take."""
    min_bits: int = Field(default=1, ge=1, le=WIDEST)
    """Fewest bits."""
    max_bits: int = Field(default=WIDEST, ge=1, le=WIDEST)
    """Most bits."""
    codec: str = "uniform({bits}) | rans"
    """Template of the codec line, with ``{bits}`` in it."""

    @model_validator(mode="after")
    def _makes_lines(self) -> "FedAQ":
        if self.min_bits > self.max_bits:
            raise ValueError(f"min_bits is {self.min_bits}, more than max_bits = {self.max_bits}; choose fewer")
        check_template(self.codec, "bits", range(self.min_bits, self.max_bits + 1))
        return self

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """The most bits that the range asks for and the energy allows."""
        wanted = width_of(extent(observation.stats) / self.resolution, self.min_bits, self.max_bits)
        bits = self._affordable(observation, wanted)
        if bits is None:
            return skip("no bits fit the battery"), state
        reason = "range of update" if bits == wanted else "battery"
        return sent(filled(self.codec, "bits", bits), observation, reason), state

    def _affordable(self, observation: Observation, wanted: int) -> int | None:
        """The most bits up to `wanted` whose upload keeps to the share; None when even the fewest do not."""
        if math.isinf(observation.energy):
            return wanted
        limit = self.share * observation.energy - observation.joules_per_upload
        for bits in range(wanted, self.min_bits - 1, -1):
            if _weight(filled(self.codec, "bits", bits), observation) * observation.joules_per_byte <= limit:
                return bits
        return None


def _weight(line: str, observation: Observation) -> float:
    """Bytes that a frame should take: predicted where it can be, else nominal, which is never part of a bill."""
    grid = foreseen(line, observation.stats)
    return Codec.parse(line).nominal_bits(observation.schema) / 8 if grid is None else grid[0]
