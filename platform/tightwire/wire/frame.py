"""The envelope of every message: a header, the coded tensors, and a checksum.

    offset  bytes  what
    0       2      magic, b"TW"
    2       1      version, 1
    3       8      length of the whole frame in bytes
    11      8      digest of the schema
    19      4      round
    23      4      client
    27      2      length L of the codec line
    29      L      the codec line, ASCII, without spaces
    29 + L         the tensors, one after another; `tightwire.codecs` knows their parts
    last 4  4      checksum of all before it, see `tightwire.wire.checksum`

Integers are unsigned and little-endian.
"""

import struct
from dataclasses import dataclass

from tightwire.errors import CodecError, FrameError
from tightwire.wire.checksum import Checksum, checksum
from tightwire.wire.ledger import Sections
from tightwire.wire.streams import Sink

MAGIC = b"TW"
VERSION = 1
MAX_LINE = 1024
"""Longest codec line in bytes."""

_FIXED = struct.Struct("<2sBQ8sIIH")
_CHECK = struct.Struct("<I")
_U32 = 2**32
_SHORT = 2**18
"""Frames of fewer bytes are put together before they are summed, since a copy costs less than several calls."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a frame says about itself before its tensors."""

    version: int
    length: int
    """Of the whole frame, in bytes."""
    digest: bytes
    """Of the schema; eight bytes."""
    round: int
    client: int
    line: str
    """The codec line in compact form."""

    @property
    def size(self) -> int:
        """Bytes of the header itself."""
        return _FIXED.size + len(self.line)


def envelope_length(line: str) -> int:
    """Bytes of a frame with codec `line` that are not its tensors."""
    return _FIXED.size + len(line) + _CHECK.size


def seal(sink: Sink, *, digest: bytes, round: int, client: int, line: str) -> tuple[bytes, Sections]:
    """Put a header before the pieces of `sink` and a checksum behind them.

    Returns:
        The frame, and its bytes by section, which add up to its length.

    Raises:
        CodecError: When round or client do not fit 32 bits, or the line is longer than `MAX_LINE`.
    """
    for name, value in (("round", round), ("client", client)):
        if not 0 <= value < _U32:
            raise CodecError(f"{name} must be in [0, 2**32) to travel in a frame, got {value}")
    if len(line) > MAX_LINE:
        raise CodecError(f"a codec line takes at most {MAX_LINE} bytes in a frame, got {len(line)}")
    length = sink.length + envelope_length(line)
    head = _FIXED.pack(MAGIC, VERSION, length, digest, round, client, len(line)) + line.encode("ascii")
    pieces: list[bytes | memoryview] = [head, *sink.pieces]
    if length < _SHORT:
        pieces = [b"".join(pieces)]
    check = Checksum()
    for piece in pieces:
        check.update(piece)
    frame = b"".join((*pieces, _CHECK.pack(check.value)))
    return frame, sink.within(header=len(head), check=_CHECK.size)


def peek(frame: bytes) -> tuple[int, int]:
    """The round and the client that a frame names, before anything of it has been checked.

    Raises:
        FrameError: ``truncated``, ``magic`` or ``version`` when it has no header that could be read.
    """
    _, _, _, _, round_, client, _ = _fixed(frame)
    return round_, client


def amended(
    frame: bytes, *, round: int | None = None, client: int | None = None, length: int | None = None, body: bytes = b""
) -> bytes:
    """A frame with parts of it overwritten and its checksum made right: what tests and attackers send.

    Args:
        frame: A whole frame.
        round: In place of its round, 32 bits.
        client: In place of its client, 32 bits.
        length: In place of its length, 64 bits.
        body: In place of the first bytes behind the header.
    """
    magic, version, claimed, digest, round_, client_, line = _fixed(frame)
    fixed = (
        claimed if length is None else length,
        digest,
        round_ if round is None else round,
        client_ if client is None else client,
    )
    start = _FIXED.size + line
    head = _FIXED.pack(magic, version, *fixed, line) + frame[_FIXED.size : start]
    whole = head + body + frame[start + len(body) : -_CHECK.size]
    return whole + _CHECK.pack(checksum(whole))


def unseal(frame: bytes) -> tuple[Header, memoryview]:
    """Check a frame's envelope and open it.

    Returns:
        The header, and the bytes of the tensors.

    Raises:
        FrameError: With reason ``truncated``, ``magic``, ``version``, ``length``, ``checksum`` or ``codec``.
    """
    _, version, length, digest, round_, client, line_length = _fixed(frame)
    if length != len(frame):
        reason = "truncated" if length > len(frame) else "length"
        raise FrameError(reason, f"the frame says it has {length} bytes, got {len(frame)}")
    view = memoryview(frame)
    (check,) = _CHECK.unpack_from(frame, length - _CHECK.size)
    if check != checksum(view[: -_CHECK.size]):
        raise FrameError("checksum", f"the bytes do not match their checksum {check:#010x}")
    if line_length > min(MAX_LINE, length - _FIXED.size - _CHECK.size):
        raise FrameError("codec", f"the codec line claims {line_length} bytes of a frame of {length}")
    start = _FIXED.size + line_length
    try:
        line = bytes(view[_FIXED.size : start]).decode("ascii")
    except UnicodeDecodeError as error:
        raise FrameError("codec", f"the codec line is not ASCII: {error}") from None
    return Header(version, length, digest, round_, client, line), view[start : -_CHECK.size]


def _fixed(frame: bytes) -> tuple[bytes, int, int, bytes, int, int, int]:
    """Magic, version, length, digest, round, client and length of the line."""
    if len(frame) < _FIXED.size + _CHECK.size:
        raise FrameError("truncated", f"{len(frame)} bytes are no frame; the smallest has {_FIXED.size + _CHECK.size}")
    magic, version, length, digest, round_, client, line = _FIXED.unpack_from(frame)
    if magic != MAGIC:
        raise FrameError("magic", f"a frame starts with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise FrameError("version", f"this reads frames of version {VERSION}, got version {version}")
    return magic, version, length, digest, round_, client, line
