import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Flat, Floats
from tightwire.codecs import kernels, sparse_twins, sums, twins
from tightwire.codecs.affine import restore
from tightwire.codecs.affine_kernels import grids, quantise_sign
from tightwire.codecs.selection import select
from tightwire.codecs.uniform import Affine, quantise
from tightwire.errors import FrameError
from tightwire.wire import packing

SCALES = (1.0, 1e-3, 3e38, 1e-44, 1e30)
SIZES = (1, 33, 17_000)
LENGTHS = (7, 512, 100_000)


def values_of(n: int, scale: float, seed: int) -> Flat:
    return (np.random.default_rng(seed).uniform(-1, 1, n) * scale).astype(np.float32)


def affine_of(values: Flat, form: str, bits: int, length: int) -> Affine:
    length = min(length, values.size)
    low, high = kernels.group_extremes(values, length).T.copy()
    if form == "centred":
        return Affine.centred(np.maximum(abs(low), abs(high)), max(1, 2 ** (bits - 1) - 1), length)
    return Affine.spanning(low, high, 2**bits - 1, length) if form == "span" else Affine.cells(low, high, 11, length)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("form", "bits"), [("span", 1), ("span", 3), ("span", 16), ("cells", 4), ("centred", 4)])
@pytest.mark.parametrize("length", LENGTHS)
def test_quantiser_equals_its_twin_bit_for_bit(form: str, bits: int, length: int, scale: float) -> None:
    for n in SIZES:
        values = values_of(n, scale, n + bits)
        affine = affine_of(values, form, bits, length)
        for key, shift in ((None, 0.5), (None, 0.0), (0, 0.5), (0x0123456789ABCDEF, 0.5)):
            data = quantise(values, affine, key=key, shift=shift)
            np.testing.assert_array_equal(data, twins.quantise(values, affine, key=key, shift=shift))
            out = np.empty(n, np.float32)
            restore(data, affine, out)
            twin = twins.restore(data, n, affine)
            np.testing.assert_array_equal(out.view(np.uint32), twin.view(np.uint32))
            assert np.isfinite(out).all()
            step = float(np.max(affine.step * (1 if affine.unit is None else affine.unit)))
            assert np.abs(out.astype(float) - values).max() <= step * (1.51 if form == "cells" else 1.01) + 2e-45


@pytest.mark.parametrize("weight", [1.0, -0.3, 1e-3])
@pytest.mark.parametrize("scale", [1.0, 1e-44, 1e30])
@pytest.mark.parametrize("form", ["span", "centred"])
def test_restoring_to_a_sum_rounds_the_product_and_then_the_sum(form: str, scale: float, weight: float) -> None:
    for n, length in ((17_000, 100), (17_000, 17_000), (5, 5)):
        values, total = values_of(n, scale, 1), values_of(n, scale, 2)
        for bits in (1, 2, 5, 8):
            affine = affine_of(values, form, bits, length)
            data = quantise(values, affine, key=3)
            wanted = total + twins.restore(data, n, affine) * np.float32(weight)
            out = total.copy()
            restore(data, affine, out, np.float32(weight))
            np.testing.assert_array_equal(out.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("at", [0, 16_500, 16_999])
def test_a_code_beyond_the_top_is_refused_wherever_it_stands(at: int) -> None:
    affine = Affine.centred(np.ones(1, np.float32), 1, 17_000)
    codes = np.full(17_000, 2, np.uint32)
    restore(packing.pack(codes, 2), affine, np.empty(17_000, np.float32))
    codes[at] = 3
    with pytest.raises(FrameError, match="a code is 3, where 2 is the largest"):
        restore(packing.pack(codes, 2), affine, np.empty(17_000, np.float32))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("steps", [1, 15, 65_535])
def test_grids_equal_their_twin(steps: int, scale: float) -> None:
    low, high = np.sort(values_of(200, scale, 5).reshape(2, 100), axis=0)
    low[3] = high[3]
    for middle, stretch in ((0.0, 1.0), (0.5, 1.0), (0.0, 1 + 2.0**-23)):
        out = np.empty((4, 100))
        plain = grids(low, high, steps, middle, stretch, out)
        wanted, wanted_plain = twins.grids(low, high, steps, middle, stretch)
        np.testing.assert_array_equal(out, wanted)
        assert plain == wanted_plain


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("form", "bits"), [("span", 1), ("span", 4), ("centred", 3), ("span", 16)])
@pytest.mark.parametrize("length", [1, 31, 512, 8192, 20_001])
def test_moments_equal_their_twin_bit_for_bit(form: str, bits: int, length: int, scale: float) -> None:
    values = values_of(20_001, scale, length + bits)[: max(40 * length, 500)]
    affine = affine_of(values, form, bits, length)
    grid = affine.low, affine.inverse, -affine.zero, affine.top - affine.zero
    found = sums.moments(values, length, *grid)
    np.testing.assert_array_equal(found, twins.moments(values, length, *grid))
    codes = packing.unpack(quantise(values, affine), values.size, affine.bits).astype(np.int64) - affine.zero
    np.testing.assert_array_equal(found[:, 1], np.add.reduceat(codes, np.arange(0, values.size, length)))


@pytest.mark.parametrize("n", [1, 31, 32, 16_383, 16_384, 17_001])
def test_signs_equal_their_twin_and_both_zeros_are_positive(n: int) -> None:
    values = values_of(n, 1.0, n)
    values[::3], values[::5] = 0.0, -0.0
    data = packing.empty(n, 1)
    quantise_sign(values, *packing.split(data, n, 1))
    np.testing.assert_array_equal(data, twins.quantise_sign(values))


@pytest.mark.parametrize("scale", [1.0, 3e38, 1e-44])
@pytest.mark.parametrize("length", [1, 31, 33, 512, 8192, 20_001])
def test_sums_are_taken_in_the_documented_order(length: int, scale: float) -> None:
    values = values_of(20_001, scale, length)
    values[::7] *= np.float32(1e-3)
    groups = [values[at : at + length].astype(np.float64) for at in range(0, values.size, length)][-50:]

    def summed(terms: list[Floats]) -> Floats:
        return np.array([twins.ordered_sum(term) for term in terms])

    squares = summed([group * group for group in groups])
    np.testing.assert_array_equal(sums.norms(values, length)[-50:], np.sqrt(squares))
    below, above, negative = sums.halves(values, length)[-50:].T
    np.testing.assert_array_equal(below, summed([np.minimum(group, 0) for group in groups]))
    np.testing.assert_array_equal(above, summed([np.maximum(group, 0) for group in groups]))
    np.testing.assert_array_equal(negative, [np.count_nonzero(group < 0) for group in groups])
    sizes = np.array([group.size for group in groups])
    shifted = [group - group[0] for group in groups]
    ones, twos = summed(shifted), summed([group * group for group in shifted])
    wanted = np.sqrt(np.maximum(twos - ones**2 / sizes, 0) / sizes)
    np.testing.assert_array_equal(sums.deviations(values, length)[-50:], wanted)
    np.testing.assert_allclose(wanted, [group.std() for group in groups], rtol=1e-9, atol=1e-50)
    extremes = [twins.extremes(group.astype(np.float32)) for group in groups]
    np.testing.assert_array_equal(kernels.group_extremes(values, length)[-50:], extremes)


def test_equal_values_do_not_deviate() -> None:
    for value in (0.1, -3e38, 1e-45):
        assert sums.deviations(np.full(100_001, value, np.float32), 1000).max() == 0


def same_selection(values: Flat, k: int) -> None:
    for kernel, twin in zip(select(values, k), sparse_twins.select(values, k), strict=True):
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
