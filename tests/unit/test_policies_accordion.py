import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import UPDATE, observed
from tightwire.policies.accordion import Accordion, AccordionState

POLICY = Accordion()


def play(policy: Accordion, factors: list[float]) -> list[str | None]:
    """What a client sends whose update is scaled by one factor a turn."""
    state, lines = policy.initial(), []
    for factor in factors:
        decision, state = policy.decide(state, observed(UPDATE * np.float32(factor)))
        state = policy.load(policy.dump(state))
        lines.append(decision.codec)
    return lines


def test_the_first_turn_is_critical() -> None:
    assert play(POLICY, [1.0]) == [POLICY.low_compression]


@given(factor=st.floats(0.01, 100))
def test_a_change_of_the_threshold_or_more_is_critical_and_a_smaller_one_is_not(factor: float) -> None:
    if abs(abs(factor - 1) - POLICY.threshold) < 1e-3:
        return
    expected = POLICY.low_compression if abs(factor - 1) > POLICY.threshold else POLICY.high_compression
    assert play(POLICY, [1.0, factor])[1] == expected


def test_each_turn_is_compared_with_the_one_before() -> None:
    low, high = POLICY.low_compression, POLICY.high_compression
    assert play(POLICY, [1.0, 0.6, 0.4, 0.3, 3.0, 3.0]) == [low, high, high, high, low, high]


def test_between_comparisons_the_regime_stays() -> None:
    low, high = POLICY.low_compression, POLICY.high_compression
    assert play(Accordion(interval=3), [1, 5, 1, 1, 5, 5, 5]) == [low, low, low, high, high, high, low]


def test_zeros_after_zeros_are_no_change_and_something_after_zeros_is() -> None:
    low, high = POLICY.low_compression, POLICY.high_compression
    assert play(POLICY, [0.0, 0.0, 1.0, 0.0]) == [low, high, low, low]


@given(norm=st.floats(0, 1e30), turns=st.integers(0, 100), critical=st.booleans())
def test_a_state_comes_back_from_its_numbers(norm: float, turns: int, critical: bool) -> None:
    state = AccordionState(norm, float(turns), float(critical))
    assert POLICY.load(POLICY.dump(state)) == state


def test_what_cannot_be_seen_of_the_update_changes_nothing() -> None:
    seen = observed(loss=math.nan, deadline=None, energy=math.inf)
    assert POLICY.decide(POLICY.initial(), seen)[0].codec == POLICY.decide(POLICY.initial(), observed())[0].codec


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"interval": 0}, {"low_compression": "nonsense"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Accordion.model_validate(wrong)
