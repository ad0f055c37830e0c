"""Joules for computing, for sending and for waiting, and the battery they come from.

Linear in FLOPs, bytes, bursts and seconds. The radio's tail comes once for each burst of bytes, so that small frames do
not look cheaper than they are on cellular radios; idle power is that of the whole device while it sends and receives,
and a device that waits for others is taken to sleep.
"""

from tightwire.devices.population import Profile


def compute_joules(flops: float, profile: Profile) -> float:
    """Energy of `flops` floating-point operations on this device."""
    return flops * profile.joules_per_flop


def upload_joules(size: int, profile: Profile) -> float:
    """Energy that the device's radio spends to send `size` bytes, without its tail."""
    return size * profile.joules_per_byte_up


def download_joules(size: int, profile: Profile) -> float:
    """Energy that the device's radio spends to receive `size` bytes, without its tail."""
    return size * profile.joules_per_byte_down


def tail_joules(profile: Profile, transfers: int) -> float:
    """Energy of the radio's tails after `transfers` bursts, each far enough from the next to let the radio fall asleep.

    A download and an upload with training between them are two. Where they are closer than the tail is long, as after
    less than 12 s of training on LTE, the real tail is cut short, and this is a bound from above.

    Raises:
        ValueError: A negative number of bursts.
    """
    if transfers < 0:
        raise ValueError(f"cannot count the tails of {transfers} transfers; it must be 0 or more")
    return transfers * profile.tail_joules


def idle_joules(profile: Profile, seconds: float) -> float:
    """Energy of a device that waits for `seconds`.

    Raises:
        ValueError: Negative seconds, or infinitely many.
    """
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"cannot wait for {seconds} s; it must be finite and not negative")
    return seconds * profile.idle_watts


def can_afford(battery: float, joules: float) -> bool:
    """Whether a battery with `battery` joules left can spend `joules`."""
    return joules <= battery


def drain(battery: float, joules: float) -> float:
    """Joules left after spending `joules`; never below 0, and infinite on mains.

    Raises:
        ValueError: `joules` is negative or not finite.
    """
    if not 0 <= joules < float("inf"):
        raise ValueError(f"cannot drain {joules} joules; the amount must be finite and not negative")
    return max(0.0, battery - joules)
