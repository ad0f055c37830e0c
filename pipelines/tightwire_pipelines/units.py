"""Figures as people read them. MB is 10^6 bytes."""

_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


def megabytes(count: float) -> str:
    """Bytes in the unit that leaves two to four digits, such as ``1.38 MB``."""
    if count < 1000:
        return f"{count:.0f} B"
    unit = next((unit for unit, size in _UNITS.items() if count < 999.5 * size), "GB")
    count /= _UNITS[unit]
    return f"{count:.2f} {unit}" if count < 10 else f"{count:.1f} {unit}" if count < 100 else f"{count:.0f} {unit}"


def clock(seconds: float) -> str:
    """Simulated time in its two largest units, such as ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def times(factor: float) -> str:
    """A ratio, such as ``10.4x``."""
    return f"{factor:.1f}x" if factor < 100 else f"{factor:.0f}x"


def joules(energy: float) -> str:
    """Energy in J, kJ or MJ, such as ``2.3 kJ``."""
    if energy < 1000:
        return f"{energy:.1f} J"
    return f"{energy / 1e3:.1f} kJ" if energy < 1e6 else f"{energy / 1e6:.1f} MJ"
