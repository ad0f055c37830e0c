"""Authentication of frames: a tag behind each, which only the client's own key makes, good for one round.

    message = frame | tag      tag = the first 16 bytes of HMAC-SHA256 (RFC 2104; truncated as its section 5 allows)

The tag covers the round, the client and every byte of the frame, so that a frame that was altered, made by somebody
else, sent before or meant for another round is refused before any of it is decoded. It does not make an honest client
of whoever holds a key: what a frame decodes to is checked all the same.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable

from tightwire.errors import FrameError
from tightwire.wire.frame import peek

TAG = 16
"""Bytes behind each frame; guessing one takes 2**127 tries in the mean."""

_CONTEXT = struct.Struct("<16sIIQ")
_DOMAIN = b"tightwire frame\0"


def client_key(secret: bytes, client: int) -> bytes:
    """The key of one client, 32 bytes, from a secret that the server alone keeps: it stores no keys of a million.

    Args:
        secret: At least 16 bytes.
        client: 32 bits.

    Raises:
        ValueError: The secret is too short to be one.
    """
    if len(secret) < TAG:
        raise ValueError(f"a secret needs at least {TAG} bytes, got {len(secret)}")
    return hmac.digest(secret, b"tightwire client\0" + struct.pack("<I", client), hashlib.sha256)


def seal(frame: bytes, key: bytes, round: int, client: int) -> bytes:
    """A frame with its tag, `TAG` bytes longer.

    Args:
        frame: Any bytes.
        key: The client's.
        round: 32 bits.
        client: 32 bits.
    """
    return frame + _tag(frame, key, round, client)


def open_(message: bytes, key: bytes, round: int, client: int) -> bytes:
    """The frame that `seal` was given, if the tag is that of this key, round and client; takes the same time if not.

    Raises:
        FrameError: ``truncated`` when there is no room for a tag; ``forged`` when it is another.
    """
    if len(message) < TAG:
        raise FrameError("truncated", f"{len(message)} bytes hold no tag, which takes {TAG}")
    frame, tag = message[:-TAG], message[-TAG:]
    if not hmac.compare_digest(tag, _tag(frame, key, round, client)):
        raise FrameError("forged", f"the tag is not that of client {client} for this frame in round {round}")
    return frame


class Gate:
    """Lets one authentic frame of each client in, in one round; remembers no more than who has been there.

    Not for use by several threads at once.
    """

    def __init__(self, keys: Callable[[int], bytes], round: int) -> None:
        """Open a gate.

        Args:
            keys: Client -> its key.
            round: The only round whose frames are let in.
        """
        self._keys = keys
        self._round = round
        self._seen: set[int] = set()

    def open(self, message: bytes, client: int) -> bytes:
        """The frame in a message that came from `client`.

        Raises:
            FrameError: ``truncated``; ``client`` or ``round`` when the header names another; ``replayed`` for an
                authentic frame of an earlier round, or a second one of this; ``forged`` for any that `client` did not
                make.
        """
        round_, told = peek(message[:-TAG])
        if told != client:
            raise FrameError("client", f"the frame is of client {told}, expected {client}")
        key = self._keys(client)
        frame = open_(message, key, round_, client)  # a claim of the header's that the tag confirms, or not
        if round_ > self._round:
            raise FrameError("round", f"the frame is of round {round_}, expected {self._round}")
        if round_ < self._round or client in self._seen:
            raise FrameError("replayed", f"client {client} has sent this frame of round {round_} before")
        self._seen.add(client)
        return frame


def _tag(frame: bytes, key: bytes, round: int, client: int) -> bytes:
    mac = hmac.new(key, _CONTEXT.pack(_DOMAIN, round, client, len(frame)), hashlib.sha256)
    mac.update(frame)
    return mac.digest()[:TAG]
