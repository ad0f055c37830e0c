import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import SCHEMA, after, closed, cohort, member, observed, told_to_all
from tightwire.codecs.codec import Codec
from tightwire.policies.adaquantfl import AdaQuantFL, levels_at
from tightwire.policies.base import NoState

POLICY = AdaQuantFL()
LOSSES = st.floats(1e-300, 1e300) | st.sampled_from([0.0, -1.0, math.inf, -math.inf, math.nan])


def levels(policy: AdaQuantFL, losses: list[float]) -> float:
    plan, _ = policy.plan(after(policy, losses), cohort([member(1), member(2)]))
    one, other = told_to_all(plan, "levels")
    assert one == other
    return one


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (2.3, 2.3, 2),
        (2.4, 0.6, 4),
        (1.0, 0.5, 3),
        (1.0, 0.01, 20),
        (1.0, 4.0, 1),
        (1.0, 1e-300, 100),
        (1e300, 1e-300, 100),
    ],
)
def test_levels_are_those_of_the_papers_equation(first: float, last: float, expected: int) -> None:
    """By hand: ceil(2 sqrt(2.4 / 0.6)) = 4, ceil(2 sqrt 2) = ceil 2.83 = 3, 2 sqrt 100 = 20, 2 sqrt(1 / 4) = 1."""
    assert levels_at(first, last, 2, 100) == expected
    assert levels(AdaQuantFL(max_levels=100), [first, last]) == expected


def test_the_first_rounds_take_the_first_levels() -> None:
    assert levels(POLICY, []) == 2
    assert levels(POLICY, [2.3]) == 2


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20))
def test_levels_rise_as_the_loss_falls(losses: list[float]) -> None:
    losses.sort(reverse=True)
    rising = [levels(POLICY, losses[: end + 1]) for end in range(len(losses))]
    assert rising == sorted(rising)


@settings(deadline=None)
@given(st.lists(LOSSES, max_size=12))
def test_whatever_the_losses_a_line_is_chosen(losses: list[float]) -> None:
    asked = levels(POLICY, losses)
    assert 1 <= asked <= POLICY.max_levels
    assert asked == int(asked)
    decision, _ = POLICY.decide(NoState(), observed(told={"levels": asked}, loss=math.nan))
    assert decision.codec is not None
    Codec.parse(decision.codec)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_a_loss_that_says_nothing_is_passed_over(bad: float) -> None:
    assert levels(POLICY, [2.4, 0.6, bad]) == levels(POLICY, [bad, 2.4, 0.6]) == levels(POLICY, [2.4, 0.6]) == 4


def test_a_round_without_clients_changes_nothing() -> None:
    shared = after(POLICY, [2.0, 1.0])
    assert POLICY.review(shared, closed([])) == shared


def test_the_client_sends_what_it_was_told_and_why() -> None:
    for told, line, reason in [
        ({}, "qsgd(levels=2) | rans", "first levels"),
        ({"levels": 7.0}, "qsgd(levels=7) | rans", "loss fell"),
        ({"levels": 1.0}, "qsgd(levels=1) | rans", "loss rose"),
        ({"levels": math.nan}, "qsgd(levels=2) | rans", "first levels"),
    ]:
        decision, _ = POLICY.decide(NoState(), observed(np.zeros(SCHEMA.size, np.float32), told=told))
        assert (decision.codec, decision.reason) == (line, reason)


def test_the_server_remembers_two_numbers_and_changes_none_in_place() -> None:
    shared = after(POLICY, [2.0])
    before = dict(shared)
    assert POLICY.review(shared, closed([1.0])) != before
    assert shared == before
    assert set(after(POLICY, [3.0, 2.0, 1.0, 0.5])) == {"first", "last"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 0}, "greater than or equal to 1"),
        ({"levels": 8, "max_levels": 4}, "from min_levels = 1 to max_levels = 4, got 8"),
        ({"codec": "qsgd(4)"}, r"must have \{levels\} in it, once"),
        ({"codec": "qsgd(levels={levels}) | uniform({levels})"}, "once"),
        ({"codec": "uniform(levels={levels})"}, "codec with levels = 1: .*uniform takes 2 to 65536"),
        ({"codec": "uniform(levels={levels}, form=symmetric)", "min_levels": 3, "levels": 3}, "levels = 4.*odd"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdaQuantFL.model_validate(fields)
