import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_views import SCHEMA, UPDATE, closed, cohort, member, observed, outcome
from tightwire.policies.base import Numbers
from tightwire.policies.lazy import Lazy, LazyState
from tightwire.policies.stats import UpdateStats

POLICY = Lazy(clock=20)
NORM = UpdateStats.of(UPDATE, SCHEMA).norm
HEARD = LazyState(10.0)


def remembered(steps: list[float], policy: Lazy = POLICY) -> Numbers:
    shared: Numbers = {}
    for step in steps:
        shared = policy.review(shared, closed([1.0], update=step))
    return shared


@given(factor=st.floats(0.01, 100))
def test_a_client_speaks_if_and_only_if_its_vector_is_longer_than_the_threshold(factor: float) -> None:
    told = {"threshold": (factor * NORM) ** 2}
    decision, state = POLICY.decide(HEARD, observed(round=11, told=told))
    assert (decision.codec is None) == (factor * NORM >= NORM)
    assert decision.reason == ("says too little" if factor >= 1 else "says enough")
    assert state == HEARD


def test_who_was_never_heard_speaks() -> None:
    decision, _ = POLICY.decide(POLICY.initial(), observed(told={"threshold": math.inf}))
    assert (decision.codec, decision.reason) == (POLICY.codec, "was never heard")


def test_nobody_is_silent_for_longer_than_the_clock() -> None:
    told = {"threshold": math.inf}
    assert POLICY.decide(HEARD, observed(round=29, told=told))[0].codec is None
    assert POLICY.decide(HEARD, observed(round=30, told=told))[0].reason == "was silent for long"


def test_only_an_update_that_was_used_was_heard() -> None:
    decision, state = POLICY.decide(POLICY.initial(), observed())
    used = outcome(decision, 1000, 1.0)
    assert POLICY.learn(state, replace(used, accepted=False, late=True)) == state
    assert POLICY.learn(state, used) == LazyState(3.0)
    assert POLICY.load(POLICY.dump(LazyState(3.0))) == LazyState(3.0)


def test_without_a_word_from_the_server_only_zeros_are_not_sent() -> None:
    assert POLICY.decide(HEARD, observed(round=11))[0].codec == POLICY.codec
    assert POLICY.decide(HEARD, observed(np.zeros(SCHEMA.size, np.float32), round=11))[0].codec is None


@given(steps=st.lists(st.floats(0, 1e6), max_size=30))
def test_the_threshold_is_the_weighted_mean_of_the_last_squared_steps(steps: list[float]) -> None:
    shared = remembered(steps)
    assert len(shared) == min(len(steps), POLICY.depth)
    plan, again = POLICY.plan(shared, cohort([member(1), member(2)]))
    expected = POLICY.weight * sum(step**2 for step in steps[-POLICY.depth :]) / POLICY.depth
    assert plan[1]["threshold"] == plan[2]["threshold"] == pytest.approx(expected)
    assert again == shared


def test_who_counts_for_less_may_be_lazier() -> None:
    members = [member(1, samples=100), member(2, samples=300), member(3, samples=0)]
    plan, _ = POLICY.plan(remembered([1.0] * 10), cohort(members))
    assert plan[1]["threshold"] == pytest.approx(9 * plan[2]["threshold"])
    assert plan[3] == {}


def test_a_step_that_is_no_number_is_forgotten() -> None:
    shared = remembered([1.0, 2.0])
    assert POLICY.review(shared, closed([1.0], update=math.nan)) == shared


def test_the_same_vector_says_too_little_to_a_model_that_moves_fast_and_enough_to_one_that_hardly_moves() -> None:
    moving, still = remembered([NORM * 2] * 10), remembered([NORM * 0.1] * 10)
    thresholds = [POLICY.plan(shared, cohort([member(7)]))[0][7] for shared in (moving, still)]
    lines = [POLICY.decide(HEARD, observed(round=11, told=told))[0].codec for told in thresholds]
    assert lines == [None, POLICY.codec]
