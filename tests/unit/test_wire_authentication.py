"""Tags of frames: what the key's owner made for the round gets through, and nothing else."""

import hashlib
import hmac
import inspect
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.codecs.codec import Codec
from tightwire.errors import FrameError
from tightwire.wire import authentication
from tightwire.wire.authentication import TAG, Gate, client_key, open_, seal
from tightwire.wire.frame import amended
from tightwire.wire.schema import Schema

SECRET = bytes(range(32))
SCHEMA = Schema.single(50)
NUMBERS = st.integers(0, 2**32 - 1)


def keys(client: int) -> bytes:
    return client_key(SECRET, client)


def frame(round_: int, client: int, value: float = 1.0) -> bytes:
    update = np.full(SCHEMA.size, value, np.float32)
    return Codec.parse("uniform(4)").encode(update, SCHEMA, key=0, round=round_, client=client).frame


def reason(gate: Gate, message: bytes, client: int) -> str:
    with pytest.raises(FrameError) as caught:
        gate.open(message, client)
    return caught.value.reason


def test_the_tag_is_the_first_half_of_hmac_sha256_over_context_and_frame() -> None:
    context = b"tightwire frame\0" + struct.pack("<IIQ", 3, 7, 5)
    expected = hmac.new(b"key", context + b"frame", hashlib.sha256).digest()[:16]
    assert seal(b"frame", b"key", 3, 7) == b"frame" + expected
    assert len(expected) == TAG


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300), st.binary(min_size=1, max_size=40), NUMBERS, NUMBERS)
def test_what_was_sealed_opens_to_the_same_bytes(data: bytes, key: bytes, round_: int, client: int) -> None:
    message = seal(data, key, round_, client)
    assert len(message) == len(data) + TAG
    assert open_(message, key, round_, client) == data


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_no_change_of_bytes_key_round_or_client_opens(data: st.DataObject) -> None:
    original = data.draw(st.binary(min_size=1, max_size=100))
    message = seal(original, keys(7), 3, 7)
    at = data.draw(st.integers(0, 8 * len(message) - 1))
    flipped = bytearray(message)
    flipped[at // 8] ^= 1 << at % 8
    for wrong in (
        (bytes(flipped), keys(7), 3, 7),
        (message[: at // 8], keys(7), 3, 7),
        (message + b"\0", keys(7), 3, 7),
        (message, keys(8), 3, 7),
        (message, keys(7), 4, 7),
        (message, keys(7), 3, 8),
    ):
        with pytest.raises(FrameError) as caught:
            open_(*wrong)
        assert caught.value.reason in ("forged", "truncated")


def test_tags_are_compared_in_constant_time() -> None:
    assert "compare_digest" in inspect.getsource(authentication.open_)


def test_every_client_has_a_key_of_its_own_and_a_short_secret_is_none() -> None:
    assert len({keys(client) for client in range(1000)}) == 1000
    assert keys(5) != client_key(b"another secret..", 5)
    with pytest.raises(ValueError, match="at least 16 bytes, got 3"):
        client_key(b"abc", 0)


def test_a_gate_lets_each_client_in_once_and_says_why_others_stay_out() -> None:
    gate = Gate(keys, 3)
    honest = seal(frame(3, 7), keys(7), 3, 7)
    assert reason(gate, seal(frame(3, 7), keys(8), 3, 7), 7) == "forged"
    assert reason(gate, frame(3, 7), 7) == "forged"
    assert reason(gate, honest[:-1] + bytes([honest[-1] ^ 1]), 7) == "forged"
    assert reason(gate, seal(frame(2, 7), keys(7), 2, 7), 7) == "replayed"
    assert reason(gate, seal(amended(frame(2, 7), round=3), keys(7), 2, 7), 7) == "forged"
    assert reason(gate, seal(frame(4, 7), keys(7), 4, 7), 7) == "round"
    assert reason(gate, seal(frame(3, 8), keys(7), 3, 8), 7) == "client"
    assert reason(gate, b"", 7) == "truncated"
    assert gate.open(honest, 7) == frame(3, 7)
    assert reason(gate, honest, 7) == "replayed"
    assert reason(gate, seal(frame(3, 7, 2.0), keys(7), 3, 7), 7) == "replayed"
    assert gate.open(seal(frame(3, 8), keys(8), 3, 8), 8) == frame(3, 8)


def test_a_refused_message_does_not_use_up_its_clients_turn() -> None:
    gate = Gate(keys, 3)
    for _ in range(3):
        assert reason(gate, seal(frame(3, 7), bytes(32), 3, 7), 7) == "forged"
    assert gate.open(seal(frame(3, 7), keys(7), 3, 7), 7) == frame(3, 7)
