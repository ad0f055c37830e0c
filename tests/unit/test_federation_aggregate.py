"""Fixed-point sums: no order, no overflow, nothing bad let in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.errors import RefusedUpdateError
from tightwire.federation.aggregate import BOUND, FixedPoint, check


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_sum_does_not_depend_on_order_or_grouping(weights: list[int], shuffler: "np.random.Generator") -> None:
    updates = [np.random.default_rng(i).normal(size=50).astype(np.float32) for i in range(len(weights))]
    fixed = FixedPoint.for_weight(sum(weights))
    together = fixed.zeros(50)
    for update, weight in zip(updates, weights, strict=True):
        fixed.add(together, update, weight)
    order = list(range(len(weights)))
    shuffler.shuffle(order)
    left, right = fixed.zeros(50), fixed.zeros(50)
    for place, i in enumerate(order):
        fixed.add(left if place % 2 else right, updates[i], weights[i])
    assert np.array_equal(together, left + right)


def test_the_mean_is_the_weighted_mean_to_float32_precision() -> None:
    rng = np.random.default_rng(0)
    updates, weights = rng.normal(size=(30, 1000)).astype(np.float32), rng.integers(1, 600, 30)
    fixed = FixedPoint.for_weight(int(weights.sum()))
    total = fixed.zeros(1000)
    for update, weight in zip(updates, weights, strict=True):
        fixed.add(total, update, int(weight))
    expected = np.average(updates.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(fixed.mean(total, int(weights.sum())), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weight", [1, 2, 1000, 10**6, 10**9])
def test_the_largest_admissible_sum_fits(weight: int) -> None:
    fixed = FixedPoint.for_weight(weight)
    total = fixed.zeros(2)
    fixed.add(total, np.array([BOUND, -BOUND], dtype=np.float32), weight)
    assert total.tolist() == [
        int(BOUND) * weight * 2**fixed.fraction_bits,
        -int(BOUND) * weight * 2**fixed.fraction_bits,
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "non-finite"), (np.inf, "non-finite"), (-np.inf, "non-finite"), (2 * BOUND, "overflow")],
)
def test_what_would_spoil_the_sum_is_refused_with_a_reason(value: float, reason: str) -> None:
    update = np.zeros(10, dtype=np.float32)
    update[3] = value
    with pytest.raises(RefusedUpdateError) as caught:
        check(update)
    assert caught.value.reason == reason
