import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tightwire.studies.statistics import (
    Paired,
    attained,
    band,
    first_crossing,
    holm,
    hypervolume,
    interval,
    judge,
    paired,
    paired_costs,
    pareto,
    sign_flip_p,
    sign_p,
    to_target,
)

NAN = math.nan
values = st.floats(-100, 100).map(lambda value: round(value, 3))
several = st.lists(values, min_size=2, max_size=9)
point = st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float))


def by_seed(*found: float) -> dict[int, float]:
    return dict(enumerate(found))


@given(several)
def test_an_interval_is_that_of_student(found: list[float]) -> None:
    ours = interval(found)
    if len(set(found)) == 1:
        assert [ours.low, ours.high] == pytest.approx([found[0], found[0]])
        return
    theirs = stats.ttest_1samp(found, 0.0).confidence_interval(0.95)
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=1e-9)


def test_one_seed_has_no_interval_and_none_has_nothing() -> None:
    one = interval([3.0])
    assert (one.mean, one.n) == (3.0, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(interval([]).mean)


def test_the_target_is_crossed_where_it_is_first_seen_and_never_between_rounds() -> None:
    accuracy, cost = np.array([0.1, NAN, 0.5, 0.4, 0.9]), np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    assert first_crossing(accuracy, cost, 0.3) == 30.0
    assert first_crossing(accuracy, cost, 0.5) == 30.0
    assert first_crossing(accuracy, cost, 0.51) == 50.0
    assert first_crossing(accuracy, cost, 0.91) is None


def test_seeds_that_missed_the_target_are_not_left_out_of_the_median() -> None:
    assert to_target([10.0, None, 30.0]).median == 30.0
    assert to_target([10.0, 20.0, 30.0, None]).median == 25.0
    assert to_target([10.0, 20.0, None, None]).median is None
    assert to_target([10.0, None, None]).median is None
    assert to_target([]).median is None
    assert to_target([10.0, None, None]).fraction == pytest.approx(1 / 3)


def test_what_was_attained_is_a_step_function_that_never_falls() -> None:
    accuracy, cost = np.array([0.2, NAN, 0.6, 0.5]), np.array([1.0, 2.0, 3.0, 4.0])
    found = attained(accuracy, cost, np.array([0.5, 1.0, 2.9, 3.0, 9.0]))
    np.testing.assert_array_equal(found, [NAN, 0.2, 0.2, 0.6, 0.6])
    assert np.isnan(attained(np.array([NAN]), np.array([1.0]), np.array([2.0]))).all()


def test_a_band_is_the_interval_at_each_point() -> None:
    mean, low, high = band([np.array([1.0, 5.0]), np.array([2.0, 5.0]), np.array([6.0, 5.0])])
    expected = interval([1.0, 2.0, 6.0])
    assert (mean[0], low[0], high[0]) == pytest.approx((expected.mean, expected.low, expected.high))
    assert (mean[1], low[1], high[1]) == (5.0, 5.0, 5.0)


@given(st.lists(point, max_size=12))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, float]]) -> None:
    front = {points[at] for at in pareto(points)}
    beaten = {
        (cost, gain)
        for cost, gain in points
        if any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
    }
    assert front == set(points) - beaten


@given(st.lists(point, max_size=8))
def test_the_hypervolume_counts_the_cells_that_are_dominated(points: list[tuple[float, float]]) -> None:
    cells = sum(any(cost <= x and gain >= y + 1 for cost, gain in points) for x in range(10) for y in range(10))
    assert hypervolume(points, (10.0, 0.0)) == cells


@given(st.lists(values.filter(lambda value: abs(value) > 0.01), min_size=2, max_size=8))
def test_sign_flips_are_those_of_scipy(differences: list[float]) -> None:
    theirs = stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue)


def test_five_pairs_of_one_sign_leave_one_flip_in_sixteen() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 / 32
    assert sign_flip_p([0.0, 0.0]) == 1.0
    assert sign_flip_p([]) is None
    assert sign_flip_p([1.0] * 13) is None


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.02, NAN, 0.9])
    assert corrected[0] == 0.04
    assert math.isnan(corrected[1])
    assert holm([0.9, 0.9]) == [1.0, 1.0]


@given(several, several)
def test_pairs_are_formed_by_seed(first: list[float], second: list[float]) -> None:
    ours = paired(by_seed(*first), by_seed(*second))
    n = min(len(first), len(second))
    differences = np.array(first[:n]) - np.array(second[:n])
    assert ours.difference.n == n
    if np.ptp(differences) > 1e-6:
        assert ours.p == pytest.approx(stats.ttest_rel(first[:n], second[:n]).pvalue, rel=1e-6, abs=1e-12)


def test_costs_are_compared_by_their_ratios_both_ways_alike() -> None:
    cheap, dear = by_seed(1.0, 2.0, 3.0), by_seed(2.0, 4.0, 6.0)
    assert paired_costs(dear, cheap, dear, cheap).difference.mean == pytest.approx(100.0)
    assert paired_costs(cheap, dear, cheap, dear).difference.mean == pytest.approx(-50.0)


