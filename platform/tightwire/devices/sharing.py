"""Transfers that share the server's link: a fluid simulation of max-min fairness."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tightwire.arrays import Floats
from tightwire.devices.links import Channel, arrives, peak, through
from tightwire.devices.traces import REST


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes to send."""

    start: float
    """Absolute simulated second at which the first goes out."""
    size: int
    """Bytes, those that are sent again included."""
    channel: Channel
    """The client's own link, which it is never faster than."""


def share(transfers: Sequence[Transfer], capacity: float | None) -> list[float]:
    """When each transfer is through if all share a link of `capacity` bit/s max-min fair.

    At every moment no transfer could be faster but at the cost of one that is no faster than itself: each gets what its
    own channel carries or the common level, whichever is less, and the level is such that all of the capacity is used,
    or infinite where there is enough for all (water-filling with a cap for each flow; Bertsekas and Gallager 1992,
    "Data Networks", section 6.5.2). Rates change when a transfer begins, ends, or its channel changes; in between, all
    is linear, so the result is exact but for rounding. It does not depend on the order of the transfers, and where
    there is enough for all it is that of `arrives`.

    Args:
        transfers: In any order.
        capacity: Bit/s of the shared link, or None for no limit.

    Returns:
        Absolute seconds, latency not included, in the order of `transfers`; infinity for one whose channel stays at 0.

    Raises:
        ValueError: A capacity that is not positive, a negative size, or a start that is not finite.
    """
    if capacity is not None and not capacity > 0:
        raise ValueError(f"capacity is {capacity} bit/s; it must be positive, or None for no limit")
    for transfer in transfers:
        if transfer.size < 0 or not math.isfinite(transfer.start):
            raise ValueError(f"{transfer}: its size must be at least 0 and its start finite")
    if capacity is None:
        return [arrives(transfer.channel, transfer.start, transfer.size) for transfer in transfers]
    return _Fluid(transfers, capacity).run() if transfers else []


def level(caps: Floats, capacity: float) -> float:
    """The rate above which nobody gets, in bit/s: sum of min(cap, level) = capacity; infinity where all caps fit.

    Args:
        caps: What each could use, in bit/s, shape (transfers,).
        capacity: Bit/s to give away.
    """
    ascending = np.sort(caps)  # so that the sum does not depend on the order of the transfers
    below = np.concatenate([[0.0], np.cumsum(ascending)[:-1]])
    shares = (capacity - below) / np.arange(len(caps), 0, -1)
    first = int(np.argmax(ascending >= shares))
    return float(shares[first]) if ascending[first] >= shares[first] else math.inf


class _Fluid:
    """All transfers at the moment of the last event.

    What is left of a transfer is brought up to date only when its own rate changes, so that events which do not concern
    it leave not even a trace of rounding.
    """

    def __init__(self, transfers: Sequence[Transfer], capacity: float) -> None:
        count = len(transfers)
        self._capacity = capacity
        self._channels = [transfer.channel for transfer in transfers]
        self._segments = [transfer.channel.segments(transfer.start) for transfer in transfers]
        self._peaks = np.array([peak(channel) for channel in self._channels])
        self._since = np.array([float(transfer.start) for transfer in transfers])  # second of its last change
        self._left = np.array([8.0 * transfer.size for transfer in transfers])  # bits at that second
        self._rest = REST * self._left
        self._caps = np.zeros(count)  # what its channel carries; nothing until it begins
        self._turns = self._since.copy()  # second until which it does
        self._rate = np.zeros(count)
        self._ends = np.full(count, math.inf)  # second at which it is through if its rate stays
        self._done = np.full(count, math.inf)
        self._open = np.ones(count, dtype=np.bool_)

    def run(self) -> list[float]:
        """All transfers to their ends."""
        self._close(self._left == 0, self._since)
        ended = True
        while self._open.any():
            if ended and self._enough():
                self._finish()
                break
            now = min(float(self._ends.min()), float(self._turns.min()))
            if now == math.inf:  # what is left stays at rate 0
                break
            ended = self._close(self._ends <= now, self._ends)
            self._advance(now)
        return [float(second) for second in self._done]

    def _enough(self) -> bool:
        """Whether all that are left get what their channels carry from now on, as they do at this moment."""
        return math.fsum(self._peaks[self._open]) <= self._capacity

    def _finish(self) -> None:
        """The rest, each alone."""
        for i in np.flatnonzero(self._open):
            self._done[i] = through(self._channels[i], float(self._since[i]), float(self._left[i]))

    def _close(self, ended: npt.NDArray[np.bool_], seconds: Floats) -> bool:
        """Take transfers that ended out; whether there were any."""
        self._done[ended] = seconds[ended]
        self._open[ended] = False
        self._caps[ended] = 0.0
        self._ends[ended] = self._turns[ended] = math.inf
        return bool(ended.any())

    def _advance(self, now: float) -> None:
        """Go on to an event: channels turn, and what is left of each transfer is shared out anew."""
        turned = self._turns <= now
        for i in np.flatnonzero(turned):
            while self._turns[i] <= now:
                self._turns[i], self._caps[i] = next(self._segments[i])
        rate = np.minimum(self._caps, level(self._caps, self._capacity))
        changed = self._open & (turned | (rate != self._rate))
        left = self._left[changed] - self._rate[changed] * (now - self._since[changed])
        left[left <= self._rest[changed]] = 0.0
        ends = np.full(len(left), math.inf)
        np.divide(left, rate[changed], out=ends, where=rate[changed] > 0)
        self._ends[changed] = now + np.where(left > 0, ends, 0.0)
        self._since[changed], self._left[changed], self._rate[changed] = now, left, rate[changed]
