"""The byte ledger of one frame: which bytes carry what."""

from dataclasses import dataclass
from operator import add, attrgetter

SECTIONS = ("header", "scales", "indices", "tables", "codes", "plain", "check", "partial")
"""All parts of a frame, and what was sent of one that never got through. Every byte belongs to just one of them."""
_ALL = attrgetter(*SECTIONS)


@dataclass(frozen=True, slots=True)
class Sections:
    """Bytes by section; they add up to the length of the frame, and two ledgers add up to the ledger of both frames."""

    header: int = 0
    """Magic, version, length, schema digest, round, client and codec line."""
    scales: int = 0
    """What a quantiser says about its range."""
    indices: int = 0
    """Which values were kept."""
    tables: int = 0
    """Entropy models and the lengths of what they coded."""
    codes: int = 0
    """The values themselves."""
    plain: int = 0
    """Values of small tensors, which are sent as they are."""
    check: int = 0
    """The checksum."""
    partial: int = 0
    """Bytes of a frame that was cut short on its way; nothing else of it is booked."""

    @property
    def total(self) -> int:
        """Sum of all sections."""
        return int(sum(_ALL(self)))

    def __add__(self, other: "Sections") -> "Sections":
        return Sections(*map(add, _ALL(self), _ALL(other)))
