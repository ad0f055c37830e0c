"""How fast a client's link is at every simulated second, and when transfers over it are through."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from tightwire.devices.draws import lognormal
from tightwire.devices.population import Profile
from tightwire.devices.traces import REST, Recording, Replay, pairs, pick, read
from tightwire.keys import generator, key
from tightwire.spec import Spec


class Channel(Protocol):
    """One direction of one client's link, by absolute simulated time."""

    def segments(self, start: float) -> Iterator[tuple[float, float]]:
        """Yield (until, rate): second and bit/s, each from where the one before ended, the first from `start` on.

        The last `until` is infinity, or there is no last. Rates may be 0.
        """
        ...


@dataclass(frozen=True, slots=True)
class Steady:
    """A channel whose rate never changes."""

    rate: float
    """Bit/s."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate is {self.rate} bit/s; it must be positive and finite")

    def segments(self, start: float) -> Iterator[tuple[float, float]]:  # noqa: ARG002 - it is the same always
        """One that never ends."""
        yield math.inf, self.rate


@dataclass(frozen=True, slots=True)
class Channels:
    """Both directions of one client's link, duty cycle included."""

    up: Channel
    down: Channel


def arrives(channel: Channel, start: float, size: int) -> float:
    """The second at which the last of `size` bytes that began at `start` is through, latency not included.

    Args:
        channel: What carries them, alone.
        start: Absolute simulated seconds.
        size: Bytes, those that are sent again included.

    Returns:
        Absolute simulated seconds; infinity if the channel stays at rate 0 before they are through.

    Raises:
        ValueError: A negative size, or a start that is not finite.
    """
    if size < 0 or not math.isfinite(start):
        raise ValueError(f"cannot send {size} bytes at second {start}; size must be at least 0 and the second finite")
    return through(channel, start, 8.0 * size)


def carried(channel: Channel, start: float, end: float, size: int) -> int:
    """Whole bytes, of `size` that began at `start`, that are through by `end`: most n with arrives(n) <= end.

    Args:
        channel: What carries them, alone.
        start: Absolute simulated seconds.
        end: Absolute simulated seconds; nothing is through before `start`.
        size: Bytes.
    """
    if end < start:
        return 0
    return bisect_right(range(size + 1), end, key=lambda count: arrives(channel, start, count)) - 1


def through(channel: Channel, start: float, bits: float) -> float:
    """As `arrives`, of bits, of which there may be a fraction left."""
    if isinstance(channel, Replay):
        return channel.through(start, bits)
    now, rest = start, REST * bits
    for until, rate in channel.segments(start):
        if bits <= rest:
            return now
        if rate > 0:
            end = now + bits / rate
            if end <= until:
                return end
            bits -= rate * (until - now)
        now = until
    return now if bits <= rest else math.inf


def peak(channel: Channel) -> float:
    """A rate in bit/s that the channel never exceeds; infinity for one that is not known."""
    if isinstance(channel, Steady):
        return channel.rate
    return channel.peak if isinstance(channel, Replay) else math.inf


class Link(Spec):
    """What all links have in common. Abstract."""

    name: str
    loss: float = Field(default=0.0, ge=0, lt=1)
    """Share of packets that are lost and sent again until they arrive; costs bytes, seconds and joules."""

    def channels(self, profile: Profile, *, round: int, client: int, seed: int) -> Channels:
        """The link of one client in one round.

        Args:
            profile: The client's device.
            round: Round number, from 1.
            client: Client number.
            seed: The run's seed.

        Raises:
            DataError: A file that the link needs is missing or damaged.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Read the files that the link needs, if any, so that they fail before the first round and not in it.

        Raises:
            DataError: One is missing or damaged.
        """

    def resent(self, size: int) -> int:
        """Bytes sent besides `size`, because some are lost: ceil(size * loss / (1 - loss)).

        With selective repeat, a packet is sent 1 / (1 - loss) times in the mean (Bertsekas and Gallager 1992, "Data
        Networks", section 2.4.3). The mean is booked, without a spread. That senders slow down on loss (Mathis et al.
        1997) is not modelled.
        """
        if self.loss == 0:
            return 0
        loss = Fraction(repr(self.loss))  # the decimal that was written, so that 0.1 of 9 is 1 and not a bit more
        return math.ceil(size * loss / (1 - loss))


class Constant(Link):
    """A link that carries what its device's profile promises, always."""

    name: Literal["constant"] = "constant"

    def channels(self, profile: Profile, *, round: int, client: int, seed: int) -> Channels:  # noqa: ARG002
        """The profile's rates."""
        return Channels(up=Steady(profile.uplink), down=Steady(profile.downlink))


