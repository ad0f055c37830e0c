import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Flat
from tightwire.codecs import kernels, twins
from tightwire.codecs.topk import select
from tightwire.codecs.uniform import Affine, quantise
from tightwire.wire import packing

SCALES = (1.0, 1e-3, 3e38, 1e-44, 1e30)


def values_of(n: int, scale: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return (np.random.default_rng(seed).uniform(-1, 1, n) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bits", [1, 2, 4, 7, 16])
@pytest.mark.parametrize("key", [None, 0, 2**64 - 1, 0x0123456789ABCDEF])
def test_quantiser_equals_its_twin_bit_for_bit(bits: int, key: int | None, scale: float) -> None:
    for n in (1, 33, 17_000):
        values = values_of(n, scale, n + bits)
        affine = Affine.spanning(*kernels.extremes(values), bits)
        data = quantise(values, affine, bits, key)
        np.testing.assert_array_equal(data, twins.quantise(values, affine, bits, key))
        out = np.empty(n, np.float32)
        kernels.dequantise(*packing.split(data, n, bits), bits, affine.low, affine.step, out)
        twin = twins.dequantise(data, n, affine, bits)
        np.testing.assert_array_equal(out.view(np.uint32), twin.view(np.uint32))
        assert np.isfinite(out).all()
        assert np.abs(out.astype(float) - values).max() <= float(affine.step) * 1.01 + 1e-45


def same_selection(values: Flat, k: int) -> None:
    for kernel, twin in zip(select(values, k), twins.select(values, k), strict=True):
        np.testing.assert_array_equal(kernel, twin)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 500), seed=st.integers(0, 99), levels=st.integers(1, 50))
def test_extremes_and_selection_equal_their_twins_ties_included(n: int, seed: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(-levels, levels + 1, n).astype(np.float32)
    assert kernels.extremes(values) == twins.extremes(values)
    for k in {1, (n + 1) // 2, n}:
        same_selection(values, k)


@pytest.mark.parametrize("k", [1, 100, 20_000, 99_999])
@pytest.mark.parametrize("kind", ["gaussian", "constant", "mostly zero", "striped", "huge and denormal"])
def test_selection_is_exact_whatever_the_sample_saw(kind: str, k: int) -> None:
    random = np.random.default_rng(3)
    values = random.standard_normal(100_000).astype(np.float32)
    if kind == "constant":
        values[:] = -2.5
    elif kind == "mostly zero":
        values[random.random(values.size) < 0.999] = 0
    elif kind == "striped":
        values[::3] *= 1e6
    elif kind == "huge and denormal":
        values[::2] *= np.float32(1e-42)
        values[1::4] *= np.float32(1e37)
    same_selection(values, k)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.99, 2.0])
def test_all_values_that_reach_a_threshold_are_found_even_when_fewer_were_expected(n: int, threshold: float) -> None:
    values = values_of(n, 1.0, n)
    wanted = np.flatnonzero(np.abs(values) >= np.float32(threshold))
    for room in (0, 1, 10, n):
        found, bits = kernels.reaching(values.view(np.int32), np.float32(threshold).view(np.int32), room)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(bits.view(np.float32), values[wanted])


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_selection_keeps_what_is_not_finite(bad: float) -> None:
    values = values_of(100_000, 1.0, 0)
    values[77_777] = bad
    chosen, kept = select(values, 1)
    assert chosen.tolist() == [77_777]
    assert not np.isfinite(kept).any()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_extremes_are_not_finite_when_any_value_is_not(bad: float) -> None:
    values = values_of(1000, 1.0, 0)
    values[500] = bad
    assert not np.isfinite(kernels.extremes(values)).all()


def test_noise_is_uniform_and_differs_by_key_and_index() -> None:
    n = 200_000
    first, second = twins.noise(n, 1), twins.noise(n, 2)
    for draw in (first, second, twins.noise(n, 1 << 32)):
        assert draw.min() >= 0
        assert draw.max() < 2**24
        counts = np.bincount(draw >> 16, minlength=256)
        assert ((counts - n / 256) ** 2).sum() / (n / 256) < 350  # chi-square, 255 degrees: mean 255, deviation 23
        assert abs(np.corrcoef(draw[:-1], draw[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