def judged(*comparisons: Paired, more_is: str = "worse") -> list[str]:
    return [one.verdict for one in judge(comparisons, matters=2.0, more_is=more_is)]  # type: ignore[arg-type]  # a test's


def test_a_run_that_missed_the_target_counts_with_what_it_spent_and_cannot_win() -> None:
    reached, spent = by_seed(10.0, 11.0, 10.0, 10.5, 10.1, 10.2), by_seed(*[40.0] * 6)
    missed: dict[int, float | None] = dict.fromkeys(range(6))
    dear = paired_costs(missed, reached, spent, spent)
    assert dear.bound == "at least"
    assert judged(dear) == ["worse"]
    cheap = paired_costs(missed, reached, by_seed(1.0, 1.1, 1.0, 1.0, 1.0, 1.0), spent)
    assert judged(cheap) == ["undecided"]
    assert judged(paired_costs(reached, missed, spent, spent)) == ["better"]
    nobody = paired_costs(missed, missed, spent, spent)
    assert nobody.bound == "unknown"
    assert judged(nobody) == ["undecided"]


@pytest.mark.parametrize(("last", "verdict"), [(10.2, "worse"), (None, "undecided")])
def test_bounds_are_counted_and_not_averaged(last: float | None, verdict: str) -> None:
    spent = by_seed(*[40.0] * 6)
    missed: dict[int, float | None] = {**dict.fromkeys(range(6)), 2: 30.0}
    there = by_seed(10.0, 11.0, 10.0, 10.5, 10.1, 10.2)
    found = paired_costs(missed, there if last else dict(list(there.items())[:5]), spent, spent)
    assert math.isnan(found.difference.low)
    assert found.p == pytest.approx(2 / 2**found.difference.n), "the sign test's, however alike the bounds are"
    assert judged(found) == [verdict]


def test_a_bound_on_the_wrong_side_speaks_for_nobody() -> None:
    spent, there = by_seed(*[40.0] * 6), by_seed(*[10.0] * 6)
    missed: dict[int, float | None] = dict.fromkeys(range(6))
    weak = paired_costs(missed, there, {**spent, 0: 5.0}, spent)
    assert weak.p == pytest.approx(2 * 7 / 64)
    assert judged(weak) == ["undecided"]


@pytest.mark.parametrize(("agreeing", "n"), [(0, 3), (3, 5), (6, 6), (9, 12)])
def test_the_sign_test_is_that_of_scipy(agreeing: int, n: int) -> None:
    expected = min(1.0, 2 * stats.binomtest(agreeing, n, alternative="greater").pvalue)
    assert sign_p(agreeing, n) == pytest.approx(expected)


def test_misses_on_both_sides_leave_nothing_known() -> None:
    spent = by_seed(9.0, 9.0)
    assert paired_costs({0: None, 1: 5.0}, {0: 5.0, 1: None}, spent, spent).bound == "unknown"


def test_a_verdict_needs_an_interval_without_zero_a_size_that_matters_and_three_pairs() -> None:
    base = by_seed(0.0, 0.0, 0.0, 0.0)
    large = paired(by_seed(9.0, 9.5, 10.0, 9.2), base)
    small = paired(by_seed(1.0, 1.1, 1.0, 1.05), base)
    noisy = paired(by_seed(30.0, -20.0, 10.0, 1.0), base)
    pair = paired({0: 9.0, 1: 9.0}, base)
    assert judged(large, small, noisy, pair) == ["worse", "undecided", "undecided", "undecided"]
    assert judged(large, more_is="better") == ["better"]


def test_two_that_are_the_same_are_undecided() -> None:
    same = by_seed(0.9, 0.8, 0.7)
    one = paired(same, same)
    assert (one.difference.mean, one.p, one.p_sign_flip) == (0.0, 1.0, 1.0)
    assert judged(one, more_is="better") == ["undecided"]


def test_many_comparisons_ask_for_more_than_one_does() -> None:
    base = by_seed(0.0, 0.0, 0.0, 0.0)
    close = paired(by_seed(2.0, 9.0, 10.0, 7.0), base)
    assert 0.01 < close.p < 0.05
    noise = [paired(by_seed(1.0, -1.0, 2.0, -2.5), base)] * 9
    assert judged(close) == ["worse"]
    assert judged(close, *noise)[0] == "undecided"


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5).map(lambda v: round(v, 2)), min_size=4, max_size=4), min_size=1, max_size=4))
def test_a_verdict_is_turned_round_with_its_sides(runs: list[list[float]]) -> None:
    base = by_seed(0.0, 0.0, 0.0, 0.0)
    forth = judged(*(paired(by_seed(*run), base) for run in runs))
    back = judged(*(paired(base, by_seed(*run)) for run in runs))
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert back == [turned[verdict] for verdict in forth]
