"""Writing a frame's sections, and reading them without trusting a byte."""

import numpy as np

from tightwire.arrays import Bytes8
from tightwire.errors import FrameError
from tightwire.wire.ledger import SECTIONS, Sections


class Sink:
    """Collects the pieces of a frame in order and books each to its section."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        self._booked = dict.fromkeys(SECTIONS, 0)

    def write(self, section: str, piece: bytes | Bytes8) -> None:
        """Append `piece` (bytes, or contiguous uint8) to the frame, as a part of `section`."""
        self.pieces.append(memoryview(piece))  # type: ignore[arg-type]  # NumPy declares the protocol on newer Pythons
        self._booked[section] += len(piece)

    @property
    def length(self) -> int:
        """Bytes so far."""
        return sum(self._booked.values())

    @property
    def sections(self) -> Sections:
        """Bytes so far, by section."""
        return Sections(*self._booked.values())

    def within(self, header: int, check: int) -> Sections:
        """Bytes by section between a header and a checksum of so many bytes."""
        booked = self._booked
        return Sections(*{**booked, "header": booked["header"] + header, "check": booked["check"] + check}.values())


class Source:
    """Hands out the bytes of a frame from front to back and refuses to go beyond their end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        """The next `count` bytes.

        Raises:
            FrameError: ``truncated`` when fewer are left. Nothing is allocated.
        """
        if not 0 <= count <= self.left:
            raise FrameError("truncated", f"{count} bytes wanted where {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def array(self, count: int) -> Bytes8:
        """The next `count` bytes as an aligned array of their own."""
        return self.view(count).copy()

    def view(self, count: int) -> Bytes8:
        """The next `count` bytes where they lie, at any address, and not to be written."""
        return np.frombuffer(self.take(count), np.uint8)

    def peek(self) -> Bytes8:
        """All bytes that are left, not copied and not taken."""
        return np.frombuffer(self._data[self._at :], np.uint8)

    def byte(self) -> int:
        """The next byte as an integer."""
        return self.take(1)[0]

    def varint(self) -> int:
        """An integer in LEB128 of at most five bytes.

        Raises:
            FrameError: ``length`` when it is longer, or not in its shortest form.
        """
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    break
                return value
        raise FrameError("length", "a variable-length integer is too long; five bytes and no leading zeros are right")


def varint(value: int) -> bytes:
    """`value`, 0 or more, in LEB128: seven bits a byte, the least significant first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
