import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Flat, Floats
from tightwire.keys import generator
from tightwire.policies.levels import spread, variance
from tightwire.policies.stats import UpdateStats
from tightwire.policies.sweep import Sweep, sweep
from tightwire.wire.schema import Schema, TensorSpec

RNG = generator(0, "test")


def swept(update: Flat, bits: list[int], kept: list[int]) -> Sweep:
    stats = UpdateStats.of(update, Schema((TensorSpec("t", (update.size,)),)))
    return sweep(stats, np.array(bits, np.int64), np.array([kept], np.int64))


def exact_error(update: Flat, bits: int, k: int) -> float:
    """Dropped energy and variance of stochastic rounding, value by value."""
    values = update.astype(np.float64)[np.argsort(-np.abs(update), kind="stable")]
    kept, dropped = values[:k], values[k:]
    step = np.ptp(kept) / (2**bits - 1)
    part = ((kept - kept.min()) / step) % 1 if step > 0 else np.zeros(k)
    return float((dropped**2).sum() + (part * (1 - part)).sum() * step**2)


def drawn(update: Flat, bits: int, k: int) -> tuple[float, int]:
    """Empirical entropy in bits of one stochastic rounding's codes together, and the levels that occur."""
    kept = update.astype(np.float64)[np.argsort(-np.abs(update), kind="stable")][:k]
    place = (kept - kept.min()) / np.ptp(kept) * (2**bits - 1)
    counts = np.bincount(np.floor(place + RNG.random(k)).astype(np.int64))
    counts = counts[counts > 0]
    return float(k * np.log2(k) - (counts * np.log2(counts)).sum()), len(counts)


@settings(deadline=None, max_examples=80)
@given(
    exponents=st.lists(st.integers(0, 40), min_size=1, max_size=24, unique=True),  # 15 octaves; 16 are told apart
    smallest=st.integers(-60, 20),
    signs=st.integers(0, 2**24 - 1),
    bits=st.integers(1, 8),
    data=st.data(),
)
def test_error_is_exact_where_every_value_has_a_cell_of_its_own(
    exponents: list[int], smallest: int, signs: int, bits: int, data: st.DataObject
) -> None:
    update = np.array([1.3 ** (smallest + e) * (1 - 2 * (signs >> i & 1)) for i, e in enumerate(exponents)], np.float32)
    k = data.draw(st.integers(1, update.size))
    energy = float((update.astype(np.float64) ** 2).sum())
    assert swept(update, [bits], [k]).error[0, 0, 0] == pytest.approx(
        exact_error(update, bits, k), rel=1e-4, abs=1e-5 * energy
    )


SAMPLES: dict[str, Floats] = {
    "gaussian": RNG.standard_normal(20_000),
    "laplace": RNG.laplace(size=20_000),
    "student": RNG.standard_t(3, 20_000),
    "positive": RNG.exponential(size=20_000),
    "negative": -RNG.exponential(size=5_000),
    "shifted": RNG.standard_normal(20_000) + 3,
    "mostly zero": RNG.standard_normal(20_000) * (RNG.random(20_000) < 0.05),
    "on a grid": np.round(RNG.standard_normal(20_000) * 8) / 8,
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_error_is_within_two_percent_of_the_value_by_value_one(sample: str) -> None:
    update = SAMPLES[sample].astype(np.float32)
    bits, kept = [1, 2, 4, 8, 12], [20, 200, 2_000, update.size]
    ours = swept(update, bits, kept).error[0]
    exact = np.array([[exact_error(update, b, k) for k in kept] for b in bits])
    assert np.median(np.abs(ours / exact - 1)) < 0.005
    np.testing.assert_allclose(ours, exact, rtol=0.02, atol=1e-7 * float((update**2).sum()))


@pytest.mark.parametrize("sample", ["gaussian", "laplace", "student", "positive", "shifted"])
def test_entropy_and_levels_are_those_of_codes_really_drawn(sample: str) -> None:
    update = SAMPLES[sample].astype(np.float32)
    bits, kept = [1, 2, 4, 6, 8, 10], [200, 2_000, update.size]
    ours = swept(update, bits, kept)
    real = np.array([[np.mean([drawn(update, b, k) for _ in range(4)], axis=0) for k in kept] for b in bits])
    entropy, levels = real[..., 0], real[..., 1]
    narrow = sample == "shifted"  # so that the values kept may lie in one cell
    assert np.median(np.abs(ours.entropy[0] / entropy - 1)) < (0.03 if narrow else 0.01)
    np.testing.assert_allclose(ours.entropy[0], entropy, rtol=0.15 if narrow else 0.06, atol=8)
    np.testing.assert_allclose(ours.levels[0], levels, rtol=0.25 if narrow else 0.12, atol=1)


def test_a_grid_point_does_not_depend_on_the_rest_of_the_grid() -> None:
    update = SAMPLES["student"].astype(np.float32)
    kept = [1, 5, 70, 71, 900, 12_345, update.size]
    together = swept(update, [3, 7], kept)
    for at, k in enumerate(kept):
        alone = swept(update, [3, 7], [k])
        np.testing.assert_allclose(together.error[0, :, at], alone.error[0, :, 0], rtol=1e-6)
        np.testing.assert_allclose(together.entropy[0, :, at], alone.entropy[0, :, 0], rtol=1e-3, atol=0.1)


def test_one_kept_value_costs_neither_error_nor_entropy() -> None:
    result = swept(np.array([3, -1, 2], np.float32), [1, 4], [1])
    np.testing.assert_allclose(result.error, 5, rtol=1e-6)
    np.testing.assert_array_equal(result.entropy, 0)
    np.testing.assert_array_equal(result.levels, 1)


@settings(deadline=None, max_examples=60)
@given(ends=st.tuples(st.floats(0, 15), st.floats(0, 15)), mass=st.floats(0.1, 1e4))
def test_spreading_loses_no_value_and_keeps_their_mean(ends: tuple[float, float], mass: float) -> None:
    start, end = sorted(ends)
    levels, doubled = np.zeros(16), np.zeros(16)
    spread(start, end, mass, levels, doubled)
    assert levels.sum() == pytest.approx(mass, rel=1e-6)
    assert (levels * np.arange(16)).sum() / mass == pytest.approx((start + end) / 2, rel=1e-6, abs=1e-6)
    assert 0 <= variance(start, end, 15.0) <= 1 / 4
    assert (doubled <= levels * (1 + 1e-9)).all()
