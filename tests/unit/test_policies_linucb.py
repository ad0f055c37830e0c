import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_world import Same, World, broken_after, predicted, uniformly
from policy_views import closed, cohort, member, observed
from tightwire.arrays import Floats
from tightwire.keys import generator
from tightwire.policies.arms import DIMENSIONS, PRIOR, Lesson
from tightwire.policies.base import Closed, Numbers, Report
from tightwire.policies.linucb import Beliefs, LinUCB, Matrix, backward, cholesky, forward

POLICY = LinUCB()
unit = st.floats(0, 1)
lessons = st.lists(
    st.builds(lambda rest, reward: Lesson(0, "x", (1.0, *rest), reward), st.tuples(unit, unit, unit, unit, unit), unit),
    max_size=5,
)


def dense(lower: Matrix) -> Floats:
    """The symmetric matrix of a lower triangle."""
    square = np.zeros((len(lower), len(lower)))
    for i, row in enumerate(lower):
        square[i, : i + 1] = square[: i + 1, i] = row
    return square


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_the_factors_solve_what_they_should(seed: int) -> None:
    rng = generator(seed, "test")
    root = rng.standard_normal((5, 5))
    matrix, right = root @ root.T + np.eye(5), rng.standard_normal(5)
    lower = cholesky(tuple(tuple(float(v) for v in row[: i + 1]) for i, row in enumerate(matrix)))
    factor = np.array([[*row, *[0.0] * (5 - len(row))] for row in lower])
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=1e-9, atol=1e-9)
    solved = backward(lower, forward(lower, tuple(float(v) for v in right)))
    np.testing.assert_allclose(matrix @ np.array(solved), right, rtol=1e-7, atol=1e-7)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(ValueError, match="pivot 1 is"):
        cholesky(((1.0,), (2.0, 1.0)))


@settings(max_examples=30)
@given(rounds=st.lists(lessons, max_size=5), discount=st.floats(0.1, 1), ridge=st.floats(1e-3, 10))
def test_beliefs_are_discounted_regression_with_a_prior_that_does_not_fade(
    rounds: list[list[Lesson]], discount: float, ridge: float
) -> None:
    beliefs = Beliefs.of({}, ridge)
    v, u = ridge * np.eye(DIMENSIONS), ridge * np.eye(DIMENSIONS)
    b = ridge * np.array(PRIOR)
    for age, learnt in enumerate(reversed(rounds)):
        for lesson in learnt:
            x = np.array(lesson.context)
            v += discount**age * np.outer(x, x)
            u += discount ** (2 * age) * np.outer(x, x)
            b += discount**age * x * lesson.reward
    for learnt in rounds:
        beliefs = Beliefs.of(beliefs.after(learnt, discount, ridge).numbers(), ridge)
    np.testing.assert_allclose(dense(beliefs.v), v, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(dense(beliefs.u), u, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(beliefs.b, b, rtol=1e-9, atol=1e-9)


def test_what_is_told_are_the_model_and_its_doubts() -> None:
    shared = POLICY.review({}, World(broken_after(5.0)).play(POLICY, 3).last)
    plan, _ = POLICY.plan(shared, cohort([member(1), member(2)]))
    beliefs = Beliefs.of(shared, POLICY.ridge)
    inverse = np.linalg.inv(dense(beliefs.v))
    theta, doubts = inverse @ np.array(beliefs.b), inverse @ dense(beliefs.u) @ inverse
    assert plan[1] == plan[2]
    np.testing.assert_allclose([plan[1][f"t_{i}"] for i in range(DIMENSIONS)], theta, rtol=1e-9)
    for i in range(DIMENSIONS):
        for j in range(i + 1):
            assert plan[1][f"w_{i}_{j}"] == pytest.approx(doubts[i, j], rel=1e-9, abs=1e-12)


def test_the_server_remembers_a_bounded_number_of_plain_numbers() -> None:
    world = World(broken_after(5.0)).play(POLICY, 5)
    assert len(world.shared) == 21 + 21 + DIMENSIONS
    assert json.loads(json.dumps(world.shared)) == world.shared


def test_the_same_rounds_give_the_same_decisions_and_change_no_argument() -> None:
    one, other = (World(broken_after(5.0)).play(POLICY, 5) for _ in range(2))
    assert one.regrets == other.regrets
    assert one.shared == other.shared
    shared = dict(one.shared)
    POLICY.plan(one.shared, cohort([member(1)]))
    POLICY.review(one.shared, one.last)
    assert one.shared == shared


def test_before_anything_is_learnt_predictions_are_believed() -> None:
    seen = observed(uplink=1e4)
    told = POLICY.plan({}, cohort([member(7)]))[0][7]
    first = LinUCB(width=0.0).decide(POLICY.initial(), observed(uplink=1e4, told=told))[0]
    assert first.codec == Same(rule=predicted).decide(POLICY.initial(), seen)[0].codec
    assert POLICY.decide(POLICY.initial(), seen) == POLICY.decide(POLICY.initial(), observed(uplink=1e4, told=told))


def test_where_predictions_come_true_there_is_no_regret_to_speak_of() -> None:
    world = World(broken_after(math.inf)).play(POLICY, 30)
    uniform = World(broken_after(math.inf)).play(Same(rule=uniformly), 30)
    assert world.mean(0, 30) < 0.01 * uniform.mean(0, 30)


def test_where_long_uploads_break_off_the_regret_is_far_below_that_of_chance_and_of_belief_in_predictions() -> None:
    learnt, uniform, believing = (
        World(broken_after(5.0)).play(policy, 60) for policy in (POLICY, Same(rule=uniformly), Same(rule=predicted))
    )
    assert learnt.mean(20, 60) < 0.03 * uniform.mean(20, 60)
    assert learnt.mean(20, 60) < 0.5 * believing.mean(20, 60)


def test_after_a_change_it_learns_anew_and_faster_for_the_discount() -> None:
    def change(round: int) -> float:
        return 3.0 if round <= 60 else math.inf

    discounted, stubborn = (World(change).play(policy, 100) for policy in (POLICY, LinUCB(discount=1.0)))
    assert discounted.mean(80, 100) < 0.2 * stubborn.mean(80, 100)
    assert discounted.mean(80, 100) < 0.5 * discounted.mean(60, 65)


def test_reports_that_teach_nothing_change_nothing() -> None:
    shared: Numbers = {}
    for reports in ((), tuple(closed([1.0]).reports)):
        assert POLICY.review({**shared, "deadline": 60.0}, Closed(1, 10.0, reports, 1.0, 1.0)) == shared


@settings(max_examples=40, deadline=None)
@given(upload=st.floats(-1e308, 1e308), turn=st.floats(-1e308, 1e308), size=st.floats(0, 1e308), used=st.booleans())
def test_the_model_stays_finite_whatever_is_reported(upload: float, turn: float, size: float, used: bool) -> None:
    decision = POLICY.decide(POLICY.initial(), observed())[0]
    shared: Numbers = {"deadline": 60.0}
    for number in range(1, 4):
        report = Report(7, 100, math.nan, decision, int(min(size, 1e18)), upload, turn, used)
        shared = POLICY.review(shared, Closed(number, 10.0, (report,), 1.0, 1.0))
        told = POLICY.plan(shared, cohort([member(7)]))[0][7]
        assert all(math.isfinite(number) for number in told.values())
