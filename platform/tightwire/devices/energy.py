"""Joules for computing and for sending, and the battery they come from.

Linear in FLOPs and bytes: the radio's tail and idle power are not counted, so small frames look cheaper
here than they are on cellular radios.
"""

from tightwire.devices.population import Profile


def compute_joules(flops: float, profile: Profile) -> float:
    """Energy of `flops` floating-point operations on this device."""
    return flops * profile.joules_per_flop


def upload_joules(size: int, profile: Profile) -> float:
    """Energy that the device's radio spends to send `size` bytes."""
    return size * profile.joules_per_byte_up


def download_joules(size: int, profile: Profile) -> float:
    """Energy that the device's radio spends to receive `size` bytes."""
    return size * profile.joules_per_byte_down


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
