"""Who takes part: a mix of device tiers, and every client's own numbers drawn around them."""

from dataclasses import dataclass
from functools import lru_cache

from pydantic import Field, PositiveInt, field_validator

from tightwire.devices.draws import lognormal
from tightwire.devices.tiers import NUMBERS, TIERS, tier
from tightwire.errors import ConfigError
from tightwire.keys import generator, key
from tightwire.spec import Spec


@dataclass(frozen=True, slots=True)
class Profile:
    """One client's device, the same in every round of a run."""

    tier: str
    """Name of its tier."""
    flops: float
    """Sustained FLOP/s while training."""
    memory: float
    """Bytes that training may use."""
    uplink: float
    """Bit/s that the device gets through to the server in the long run, duty cycle included."""
    downlink: float
    """Bit/s from the server, duty cycle included."""
    rtt: float
    """Round-trip time in seconds."""
    battery: float
    """Joules in its full battery; infinity on mains."""
    joules_per_flop: float
    """Energy of one floating-point operation."""
    joules_per_byte_up: float
    """Energy of the radio to send one byte."""
    joules_per_byte_down: float
    """Energy of the radio to receive one byte."""


class Population(Spec):
    """How many clients there are and what they run on.

    A client's tier is drawn with probability weight / sum of weights; the shares of a finite population
    vary around the mix accordingly. Each number is its tier's times an independent log-normal factor of
    median 1, exp(spread * z). The duty cycle is law and does not vary. Everything is keyed by (seed,
    client): drawing one client costs microseconds, a population nothing, and a larger population leaves the
    clients it already had as they were.
    """

    clients: PositiveInt = 100
    """Number of clients, numbered from 0."""
    tiers: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(TIERS, 1.0), min_length=1)
    """Weight of each device tier in the mix; weights need not add up to 1, and the order does not matter."""
    spread: float = Field(default=0.25, ge=0, le=2)
    """Standard deviation of the logarithm of a device's numbers around its tier's; 0 for no spread."""

    @field_validator("tiers")
    @classmethod
    def _known_and_positive(cls, tiers: dict[str, float]) -> dict[str, float]:
        for name, weight in tiers.items():
            try:
                tier(name)
            except ConfigError as error:
                raise ValueError(str(error)) from None
            if weight <= 0:
                raise ValueError(f"weight of tier {name!r} is {weight}; give it more than 0 or leave it out")
        return {name: tiers[name] for name in TIERS if name in tiers}

    def profile(self, client: int, seed: int) -> Profile:
        """The device of one client.

        Raises:
            ValueError: There is no such client.
        """
        if not 0 <= client < self.clients:
            raise ValueError(f"client {client} is not among the clients 0 to {self.clients - 1}")
        return _draw(tuple(self.tiers.items()), self.spread, client, seed)


@lru_cache(maxsize=4096)
def _draw(tiers: tuple[tuple[str, float], ...], spread: float, client: int, seed: int) -> Profile:
    chosen = TIERS[_pick(tiers, key(seed, "tier", client=client) / 2**64)]
    normals = generator(seed, "profile", client=client).standard_normal(len(NUMBERS))
    drawn = {
        name: getattr(chosen, name) * lognormal(spread, float(z)) for name, z in zip(NUMBERS, normals, strict=True)
    }
    drawn["uplink"] *= chosen.duty_up
    drawn["downlink"] *= chosen.duty_down
    return Profile(tier=chosen.name, **drawn)


def _pick(tiers: tuple[tuple[str, float], ...], u: float) -> str:
    """The tier at the point `u` in [0, 1] of the mix laid end to end."""
    point = u * sum(weight for _, weight in tiers)
    for name, weight in tiers:
        point -= weight
        if point < 0:
            return name
    return tiers[-1][0]
