import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.wire import packing, twins


def codes_of(n: int, bits: int, seed: int) -> packing.Codes:
    return np.random.default_rng(seed).integers(0, 2**bits, n, dtype=np.uint32)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 3000), bits=st.integers(1, 32), seed=st.integers(0, 99))
def test_packing_takes_exactly_its_bits_and_unpacks_to_the_same(n: int, bits: int, seed: int) -> None:
    codes = codes_of(n, bits, seed)
    data = packing.pack(codes, bits)
    assert data.size == (n * bits + 7) // 8
    np.testing.assert_array_equal(packing.unpack(data, n, bits), codes)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8, 11, 16, 17, 31, 32])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000, 512 * 32, 512 * 32 * 2 + 77])
def test_kernels_equal_their_twins_bit_for_bit(n: int, bits: int) -> None:
    codes = codes_of(n, bits, n + bits)
    data = packing.pack(codes, bits)
    np.testing.assert_array_equal(data, twins.pack(codes, bits))
    np.testing.assert_array_equal(twins.unpack(data, n, bits), codes)


def test_three_bits_take_three_bits() -> None:
    assert packing.pack(np.full(8000, 5, np.uint32), 3).size == 3000


def test_golden_bytes_of_a_tail_and_of_a_block() -> None:
    assert packing.pack(np.arange(5, dtype=np.uint32), 3).tobytes().hex() == "8846"
    assert packing.pack(np.arange(34, dtype=np.uint32) % 16, 4).tobytes().hex() == ("1032547698badcfe" * 2 + "10")
