import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bandit_world import Same, predicted
from policy_views import observed
from tightwire.codecs.codec import Codec
from tightwire.policies.arms import ARMS, DIMENSIONS, features, lesson
from tightwire.policies.base import Decision, Report
from tightwire.policies.monitor import Link

POLICY = Same(rule=predicted)
any_float = st.floats(allow_nan=True, allow_infinity=True)


def report(decision: Decision, **changes: Any) -> Report:  # Any: fields of a report
    upload = decision.predicted_seconds or 0.0
    usual = Report(1, 100, 1.0, decision, 1000, upload, 20.01 + upload, used=True)
    return replace(usual, **changes)


@given(
    gain=any_float,
    before=st.floats(0, 1e300),
    upload=st.floats(0, math.inf),
    size=st.floats(0, 1e300),
    left=any_float | st.none(),
)
def test_a_context_is_six_numbers_from_0_to_1_whatever_goes_in(
    gain: float, before: float, upload: float, size: float, left: float | None
) -> None:
    context = features(gain=gain, before=before, upload=upload, size=size, left=left)
    assert len(context) == DIMENSIONS
    assert all(0 <= number <= 1 for number in context)


def test_a_context_says_what_an_arm_promises() -> None:
    context = features(gain=0.9, before=20.0, upload=5.0, size=625_000.0, left=40.0)
    assert context == pytest.approx((1.0, 0.9, 0.8, 0.72, 0.125, 0.45))


def test_client_and_server_see_the_same_context() -> None:
    options, _ = POLICY.options(Link(1e5), observed(uplink=1e5))
    assert len(options) == len(ARMS)
    for option in options:
        learnt = lesson(report(option.decision), 60.0)
        assert learnt is not None
        assert learnt.line == option.decision.codec == POLICY.line(option.arm)
        assert learnt.context == pytest.approx(option.context, abs=1e-9)
        assert learnt.reward == pytest.approx(option.context[3], abs=1e-9)


def test_the_reward_is_progress_over_the_turn_and_none_if_not_used() -> None:
    decision = Decision("uniform(4)", 4.0, 1.0, "x", 1000.0, 5.0, 0.2)
    assert lesson(report(decision, upload=20.0, turn=40.0), None).reward == pytest.approx(0.8 * 0.5)  # type: ignore[union-attr]  # is not None
    assert lesson(report(decision, used=False), None).reward == 0  # type: ignore[union-attr]  # is not None


@given(numbers=st.tuples(any_float, any_float, any_float), upload=any_float, turn=any_float)
def test_whatever_a_report_claims_a_reward_is_from_0_to_1(
    numbers: tuple[float, float, float], upload: float, turn: float
) -> None:
    learnt = lesson(report(Decision("x", 4.0, 1.0, "x", *numbers), upload=upload, turn=turn), 60.0)
    if learnt is not None:
        assert 0 <= learnt.reward <= 1
        assert all(0 <= number <= 1 for number in learnt.context)


def test_nothing_is_learnt_from_who_sends_nothing_or_predicts_nothing() -> None:
    assert lesson(report(Decision(None, 0.0, 0.0, "x")), None) is None
    assert lesson(report(Decision("uniform(4)", 4.0, 1.0, "x", 100.0, None, 0.1)), None) is None


@settings(deadline=None, max_examples=40)
@given(uplink=st.floats(10, 1e6), energy=st.floats(0, 1e-2), tail=st.floats(0, 1e-3))
def test_no_arm_is_played_that_would_miss_the_deadline_or_break_the_battery(
    uplink: float, energy: float, tail: float
) -> None:
    seen = observed(uplink=uplink, energy=energy, joules_per_upload=tail)
    options, limit = POLICY.options(Link(uplink), seen)
    for option in options:
        size, seconds = option.decision.predicted_bytes, option.decision.predicted_seconds
        assert size is not None
        assert seconds is not None
        assert seen.elapsed + 0.01 + seconds <= 60
        assert size * seen.joules_per_byte + tail <= energy
    assert len(options) == len(ARMS) or limit in ("deadline", "battery")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"energy": 0.0}, "no arm meets the battery"),
        ({"memory": 0.0}, "no arm meets the memory"),
        ({"elapsed": 61.0}, "no arm meets the deadline"),
        ({"uplink": 0.0}, "no arm meets the deadline"),
    ],
)
def test_where_no_arm_can_be_played_nothing_is_sent(changes: dict[str, Any], reason: str) -> None:
    decision, _ = POLICY.decide(POLICY.initial(), observed(**changes))
    assert (decision.codec, decision.reason) == (None, reason)


def test_who_skips_forgets_a_bad_link_and_tries_again() -> None:
    state, rounds = Link(1.0), 0
    decision, state = POLICY.decide(state, observed())
    while decision.codec is None:
        decision, state = POLICY.decide(state, observed())
        rounds += 1
        assert rounds < 40
    assert rounds > 0


def test_without_a_deadline_even_a_dead_link_is_tried_and_promises_nothing() -> None:
    decision, _ = POLICY.decide(POLICY.initial(), observed(uplink=0.0, deadline=None))
    assert decision.codec is not None
    assert decision.predicted_seconds is None


def test_every_arm_is_a_codec_line_that_prints_as_it_is_written() -> None:
    for arm in range(len(ARMS)):
        assert str(Codec.parse(POLICY.line(arm))) == POLICY.line(arm)


@pytest.mark.parametrize("wrong", [[], [[4, 0.1], [4, 0.1]], [[0, 0.1]], [[4, 0.123456]], [[4, 1.0]] * 10])
def test_arms_that_make_no_sense_are_refused(wrong: list[list[float]]) -> None:
    with pytest.raises(ValidationError, match="arms"):
        Same.model_validate({"rule": predicted, "arms": wrong})
