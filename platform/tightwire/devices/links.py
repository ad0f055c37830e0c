"""How fast a client's link is in one round, and how long a transfer takes."""

from dataclasses import dataclass

from pydantic import Field

from tightwire.devices.draws import lognormal
from tightwire.devices.population import Profile
from tightwire.keys import generator
from tightwire.spec import Spec


@dataclass(frozen=True, slots=True)
class Rates:
    """What a link carries in one round, in bit/s, duty cycle included."""

    up: float
    down: float


class Link(Spec):
    """A link whose rates vary from round to round, independently up and down.

    rate = the profile's rate * exp(variation * z), z standard normal and keyed by (seed, round, client,
    direction). The factor has median 1, so half of the rounds are faster than the profile promises; the
    mean of the transfer time is exp(variation^2 / 2) times that at the profile's rate. FLASH's WiFi traces
    vary by 0.3 to 0.5 of their mean.
    """

    variation: float = Field(default=0.3, ge=0, le=2)
    """Standard deviation of the logarithm of the rate from round to round; 0 makes links constant."""

    def rates(self, profile: Profile, *, round: int, client: int, seed: int) -> Rates:
        """The link of one client in one round."""
        up = generator(seed, "link-up", round=round, client=client).standard_normal()
        down = generator(seed, "link-down", round=round, client=client).standard_normal()
        return Rates(
            up=profile.uplink * lognormal(self.variation, float(up)),
            down=profile.downlink * lognormal(self.variation, float(down)),
        )


def transfer_seconds(size: int, rate: float, latency: float) -> float:
    """Seconds until the last byte has arrived: latency + 8 size / rate.

    Args:
        size: Bytes, the length of the frames.
        rate: Bit/s.
        latency: Seconds besides the bytes; half a round trip.

    Raises:
        ValueError: A negative size or latency, or a rate that is not positive.
    """
    if size < 0 or not rate > 0 or latency < 0:
        raise ValueError(
            f"cannot send {size} bytes at {rate} bit/s with {latency} s latency; "
            "size and latency must not be negative and the rate must be positive"
        )
    return latency + 8 * size / rate
