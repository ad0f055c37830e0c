import zlib

import numpy as np
import pytest

from tightwire.errors import CodecError, FrameError
from tightwire.wire import twins
from tightwire.wire.checksum import Checksum, checksum
from tightwire.wire.frame import seal, unseal
from tightwire.wire.streams import Sink, Source, varint


def frame(payload: bytes = b"payload") -> bytes:
    sink = Sink()
    sink.write("codes", payload)
    sealed, sections = seal(sink, digest=b"12345678", round=7, client=9, line="none")
    assert sections.total == len(sealed)
    return sealed


def test_what_was_sealed_is_unsealed() -> None:
    header, body = unseal(frame())
    assert (header.digest, header.round, header.client, header.line) == (b"12345678", 7, 9, "none")
    assert header.length == len(frame())
    assert bytes(body) == b"payload"


def test_golden_bytes() -> None:
    assert frame().hex() == "5457012c000000000000003132333435363738070000000900000004006e6f6e657061796c6f616406877e3f"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"", "truncated"),
        (frame()[:20], "truncated"),
        (frame()[:-1], "truncated"),
        (frame() + b"\0", "length"),
        (b"XX" + frame()[2:], "magic"),
        (frame()[:2] + b"\x02" + frame()[3:], "version"),
        (frame()[:3] + b"\xff" * 8 + frame()[11:], "truncated"),
        (frame()[:-6] + b"??" + frame()[-4:], "checksum"),
    ],
)
def test_each_kind_of_damage_has_its_reason(wrong: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as error:
        unseal(wrong)
    assert error.value.reason == reason


@pytest.mark.parametrize(("round_", "client"), [(-1, 0), (2**32, 0), (0, -1), (0, 2**32)])
def test_round_and_client_must_fit_their_field(round_: int, client: int) -> None:
    with pytest.raises(CodecError, match="2\\*\\*32"):
        seal(Sink(), digest=b"12345678", round=round_, client=client, line="none")


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 5000])
def test_checksum_equals_its_twin(n: int) -> None:
    data = np.random.default_rng(n).bytes(n)
    assert checksum(data) == twins.checksum(data)
    assert n >= 256 or checksum(data) == zlib.crc32(data, zlib.crc32(bytes(256)))


@pytest.mark.parametrize("step", [1, 7, 256, 300, 1100])
def test_checksum_does_not_depend_on_how_the_bytes_are_cut(step: int) -> None:
    data = np.random.default_rng(0).bytes(1100)
    check = Checksum()
    for start in range(0, len(data), step):
        check.update(data[start : start + step])
    assert check.value == checksum(data)


def test_checksum_notices_every_flipped_bit_and_swapped_word() -> None:
    data = np.random.default_rng(0).bytes(1100)
    sums = {checksum(data)}
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        sums.add(checksum(bytes(flipped)))
    sums.add(checksum(data[256:512] + data[:256] + data[512:]))
    assert len(sums) == 8 * len(data) + 2


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**35 - 1])
def test_varints_round_trip(value: int) -> None:
    assert Source(memoryview(varint(value))).varint() == value


@pytest.mark.parametrize("data", [b"\x80", b"\x80\x00", b"\xff" * 6])
def test_impossible_varints_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        Source(memoryview(data)).varint()


@pytest.mark.parametrize("count", [4, 2**62, -1])
def test_taking_more_than_there_is_is_refused_before_anything_is_allocated(count: int) -> None:
    with pytest.raises(FrameError):
        Source(memoryview(b"abc")).array(count)
