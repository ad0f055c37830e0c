"""Shares on their way: who is at which, since when, and which are taking too long."""

import math
import time
from collections.abc import Iterator

import ray

from tightwire.codecs.codec import Memory
from tightwire_actors.roster import Host
from tightwire_actors.shares import Pace, Share

STUCK_SECONDS = 5.0
"""A host that is not back so long after another one ended its share stands still."""

ABORTED_SECONDS = 30.0
"""How long hosts are waited for that work for nobody since their round was given up."""


class Flight:
    """A share at a host."""

    __slots__ = ("began", "first", "host", "memories", "method", "over", "raced", "share")

    def __init__(
        self,
        method: str,
        host: Host,
        share: Share,
        first: "ray.ObjectRef[object]",
        memories: list["ray.ObjectRef[Memory]"],
    ) -> None:
        self.method = method
        self.host = host
        self.share = share
        self.first = first
        """What the method gives first."""
        self.memories = memories
        self.began = time.monotonic()
        self.over: float | None = None
        """When it was given up: nobody wants what it brings, and the host is busy until it is back."""
        self.raced = False
        """Whether that was because another host ended the share first."""

    def give_up(self) -> None:
        """Let go of what it brings."""
        if self.over is None:
            self.over = time.monotonic()
            self.memories = []


class Flights:
    """All flights of a pool, those that were given up included, until they are back."""

    def __init__(self) -> None:
        self._all: dict[ray.ObjectRef[object], Flight] = {}
        self._paces = {"offers": Pace(), "run": Pace()}

    @property
    def events(self) -> list["ray.ObjectRef[object]"]:
        """What may be waited for."""
        return list(self._all)

    @property
    def at_work(self) -> list[Flight]:
        """Flights whose share is still wanted."""
        return [flight for flight in self._all.values() if flight.over is None]

    @property
    def aborted(self) -> bool:
        """Whether hosts are still busy with what no round wants."""
        limit = time.monotonic() - ABORTED_SECONDS
        return any(f.over is not None and not f.raced and f.over > limit for f in self._all.values())

    def begin(self, flight: Flight) -> None:
        """A host has been given a share."""
        self._all[flight.first] = flight
        flight.host.busy = True
        flight.share.runs += 1

    def back(self, event: "ray.ObjectRef[object]") -> Flight:
        """A host has an answer, or died."""
        flight = self._all.pop(event)
        flight.host.busy = False
        flight.share.runs -= 1
        return flight

    def won(self, flight: Flight) -> None:
        """A share is there; whoever else is at it works for nothing."""
        self._paces[flight.method].ended(flight.share, time.monotonic() - flight.began)
        flight.host.lost_races = 0
        for rival in self.at_work:
            if rival.share is flight.share:
                rival.give_up()
                rival.raced = True
                rival.host.lost_races += 1

    def slow(self) -> Share | None:
        """A share that takes too long where it is and that no other host is at."""
        return next((flight.share for flight, left in self._alone() if left <= 0), None)

    def until_slow(self) -> float | None:
        """Seconds until there may be a slow one; None if that cannot be said."""
        least = min((left for _, left in self._alone()), default=math.inf)
        return None if math.isinf(least) else max(0.0, least)

    def give_up(self) -> None:
        """The round has ended, well or not."""
        for flight in self._all.values():
            flight.give_up()

    def stuck(self) -> list[Host]:
        """Hosts that stand still."""
        now = time.monotonic()
        return [f.host for f in self._all.values() if f.over is not None and now - f.over > self._time_to_come_back(f)]

    def _time_to_come_back(self, flight: Flight) -> float:
        """Seconds in which a host that was given up should be done with its share all the same."""
        if flight.raced:
            return STUCK_SECONDS
        return ABORTED_SECONDS + 2 * self._paces[flight.method].patience(flight.share)

    def forget(self, host: Host) -> None:
        """A host is no more."""
        self._all = {event: flight for event, flight in self._all.items() if flight.host is not host}

    def _alone(self) -> Iterator[tuple[Flight, float]]:
        """Flights that nobody races, and the seconds until they are slow."""
        now = time.monotonic()
        for flight in self.at_work:
            if flight.share.runs == 1:
                yield flight, flight.began + self._paces[flight.method].patience(flight.share) - now
