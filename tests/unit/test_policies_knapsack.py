import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tightwire.arrays import Floats, Ints
from tightwire.keys import generator
from tightwire.policies.knapsack import knapsack

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 7))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, Floats]:
    shape = draw(SHAPES)
    costs = draw(arrays.arrays(np.float64, shape, elements=st.integers(0, 40).map(float) | st.just(np.inf)))
    errors = draw(arrays.arrays(np.float64, shape, elements=st.integers(0, 100).map(float)))
    return costs, errors


def sums(costs: Floats, errors: Floats, choice: Ints) -> tuple[float, float]:
    items = np.arange(len(costs))
    return float(costs[items, choice].sum()), float(errors[items, choice].sum())


def brute(costs: Floats, errors: Floats, limit: float) -> float | None:
    """The least error, by trying everything; None where nothing fits."""
    choices = itertools.product(range(costs.shape[1]), repeat=len(costs))
    tried = (sums(costs, errors, np.array(choice)) for choice in choices)
    return min((error for cost, error in tried if cost <= limit), default=None)


@settings(deadline=None, max_examples=200)
@given(problem=problems(), limit=st.integers(0, 120))
def test_a_choice_keeps_within_the_limit_and_exists_where_one_does(problem: tuple[Floats, Floats], limit: int) -> None:
    choice, best = knapsack(*problem, float(limit)), brute(*problem, float(limit))
    assert (choice is None) == (best is None)
    if choice is not None and best is not None:
        cost, error = sums(*problem, choice)
        assert cost <= limit
        assert error >= best


@settings(deadline=None, max_examples=200)
@given(problem=problems(), limit=st.integers(0, 120), more=st.integers(0, 60))
def test_a_larger_limit_never_gives_a_larger_error(problem: tuple[Floats, Floats], limit: int, more: int) -> None:
    less, larger = knapsack(*problem, float(limit)), knapsack(*problem, float(limit + more))
    if less is not None:
        assert larger is not None
        assert sums(*problem, larger)[1] <= sums(*problem, less)[1]


@settings(deadline=None, max_examples=100)
@given(problem=problems(), limit=st.integers(0, 120))
def test_one_item_gets_the_best_option_that_fits(problem: tuple[Floats, Floats], limit: int) -> None:
    costs, errors = problem[0][:1], problem[1][:1]
    choice = knapsack(costs, errors, float(limit))
    if choice is not None:
        assert sums(costs, errors, choice)[1] == brute(costs, errors, float(limit))


def test_the_optimum_is_missed_seldom_and_by_little_on_curves_like_those_of_codecs() -> None:
    rng = generator(0, "test")
    gaps = []
    for _ in range(60):
        bits = np.arange(1.0, 9.0)
        costs = rng.uniform(50, 500, (3, 1)) * bits + rng.uniform(0, 40, (3, 8))
        errors = rng.uniform(0.1, 10, (3, 1)) * 4.0**-bits * rng.uniform(0.7, 1.4, (3, 8))
        for share in (0.2, 0.4, 0.6, 0.8):
            limit = costs.min(axis=1).sum() + share * (costs.max(axis=1).sum() - costs.min(axis=1).sum())
            choice, best = knapsack(costs, errors, limit), brute(costs, errors, limit)
            assert choice is not None
            assert best is not None
            gaps.append(sums(costs, errors, choice)[1] / best - 1)
    assert np.mean(np.array(gaps) < 1e-12) > 0.75
    assert np.mean(gaps) < 0.02


def test_many_items_come_close_to_what_any_price_allows() -> None:
    rng = generator(1, "test")
    costs = np.cumsum(rng.exponential(size=(100, 40)), axis=1)
    errors = np.cumsum(rng.exponential(size=(100, 40)), axis=1)[:, ::-1] ** 2
    limit = float(costs[:, 20].sum())
    choice = knapsack(costs, errors, limit)
    assert choice is not None
    cost, error = sums(costs, errors, choice)
    assert cost <= limit
    prices = np.geomspace(1e-3, 1e5, 400)  # the dual bound: no choice within the limit has a smaller error
    bound = max(float((errors + price * costs).min(axis=1).sum() - price * limit) for price in prices)
    assert bound <= error <= bound * 1.001


def test_no_items_need_no_choice() -> None:
    choice = knapsack(np.zeros((0, 3)), np.zeros((0, 3)), 0.0)
    assert choice is not None
    assert choice.shape == (0,)


@pytest.mark.parametrize("limit", [0.0, 4.9])
def test_nothing_is_chosen_where_the_cheapest_options_cost_too_much(limit: float) -> None:
    assert knapsack(np.array([[2.0, 3.0], [3.0, np.inf]]), np.ones((2, 2)), limit) is None
