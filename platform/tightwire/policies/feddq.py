"""The policy `feddq`: bits for a fixed resolution, fewer as the range of the updates shrinks."""

from typing import Literal, final

from pydantic import Field, model_validator

from tightwire.policies.base import Alone, Decision, NoState, Observation
from tightwire.policies.levels_of import WIDEST, check_template, extent, filled, sent, width_of


@final
class FedDQ(Alone):
    """FedDQ: ceil(log2(1 + range / resolution)) bits, range being the update's largest less its smallest value.

    Qu et al. 2021, "FedDQ: Communication-efficient federated learning with descending quantization",
    arXiv 2110.02291. Descending: updates shrink as the model converges, and the step of the quantiser stays.

    Where this differs from the paper: bits are bounded, as the quantiser's are; what is measured is the vector that
    will be encoded, with error feedback's residual where there is one; one range, that of the whole update, gives the
    bits, while the quantiser takes a range for each tensor, so that no step is wider than the resolution; and an
    entropy coder follows.
    """

    name: Literal["feddq"] = "feddq"
    resolution: float = Field(default=0.005, gt=0)
    """Widest step of the quantiser, in units of the update's values."""
    min_bits: int = Field(default=1, ge=1, le=WIDEST)
    """Fewest bits."""
    max_bits: int = Field(default=WIDEST, ge=1, le=WIDEST)
    """Most bits."""
    codec: str = "uniform({bits}) | rans"
    """Template of the codec line, with ``{bits}`` in it."""

    @model_validator(mode="after")
    def _makes_lines(self) -> "FedDQ":
        if self.min_bits > self.max_bits:
            raise ValueError(f"min_bits is {self.min_bits}, more than max_bits = {self.max_bits}; choose fewer")
        check_template(self.codec, "bits", range(self.min_bits, self.max_bits + 1))
        return self

    def decide(self, state: NoState, observation: Observation) -> tuple[Decision, NoState]:
        """As many bits as the range needs."""
        ratio = extent(observation.stats) / self.resolution
        bits = width_of(ratio, self.min_bits, self.max_bits)
        reason = "most bits" if 2**bits - 1 < ratio else "fewest bits" if bits == self.min_bits else "range of update"
        return sent(filled(self.codec, "bits", bits), observation, reason), state
