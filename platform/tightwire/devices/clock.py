"""The simulated clock: how long work takes on a device, and when a synchronous round closes.

Time comes from profiles, link rates and encoded bytes alone; nothing is measured while the simulation runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tightwire.devices.population import Profile

CODEC_FLOPS = 16.0
"""Cost of one pass of one codec stage over one value, in FLOPs of training. An assumption, counted and not
measured: load, scale (2), a random number from a counter (8), add, floor, clip (2), store."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When one client's upload arrives."""

    client: int
    seconds: float | None
    """Seconds from the start of the round; None if it was lost."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a round ended. Each client is in exactly one of the four groups, which are ascending."""

    seconds: float
    """Length of the round."""
    accepted: tuple[int, ...]
    late: tuple[int, ...]
    """After the deadline."""
    surplus: tuple[int, ...]
    """In time, but the server already had as many as it wanted."""
    lost: tuple[int, ...]


def compute_seconds(flops: float, profile: Profile) -> float:
    """Seconds that `flops` floating-point operations of training take: flops / profile.flops."""
    return flops / profile.flops


def codec_seconds(values: int, passes: float, profile: Profile) -> float:
    """Seconds to encode: values * passes * CODEC_FLOPS / profile.flops.

    Args:
        values: Values in the update.
        passes: Passes over them that the codec's stages make together.
        profile: The device.
    """
    return values * passes * CODEC_FLOPS / profile.flops


def close_round(arrivals: Sequence[Arrival], *, wanted: int, deadline: float | None) -> Closing:
    """Decide whose update is used and how long the round was.

    The first `wanted` by (seconds, client) that arrive no later than the deadline are accepted (Bonawitz et
    al. 2019). The round ends

    * with the `wanted`-th of them, if there are so many;
    * otherwise at the deadline, if somebody is still missing (late or lost);
    * otherwise with the last arrival. Without a deadline that covers lost clients too: the server notices
      the broken connection and does not wait for them. A round in which nobody arrives takes no time.

    The result does not depend on the order of `arrivals`.

    Args:
        arrivals: One for each client that was asked to train and did not decline.
        wanted: Updates that the server waits for, at least 0.
        deadline: Seconds from the start of the round, or None.

    Raises:
        ValueError: `wanted` is negative, the deadline is not positive, an arrival is negative or not
            finite, or a client arrives twice.
    """
    _check(arrivals, wanted, deadline)
    limit = math.inf if deadline is None else deadline
    finished = sorted((a.seconds, a.client) for a in arrivals if a.seconds is not None)
    in_time = [(seconds, client) for seconds, client in finished if seconds <= limit]
    accepted = in_time[:wanted]
    if deadline is not None and len(accepted) < wanted and len(in_time) < len(arrivals):
        seconds = deadline
    else:
        seconds = accepted[-1][0] if accepted else 0.0
    return Closing(
        seconds=seconds,
        accepted=_clients(accepted),
        late=_clients(finished[len(in_time) :]),
        surplus=_clients(in_time[wanted:]),
        lost=tuple(sorted(a.client for a in arrivals if a.seconds is None)),
    )


def _clients(group: list[tuple[float, int]]) -> tuple[int, ...]:
    return tuple(sorted(client for _, client in group))


def _check(arrivals: Sequence[Arrival], wanted: int, deadline: float | None) -> None:
    if wanted < 0:
        raise ValueError(f"wanted is {wanted}; it must be at least 0")
    if deadline is not None and not deadline > 0:
        raise ValueError(f"the deadline is {deadline} s; it must be positive, or None")
    if len({a.client for a in arrivals}) < len(arrivals):
        raise ValueError("a client arrives twice in one round; give one arrival a client")
    for a in arrivals:
        if a.seconds is not None and not 0 <= a.seconds < math.inf:
            raise ValueError(f"client {a.client} arrives after {a.seconds} s; it must be finite, at least 0")
