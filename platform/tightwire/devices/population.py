"""Who takes part: a mix of device tiers, and every client's own numbers drawn around them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from tightwire.devices.draws import lognormal
from tightwire.devices.tiers import MAY_BE_ZERO, NUMBERS, TIERS, UNITS, Tier, named
from tightwire.devices.tiers import tier as built_in
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
    tail_joules: float
    """Energy of the radio after each burst of bytes, until it sleeps again."""
    idle_watts: float
    """Power of the device while it waits in a round."""
    charge_watts: float
    """Power of the charger into the battery; 0 where there is none."""


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Duty = Annotated[float, Field(gt=0, le=1)]
TierName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=40)]


class OwnTier(Spec):
    """A device tier of one's own, with the numbers of the built-in ones, in the same units.

    What is left out comes from the built-in tier `based_on`. Without one, `tail_joules`, `idle_watts` and
    `charge_watts` are 0 and duty cycles 1 where they are left out, and everything else must be given.
    """

    based_on: str | None = None
    """The built-in tier that fills in what is left out; null for none."""
    source: str | None = None
    """Where the numbers given here come from."""
    flops: Positive | None = None
    """Sustained FLOP/s while training."""
    memory: Positive | None = None
    """Bytes that training may use."""
    uplink: Positive | None = None
    """Bit/s on air towards the server, before the duty cycle."""
    downlink: Positive | None = None
    """Bit/s on air from the server, before the duty cycle."""
    rtt: Positive | None = None
    """Round-trip time in seconds."""
    battery: Positive | Literal["mains"] | None = None
    """Joules in a full battery, or `mains`."""
    joules_per_flop: Positive | None = None
    """Energy of one floating-point operation, in joules."""
    joules_per_byte_up: Positive | None = None
    """Energy of the radio to send one byte, in joules."""
    joules_per_byte_down: Positive | None = None
    """Energy of the radio to receive one byte, in joules."""
    tail_joules: NotNegative | None = None
    """Energy of the radio after each burst of bytes, until it sleeps again, in joules."""
    idle_watts: NotNegative | None = None
    """Power of the device while it waits in a round, in watts."""
    charge_watts: NotNegative | None = None
    """Power of the charger into the battery, in watts; 0 where there is none."""
    duty_up: Duty | None = None
    """Share of the time in which the device may send, in (0, 1]."""
    duty_down: Duty | None = None
    """Share of the time in which it may be sent to, in (0, 1]."""

    @field_validator("based_on")
    @classmethod
    def _exists(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                built_in(name)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _complete(self) -> "OwnTier":
        missing = [number for number in NUMBERS if number not in MAY_BE_ZERO and getattr(self, number) is None]
        if missing and self.based_on is None:
            raise ValueError(
                f"a tier without {', '.join(missing)} must say which built-in one it is based_on; "
                f"one of {', '.join(TIERS)}"
            )
        return self

    def tier(self, name: str) -> Tier:
        """The tier that is meant, called `name`, every number with its source."""
        base = None if self.based_on is None else built_in(self.based_on)
        numbers: dict[str, float] = {}
        sources: dict[str, str] = {}
        for number in UNITS:
            given = getattr(self, number)
            if given is not None:
                numbers[number] = math.inf if given == "mains" else float(given)
                sources[number] = self.source or "the experiment file"
            elif base is not None:
                numbers[number] = getattr(base, number)
                sources[number] = f"as {base.name}: {base.sources[number]}" if number in base.sources else "no limit"
            else:
                numbers[number] = 0.0 if number in MAY_BE_ZERO else 1.0
                sources[number] = "not given" if number in MAY_BE_ZERO else "no limit"
        return Tier(name=name, sources=sources, **numbers)


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
    profiles: dict[TierName, OwnTier] = Field(default_factory=dict)
    """Device tiers of one's own, by names that `tiers` can then mix in."""
    tiers: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(TIERS, 1.0), min_length=1)
    """Weight of each device tier in the mix; weights need not add up to 1, and the order does not matter."""
    spread: float = Field(default=0.25, ge=0, le=2)
    """Standard deviation of the logarithm of a device's numbers around its tier's; 0 for no spread."""

    @field_validator("profiles")
    @classmethod
    def _new_names(cls, profiles: dict[str, OwnTier]) -> dict[str, OwnTier]:
        for name in profiles:
            if name in TIERS:
                raise ValueError(f"{name!r} is a built-in tier; give the profile another name, and based_on: {name}")
        return dict(sorted(profiles.items()))

    @field_validator("tiers")
    @classmethod
    def _known_and_positive(cls, tiers: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if "profiles" not in info.data:  # which is an error already
            return tiers
        known = _with_own(info.data["profiles"])
        for name, weight in tiers.items():
            try:
                named(name, known)
            except ConfigError as error:
                raise ValueError(str(error)) from None
            if weight <= 0:
                raise ValueError(f"weight of tier {name!r} is {weight}; give it more than 0 or leave it out")
        return {name: tiers[name] for name in known if name in tiers}

    @cached_property
    def known(self) -> Mapping[str, Tier]:
        """All tiers by name, mixed in or not: the built-in ones, then one's own in the order of their names."""
        return _with_own(self.profiles)

    @cached_property
    def mix(self) -> tuple[tuple[Tier, float], ...]:
        """The tiers that take part, and their weights."""
        return tuple((self.known[name], weight) for name, weight in self.tiers.items())

    def tier(self, name: str) -> Tier:
        """The built-in tier, or one's own, called `name`.

        Raises:
            ConfigError: There is none; the message suggests the nearest and lists all.
        """
        return named(name, self.known)

    def profile(self, client: int, seed: int) -> Profile:
        """The device of one client.

        Raises:
            ValueError: There is no such client.
        """
        if not 0 <= client < self.clients:
            raise ValueError(f"client {client} is not among the clients 0 to {self.clients - 1}")
        return _draw(self.mix, self.spread, client, seed)


def _with_own(profiles: Mapping[str, OwnTier]) -> dict[str, Tier]:
    return {**TIERS, **{name: profiles[name].tier(name) for name in sorted(profiles)}}


@lru_cache(maxsize=4096)
def _draw(mix: tuple[tuple[Tier, float], ...], spread: float, client: int, seed: int) -> Profile:
    chosen = _pick(mix, key(seed, "tier", client=client) / 2**64)
    normals = generator(seed, "profile", client=client).standard_normal(len(NUMBERS))
    drawn = {
        name: getattr(chosen, name) * lognormal(spread, float(z)) for name, z in zip(NUMBERS, normals, strict=True)
    }
    drawn["uplink"] *= chosen.duty_up
    drawn["downlink"] *= chosen.duty_down
    return Profile(tier=chosen.name, **drawn)


def _pick(mix: tuple[tuple[Tier, float], ...], u: float) -> Tier:
    """The tier at the point `u` in [0, 1] of the mix laid end to end."""
    point = u * math.fsum(weight for _, weight in mix)
    for tier, weight in mix:
        point -= weight
        if point < 0:
            return tier
    return mix[-1][0]
