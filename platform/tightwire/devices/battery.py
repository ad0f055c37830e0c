"""How full batteries are when a run begins, when they charge, and what they keep back."""

import math
from typing import Annotated

from pydantic import Field, field_validator

from tightwire.devices.population import Profile
from tightwire.keys import key
from tightwire.spec import Spec

DAY = 86400.0
"""Seconds."""

Share = Annotated[float, Field(ge=0, le=1)]


class Battery(Spec):
    """The batteries of all clients. The default is full ones that never charge and keep nothing back.

    A device on mains has an infinite battery, of which every share is infinite.
    """

    start: tuple[Share, Share] = (1.0, 1.0)
    """Smallest and largest share of a full battery with which clients begin; each client's is drawn uniformly between
    them, keyed by (seed, client)."""
    charging: bool = False
    """Whether devices with a charger are plugged in once a day."""
    hours: float = Field(default=8.0, gt=0, le=24)
    """Hours a day for which they are; when a client's begin is drawn uniformly, keyed by (seed, client)."""
    reserve: float = Field(default=0.0, ge=0, lt=1)
    """Share of a full battery below which a client refuses to take part."""

    @field_validator("start")
    @classmethod
    def _in_order(cls, start: tuple[float, float]) -> tuple[float, float]:
        if start[0] > start[1]:
            raise ValueError(f"goes from the smallest to the largest share, got {list(start)}")
        return start

    def initial(self, profile: Profile, client: int, seed: int) -> float:
        """Joules with which a client begins."""
        if math.isinf(profile.battery):
            return profile.battery
        low, high = self.start
        return profile.battery * (low + (high - low) * (key(seed, "battery start", client=client) / 2**64))

    def charged(self, joules: float, profile: Profile, client: int, since: float, now: float, seed: int) -> float:
        """Joules at `now` of a battery that held `joules` at `since` and was not used between: at most a full one.

        Args:
            joules: 0 or more.
            profile: The client's device.
            client: Its number.
            since: Simulated seconds since the start of the run.
            now: Likewise, not before `since`.
            seed: The run's seed.

        Raises:
            ValueError: Times are negative, or in the wrong order.
        """
        if not 0 <= since <= now:
            raise ValueError(f"a battery charges from an earlier time to a later one, got {since} s to {now} s")
        if not self.charging:
            return joules
        full = profile.battery
        return max(joules, min(full, joules + profile.charge_watts * self.plugged(client, since, now, seed)))

    def plugged(self, client: int, since: float, now: float, seed: int) -> float:
        """Seconds between two times for which a client is plugged in.

        In closed form: the share of the time from the start that lies in the daily windows, at both ends.

        Args:
            client: Its number.
            since: Simulated seconds since the start of the run.
            now: Likewise.
            seed: The run's seed.
        """
        phase = DAY * (key(seed, "charging", client=client) / 2**64)
        return max(0.0, self._before(now - phase) - self._before(since - phase))

    def _before(self, seconds: float) -> float:
        """Seconds of windows that begin at 0 and every day before and after it, between 0 and `seconds`."""
        days = math.floor(seconds / DAY)
        return days * 3600 * self.hours + min(seconds - days * DAY, 3600 * self.hours)

    def available(self, joules: float, profile: Profile) -> float:
        """Joules above the reserve: what a client with `joules` left is ready to spend, 0 or more."""
        if math.isinf(profile.battery):
            return joules
        return max(0.0, joules - self.reserve * profile.battery)
