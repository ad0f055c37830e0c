"""Compiled loops outside the quantisers and packers equal plain NumPy, bit for bit."""

import numpy as np
import pytest

from tightwire.codecs import twins as codec_twins
from tightwire.codecs.feedback import difference
from tightwire.codecs.joint import _quantise, _restore, step_for
from tightwire.federation.aggregate import FixedPoint
from tightwire.learning.samples import checked
from tightwire.wire import twins
from tightwire.wire.indices import _ends

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ends_of_unary_codes(seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, 300, dtype=np.uint8) & np.uint8(seed * 50 + 7)
    expected = twins.ends(data, 200)
    found = np.empty(200, np.int64)
    count = _ends(data, found)
    assert count == expected.size
    assert np.array_equal(found[:count], expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_error_feedback_still_owes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owed, decoded = rng.normal(size=(2, 999)).astype(np.float32)
    residual, error = difference(owed, decoded)
    assert np.array_equal(residual, owed - decoded)
    exact = np.square(residual, dtype=np.float64).sum() / np.square(owed, dtype=np.float64).sum()
    assert error == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_weighted_sum_in_fixed_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    update, weight = rng.normal(size=999).astype(np.float32), int(rng.integers(1, 600))
    fixed = FixedPoint.for_weight(10_000)
    total = fixed.zeros(999)
    fixed.add(total, update, weight)
    assert np.array_equal(total, weight * np.rint(update * 2.0**fixed.fraction_bits).astype(np.int64))


@pytest.mark.parametrize("seed", SEEDS)
def test_codes_on_a_shared_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, 999).astype(np.float32)
    levels, step = 2 ** (3 + seed) - 1, step_for(1.0, 2 ** (3 + seed) - 1)
    low, inverse = np.float64(-step * levels), np.nextafter(1 / step, 0)
    key = seed << 40 | 77
    codes = np.empty(values.size, np.uint32)
    _quantise(values, low, inverse, np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), codes)
    draws = codec_twins.noise(values.size, key) / 2**24
    scaled = (values.astype(np.float64) - low) * inverse
    assert np.array_equal(codes, np.floor(scaled) + (draws < scaled - np.floor(scaled)))
    restored = np.empty_like(values)
    _restore(codes, np.int32(levels), np.float32(step), restored)
    assert np.array_equal(restored, (codes.astype(np.float64) - levels) * step)


def test_bytes_as_fractions() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 256)
    fractions, _ = checked(pixels, np.zeros(1, np.int64), "test").all()
    assert np.array_equal(fractions, np.divide(pixels, np.float32(255)))