class LogNormal(Link):
    """A link whose rates vary from round to round, independently of the round before, and up and down.

    rate = the profile's rate * exp(variation * z), z standard normal and keyed by (seed, round, client, direction). The
    factor has median 1, so half of the rounds are faster than the profile promises; the mean of the transfer time is
    exp(variation^2 / 2) times that at the profile's rate. FLASH's WiFi traces (Yang et al. 2021) vary by 0.3 to 0.5 of
    their mean.
    """

    name: Literal["lognormal"] = "lognormal"
    variation: float = Field(default=0.3, ge=0, le=2)
    """Standard deviation of the logarithm of the rate from round to round; 0 makes links constant."""

    def channels(self, profile: Profile, *, round: int, client: int, seed: int) -> Channels:
        """Constant within a round."""
        up = generator(seed, "link-up", round=round, client=client).standard_normal()
        down = generator(seed, "link-down", round=round, client=client).standard_normal()
        return Channels(
            up=Steady(profile.uplink * lognormal(self.variation, float(up))),
            down=Steady(profile.downlink * lognormal(self.variation, float(down))),
        )


class AutoRegressive(Link):
    """A link whose good and bad times last for rounds: the logarithm of its rate is autoregressive of order one.

    rate = the profile's rate * exp(variation * x_t), where x_t = c x_(t-1) + sqrt(1 - c^2) e_t from round to round,
    e_t standard normal and keyed by (seed, client, direction). x_t is standard normal in every round from the first on,
    and `correlation`^k is its correlation with the round k before, as in Gudmundson's model of shadow fading (1991,
    "Correlation model for shadow fading in mobile radio systems"). Costs time of the order of the round's number.
    """

    name: Literal["autoregressive"] = "autoregressive"
    variation: float = Field(default=0.3, ge=0, le=2)
    """Standard deviation of the logarithm of the rate; 0 makes links constant."""
    correlation: float = Field(default=0.9, ge=0, lt=1)
    """c, of the logarithm of the rate in neighbouring rounds; 0 makes rounds independent."""

    def channels(self, profile: Profile, *, round: int, client: int, seed: int) -> Channels:
        """Constant within a round."""
        return Channels(
            up=Steady(profile.uplink * self._factor("link-up-series", round, client, seed)),
            down=Steady(profile.downlink * self._factor("link-down-series", round, client, seed)),
        )

    def _factor(self, purpose: str, round: int, client: int, seed: int) -> float:
        first, *fresh = generator(seed, purpose, client=client).standard_normal(max(1, round)).tolist()
        c, rest = self.correlation, math.sqrt(1 - self.correlation * self.correlation)
        x: float = first
        for e in fresh:
            x = c * x + rest * e
        return lognormal(self.variation, x)


class Trace(Link):
    """A link that replays recordings of real ones, in mahimahi's form (Netravali et al. 2015; see `traces.read`).

    Each client gets a pair of recordings, up and down, and a place in them to start from, keyed by (seed, client); both
    directions start from the same place. Time goes on across rounds, and a recording that is over begins anew. The
    files must be there, at the same paths, wherever clients run.
    """

    name: Literal["trace"] = "trace"
    folder: Path | None = None
    """A folder of pairs NAME.up and NAME.down; ``~`` is the home folder."""
    up: tuple[Path, ...] = ()
    """Traces of uplinks, in place of a folder."""
    down: tuple[Path, ...] = ()
    """Traces of downlinks, as many, in the same order."""
    scaled: bool = True
    """Whether rates are scaled so that the mean of the trace is the profile's rate; false takes them as recorded."""

    @model_validator(mode="after")
    def _files_are_named(self) -> "Trace":
        if self.folder is not None and (self.up or self.down):
            raise ValueError(
                f"both folder ({self.folder}) and up or down are given; give a folder, or the lists up and down"
            )
        if self.folder is None and not (self.up or self.down):
            raise ValueError("no traces are given; give folder, or the lists up and down")
        if len(self.up) != len(self.down):
            raise ValueError(f"up names {len(self.up)} traces and down {len(self.down)}; give one down for each up")
        return self

    def files(self) -> tuple[tuple[Path, Path], ...]:
        """The pairs (up, down), in order.

        Raises:
            DataError: The folder cannot be read, or does not hold pairs.
        """
        if self.folder is not None:
            return pairs(self.folder.expanduser())
        return tuple((up.expanduser(), down.expanduser()) for up, down in zip(self.up, self.down, strict=True))

    def check(self) -> None:
        """Read all traces.

        Raises:
            DataError: One is missing or damaged.
        """
        for up, down in self.files():
            read(up)
            read(down)

    def channels(self, profile: Profile, *, round: int, client: int, seed: int) -> Channels:  # noqa: ARG002 - goes on
        """The same in every round, by absolute time."""
        files = self.files()
        up, down = (read(path) for path in files[pick(key(seed, "trace", client=client), len(files))])
        offset = pick(key(seed, "trace-offset", client=client), max(up.period, down.period))
        return Channels(
            up=Replay(up, offset, self._factor(profile.uplink, up)),
            down=Replay(down, offset, self._factor(profile.downlink, down)),
        )

    def _factor(self, rate: float, recording: Recording) -> float:
        return rate / recording.mean if self.scaled else 1.0


AnyLink = Annotated[Constant | LogNormal | AutoRegressive | Trace, Field(discriminator="name")]
"""Any link that an experiment file can name."""
