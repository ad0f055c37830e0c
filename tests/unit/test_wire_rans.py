import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import AnyArray
from tightwire.errors import FrameError
from tightwire.wire import rans
from tightwire.wire.packing import packed_length
from tightwire.wire.streams import Sink, Source


def entropy(codes: AnyArray) -> float:
    counts = np.bincount(codes)
    shares = counts[counts > 0] / codes.size
    return float(-(shares * np.log2(shares)).sum())


def gaussian_codes(n: int, bits: int) -> AnyArray:
    values = np.random.default_rng(0).standard_normal(n)
    scaled = (values - values.min()) / (values.max() - values.min()) * (2**bits - 1)
    codes: AnyArray = np.round(scaled).astype(np.int64)
    return codes


def coded(codes: AnyArray, bits: int) -> tuple[bytes, bytes | None]:
    sink = Sink()
    data = rans.write(codes, bits, packed_length(codes.size, bits), sink)
    return b"".join(sink.pieces), data


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 10, 12])
def test_size_is_within_one_percent_of_the_empirical_entropy_table_included(bits: int) -> None:
    codes = gaussian_codes(100_000, bits)
    table, data = coded(codes, bits)
    assert data is not None
    assert 8 * (len(table) + len(data)) <= 1.01 * codes.size * entropy(codes)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 3000), bits=st.integers(1, 12), skew=st.floats(0.2, 6), seed=st.integers(0, 99))
def test_codes_round_trip_and_are_never_larger_than_packed(n: int, bits: int, skew: float, seed: int) -> None:
    codes = (np.random.default_rng(seed).random(n) ** skew * 2**bits).astype(np.int64)
    table, data = coded(codes, bits)
    if data is None:
        assert table == b"\0"
        return
    assert len(table) + len(data) <= packed_length(n, bits)
    source = Source(memoryview(table))
    read = rans.read_table(bits, source)
    assert read is not None
    shares, group, length = read
    assert source.left == 0
    assert length == len(data)
    np.testing.assert_array_equal(rans.decode(np.frombuffer(data, np.uint8), n, shares, group), codes)


def test_one_symbol_alone_costs_its_table_only() -> None:
    table, data = coded(np.full(100_000, 3), 4)
    assert data is not None
    assert len(table) + len(data) < 20


def test_left_over_bytes_are_refused() -> None:
    codes = gaussian_codes(5000, 4)
    table, data = coded(codes, 4)
    read = rans.read_table(4, Source(memoryview(table)))
    assert data is not None
    assert read is not None
    for wrong in (data + b"\x01", b"\x01\x02\x03\x04" + data, data + b"\0"):
        with pytest.raises(FrameError) as error:
            rans.decode(np.frombuffer(wrong, np.uint8), codes.size, read[0], read[1])
        assert error.value.reason == "codes"


@pytest.mark.parametrize("data", [b"\xf8", b"\x01\x00", b"\x02\x00\x00", b"\x04" + b"\xff" * 9, b"\x0c"])
def test_impossible_tables_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        rans.read_table(4, Source(memoryview(data)))


def test_fixed_point_logarithms_are_right() -> None:
    for value in (1, 2, 3, 7, 100, 65536, 1_000_003):
        assert rans._log2(value) / 2**16 == pytest.approx(np.log2(value), abs=2**-15)
