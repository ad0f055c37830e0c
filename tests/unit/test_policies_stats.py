import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tightwire.arrays import Flat, Ints
from tightwire.policies.stats import CELLS, UpdateStats, histogram, histogram_numpy
from tightwire.wire.schema import Schema, TensorSpec

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def schema_of(*sizes: int) -> Schema:
    return Schema(tuple(TensorSpec(f"t{i}", (size,)) for i, size in enumerate(sizes)))


def bounds_of(*sizes: int) -> Ints:
    return np.cumsum([0, *sizes]).astype(np.int64)


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), data=st.data())
def test_the_compiled_histogram_is_that_of_its_numpy_twin(sizes: list[int], data: st.DataObject) -> None:
    update = data.draw(arrays.arrays(np.float32, sum(sizes), elements=FINITE))
    for ours, twin in zip(
        histogram(update, bounds_of(*sizes)), histogram_numpy(update, bounds_of(*sizes)), strict=True
    ):
        assert ours.dtype == twin.dtype
        np.testing.assert_array_equal(ours, twin)


@settings(deadline=None, max_examples=60)
@given(update=arrays.arrays(np.float32, st.integers(1, 60), elements=FINITE))
def test_counts_energy_and_range_are_those_of_the_update(update: Flat) -> None:
    stats = UpdateStats.of(update, schema_of(update.size))
    assert stats.size == stats.counts.sum() == update.size
    assert stats.low[0] == update.min()
    assert stats.high[0] == update.max()
    assert stats.energy[0] == pytest.approx(float((update.astype(np.float64) ** 2).sum()), rel=1e-12)
    assert stats.norm == pytest.approx(float(np.linalg.norm(update.astype(np.float64))), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e20])
def test_cells_are_a_quarter_wide_and_fall_in_magnitude_at_any_scale(scale: float) -> None:
    update = (np.random.default_rng(0).standard_t(3, 50_000) * scale).astype(np.float32)
    stats = UpdateStats.of(update, schema_of(update.size))
    told_apart = stats.cells >> 1 < CELLS - 1
    means = stats.sums / stats.counts
    spread = np.sqrt(np.maximum(stats.squares / stats.counts - means**2, 0))
    assert (spread[told_apart] <= means[told_apart] / 4 / 2).all()
    for sign in (0, 1):
        assert (np.diff(means[stats.cells & 1 == sign]) < 0).all()


def test_each_tensor_has_its_own_cells() -> None:
    parts = [np.array([1, -2, 0], np.float32), np.array([1e-20], np.float32), np.zeros(4, np.float32)]
    together = UpdateStats.of(np.concatenate(parts), schema_of(3, 1, 4))
    for tensor, part in enumerate(parts):
        alone = UpdateStats.of(part, schema_of(part.size))
        cells = slice(together.starts[tensor], together.starts[tensor + 1])
        np.testing.assert_array_equal(together.cells[cells], alone.cells)
        np.testing.assert_array_equal(together.counts[cells], alone.counts)
        np.testing.assert_array_equal(together.squares[cells], alone.squares)
        assert together.energy[tensor] == alone.energy[0]


def test_empty_tensors_have_no_statistics() -> None:
    update = np.array([1, -2, 3], np.float32)
    stats = UpdateStats.of(update, schema_of(0, 2, 0, 1, 0))
    assert stats.size == 3
    np.testing.assert_array_equal(stats.sizes, [2, 1])
    np.testing.assert_array_equal(stats.high, [1, 3])


def test_an_update_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"shape \(5,\), got \(4,\)"):
        UpdateStats.of(np.zeros(4, np.float32), schema_of(5))


def test_a_cell_of_very_many_values_is_summed_without_overflow() -> None:
    update = np.full(1_300_000, np.nextafter(np.float32(1.25), np.float32(0)), np.float32)
    update[-1] = -1.0
    stats = UpdateStats.of(update, schema_of(update.size))
    np.testing.assert_array_equal(stats.counts, [update.size - 1, 1])
    np.testing.assert_allclose(stats.sums / stats.counts, [float(update[0]), 1], rtol=1e-12)
    np.testing.assert_allclose(stats.squares / stats.counts, [float(update[0]) ** 2, 1], rtol=1e-12)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_an_update_that_is_not_finite_is_refused_and_leaves_nothing_behind(value: float) -> None:
    update = np.random.default_rng(0).normal(size=300).astype(np.float32)
    spoiled = np.append(update, np.float32(value))
    with pytest.raises(ValueError, match="must be finite, got one that holds infinity or NaN"):
        histogram(spoiled, bounds_of(300, 1))
    with pytest.raises(ValueError, match="must be finite"):
        UpdateStats.of(np.append(spoiled, update), schema_of(601))
    for ours, twin in zip(histogram(update, bounds_of(300)), histogram_numpy(update, bounds_of(300)), strict=True):
        np.testing.assert_array_equal(ours, twin)


def test_the_table_is_emptied_as_often_as_it_must_be_and_nothing_is_lost() -> None:
    draw = np.random.default_rng(0)
    update = (draw.normal(size=1_200_000) * 2.0 ** draw.integers(-40, 1, 1_200_000)).astype(np.float32)
    update[::7] = 0
    ours, twin = histogram(update, bounds_of(update.size)), histogram_numpy(update, bounds_of(update.size))
    for mine, other in zip(ours, twin, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12)
