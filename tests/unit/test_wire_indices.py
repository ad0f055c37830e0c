import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Ints
from tightwire.errors import FrameError
from tightwire.wire import indices, twins
from tightwire.wire.streams import Sink, Source


def written(chosen: Ints, n: int) -> bytes:
    sink = Sink()
    indices.write(chosen, n, sink)
    return b"".join(sink.pieces)


def drawn(n: int, k: int, seed: int) -> Ints:
    return np.sort(np.random.default_rng(seed).choice(n, k, replace=False))


@settings(deadline=None, max_examples=80)
@given(data=st.data(), n=st.integers(1, 4000), seed=st.integers(0, 99))
def test_indices_round_trip_and_leave_nothing_over(data: st.DataObject, n: int, seed: int) -> None:
    chosen = drawn(n, data.draw(st.integers(1, n)), seed)
    source = Source(memoryview(written(chosen, n)))
    np.testing.assert_array_equal(indices.read(chosen.size, n, source), chosen)
    assert source.left == 0


@pytest.mark.parametrize(
    ("density", "bits"), [(0.1, 4.756), (0.04, 6.085), (0.01, 8.108), (0.0025, 10.114), (0.001, 11.495)]
)
def test_golomb_takes_the_bits_a_position_of_algorithms_a2(density: float, bits: float) -> None:
    n = int(20_000 / density)
    chosen = np.flatnonzero(np.random.default_rng(1).random(n) < density)
    assert 8 * len(written(chosen, n)) / chosen.size == pytest.approx(bits, rel=0.01)


def test_the_smallest_way_is_chosen() -> None:
    assert written(drawn(8000, 6000, 0), 8000)[0] == 0
    assert len(written(drawn(8000, 6000, 0), 8000)) == 1001
    assert written(np.array([0, 2**20 - 1]), 2**20)[0] == 1
    assert len(written(np.array([0, 2**20 - 1]), 2**20)) == 1 + 5
    assert written(drawn(10**5, 1000, 0), 10**5)[0] > 1


def test_all_kept_costs_nothing() -> None:
    assert written(np.arange(100), 100) == b""


def test_unary_equals_its_twin() -> None:
    quotients = np.random.default_rng(0).geometric(0.3, 1000) - 1
    np.testing.assert_array_equal(indices.unary(quotients.astype(np.uint32)), twins.unary(quotients))


@pytest.mark.parametrize(
    ("data", "k", "n"),
    [
        (b"", 1, 10),
        (b"\x00\xff", 1, 10),
        (b"\x00\x01\x04", 1, 10),
        (b"\x00\x01\x00", 2, 10),
        (b"\x01\x0f", 1, 10),
        (b"\x01\x11", 2, 10),
        (b"\x01\x12", 2, 16),
        (b"\x02\x00\x00", 1, 10),
        (b"\x02\x00\x08", 1, 10),
        (b"\x02\x03", 1, 10),
        (b"\x21" + b"\xff" * 4 + b"\x01", 1, 10),
        (b"\x22\x00", 1, 10),
    ],
)
def test_impossible_indices_are_refused(data: bytes, k: int, n: int) -> None:
    with pytest.raises(FrameError) as error:
        indices.read(k, n, Source(memoryview(data)))
    assert error.value.reason in {"indices", "truncated"}


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100])
def test_bits_that_are_set_are_found_wherever_the_bytes_lie(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size + 3, dtype=np.uint8)
    for start in range(3):
        marks = data[start : start + size]
        wanted = np.flatnonzero(np.unpackbits(marks, bitorder="little"))
        for k in {0, 1, wanted.size // 2, wanted.size} if wanted.size else {0}:
            np.testing.assert_array_equal(indices.set_bits(marks, k), wanted[:k])


@pytest.mark.parametrize("bits", [0, 3, 31])
def test_gaps_beyond_everything_are_refused_and_do_not_wrap(bits: int) -> None:
    for quotient in (2, 2**10, 2**16):
        wire = bytes([2 + bits]) + bytes((bits + 7) // 8) + bytes(quotient // 8) + bytes([1 << quotient % 8])
        with pytest.raises(FrameError) as error:
            indices.read(1, min(quotient << bits, 2**32 - 1), Source(memoryview(wire)))
        assert error.value.reason == "indices"
        assert indices.read(1, (quotient << bits) + 1, Source(memoryview(wire))).tolist() == [quotient << bits]


def test_a_bitmap_with_one_bit_more_or_less_is_refused() -> None:
    wire = bytearray(written(drawn(800, 600, 0), 800))
    wire[50] ^= 8
    with pytest.raises(FrameError, match="600 increasing numbers below 800"):
        indices.read(600, 800, Source(memoryview(wire)))
