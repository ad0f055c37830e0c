"""Shares of a cohort: who gets which clients, and which share is taking too long. Nothing here knows Ray."""

import heapq
import math
import statistics
from collections import deque
from collections.abc import Sequence

from tightwire.arrays import Ints
from tightwire.federation.tasks import ClientTask

SLOW = 3.0
"""A share is slow once it has taken so many times what as many samples take in the median of the last shares."""

SLOW_SECONDS = 5.0
"""And no share is slow before so many wall seconds."""


class Share:
    """Clients whose turns one host carries out in one call."""

    __slots__ = ("deaths", "load", "runs", "tasks")

    def __init__(self, tasks: Sequence[ClientTask], load: int) -> None:
        self.tasks = tasks
        self.load = load
        """Samples of its clients."""
        self.deaths = 0
        """Hosts that died over it."""
        self.runs = 0
        """Hosts that are at it now."""


REMEMBERED = 64
"""Shares by which the pace is judged."""


class Pace:
    """How long shares have been taking."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=REMEMBERED)

    def ended(self, share: Share, seconds: float) -> None:
        """A share has taken so many wall seconds."""
        self._rates.append(seconds / share.load)

    def patience(self, share: Share) -> float:
        """Wall seconds after which a share is slow; infinity while there is nothing to compare it with."""
        if not self._rates:
            return math.inf
        return max(SLOW_SECONDS, SLOW * statistics.median(self._rates) * share.load)


def shares(tasks: Sequence[ClientTask], sizes: Ints, hosts: int, capacity: int | None) -> list[Share]:
    """A cohort as one share a host, as `deal` deals it; fewer where there are fewer clients."""
    dealt = deal(tasks, sizes, hosts, capacity)
    return [Share(hand, sum(int(sizes[task.client]) for task in hand)) for hand in dealt if hand]


def deal(tasks: Sequence[ClientTask], sizes: Ints, hosts: int, capacity: int | None = None) -> list[list[ClientTask]]:
    """Split a cohort into one share a host, the largest clients first, each to the host with the fewest samples yet.

    Args:
        tasks: The cohort.
        sizes: Samples of each client, shape (clients,).
        hosts: Number of shares.
        capacity: At most so many clients in a share, if that is room enough for the cohort; else as few as can be.
    """
    if capacity is not None:
        capacity = max(capacity, math.ceil(len(tasks) / hosts))
    loads = [(0, slot) for slot in range(hosts)]
    shares: list[list[ClientTask]] = [[] for _ in range(hosts)]
    for task in sorted(tasks, key=lambda task: (-int(sizes[task.client]), task.client)):
        load, slot = heapq.heappop(loads)
        shares[slot].append(task)
        if capacity is None or len(shares[slot]) < capacity:
            heapq.heappush(loads, (load + int(sizes[task.client]), slot))
    return shares
