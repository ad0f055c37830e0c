import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import DECISION, SCHEMA, after, closed, cohort, member, observed, outcome, told_to_all
from tightwire.codecs.codec import Codec
from tightwire.policies.adagq import AdaGQ, equal_times, worth
from tightwire.policies.base import Numbers

POLICY = AdaGQ()
CLIENTS = st.lists(st.tuples(st.floats(0, 100), st.floats(1e-3, 100)), min_size=1, max_size=30)


def rounds(policy: AdaGQ, shared: Numbers, losses: list[float], **changes: Any) -> Numbers:
    for loss in losses:
        shared = policy.review(shared, closed([loss], **changes))
    return shared


def test_bits_of_two_clients_are_those_of_equation_12() -> None:
    """By hand: b_j = (t_i - t_j + b_i c_i) / c_j = (10 - 4 + 4 * 1) / 2 = 5; levels 15 and 31, 23 in the mean."""
    assert equal_times([10.0, 4.0], [1.0, 2.0], 23.0, 8) == [4, 5]


@given(CLIENTS, st.floats(1, 255))
def test_everybody_finishes_within_one_bit_of_the_others(clients: list[tuple[float, float]], mean: float) -> None:
    starts, paces = [start for start, _ in clients], [pace for _, pace in clients]
    bits = equal_times(starts, paces, mean, 8)
    ends = [start + b * pace for start, b, pace in zip(starts, bits, paces, strict=True)]
    last = max((end for end, b in zip(ends, bits, strict=True) if b > 1), default=-math.inf)
    for end, b, pace in zip(ends, bits, paces, strict=True):
        assert b == 8 or end + pace >= last


@given(CLIENTS, st.floats(1, 255))
def test_the_mean_number_of_levels_is_kept_and_one_more_bit_would_exceed_it(
    clients: list[tuple[float, float]], mean: float
) -> None:
    starts, paces = [start for start, _ in clients], [pace for _, pace in clients]
    bits = equal_times(starts, paces, mean, 8)
    room = mean * len(bits) - sum(2**b - 1 for b in bits)
    assert room >= 0
    raised = [(start + (b + 1) * pace, 2**b) for start, b, pace in zip(starts, bits, paces, strict=True) if b < 8]
    if raised:
        soonest = min(end for end, _ in raised)
        assert sum(levels for end, levels in raised if end == soonest) > room - 1e-6


def test_equal_clients_take_equal_bits() -> None:
    assert equal_times([5.0] * 6, [2.0] * 6, 15.0, 8) == [4] * 6
    assert equal_times([5.0] * 6, [2.0] * 6, 255.0, 8) == [8] * 6
    assert equal_times([], [], 15.0, 8) == []


def test_a_slow_link_and_a_slow_processor_both_take_bits_away() -> None:
    """Seconds a bit: 1, 1.5, 1.5, 1; the third starts a second later. At T = start + 4.5: 4, 3, 2, 4 bits."""
    rate = float(SCHEMA.size)
    members = [
        member(0, uplink=rate),
        member(1, uplink=rate / 1.5),
        member(2, uplink=rate / 1.5, compute=20.0),
        member(3, uplink=rate),
    ]
    assert told_to_all(POLICY.plan({}, cohort(members))[0], "bits") == [4, 3, 2, 4]


def test_a_bit_takes_what_it_took_and_newcomers_are_scaled_alike() -> None:
    """At 1 Mbit/s a bit a value takes 4.51 ms by the profile; those who know took twice as long, which newcomers do."""
    planned = SCHEMA.size / 1e6
    known = {"bits": 4.0, "pace": 2 * planned}
    members = [member(0, state=known), member(1), member(2, state=known), member(3, state={"bits": 0.0, "pace": 0.0})]
    assert len(set(told_to_all(POLICY.plan({}, cohort(members))[0], "bits"))) == 1
    slow = [member(0, state={"bits": 4.0, "pace": 10.0}), member(1, state={"bits": 4.0, "pace": 1.0})]
    first, second = told_to_all(POLICY.plan({}, cohort(slow))[0], "bits")
    assert first < second


def test_the_client_learns_its_seconds_a_bit_from_uploads_that_arrived_whole() -> None:
    decision, state = POLICY.decide(POLICY.initial(), observed(told={"bits": 5.0, "levels": 15.0}))
    assert decision.codec == "qsgd(levels=31) | rans"
    learnt = POLICY.learn(state, outcome(decision, 1000, 10.05))
    assert learnt.bits == 5
    assert learnt.pace == pytest.approx(2.0)
    late = dataclasses.replace(outcome(decision, 1000, 10.05), accepted=False, late=True)
    assert POLICY.learn(state, late) == learnt
    assert POLICY.learn(state, dataclasses.replace(late, late=False)) == state
    assert POLICY.learn(learnt, outcome(decision, 0, 99.0)) == learnt
    assert POLICY.learn(learnt, outcome(decision, 10, math.inf)) == learnt
    assert POLICY.learn(POLICY.initial(), outcome(DECISION, 10, 3.0)) == POLICY.initial()
    assert POLICY.load(POLICY.dump(learnt)) == learnt


def test_the_worth_of_a_second_is_the_relative_fall_of_the_loss() -> None:
    assert worth(2.0, 1.5, 10.0) == pytest.approx(0.025)
    assert worth(2.0, 2.5, 10.0) == pytest.approx(-0.025)
    assert worth(2.0, 1.5, 0.0) == 0
    assert worth(1e-300, 1e300, 1e-9) == 0


def test_levels_are_held_for_a_period_and_then_halved_to_learn_something() -> None:
    policy = AdaGQ(period=3)
    levels = [after(policy, [2.0, 1.5, 1.0, 0.9, 0.8][:end]).get("levels", 15.0) for end in range(6)]
    assert levels == [15, 15, 15, 7.5, 7.5, 7.5]


@pytest.mark.parametrize(
    ("second", "levels"),
    [
        ([1.0, 0.9, 0.2], 3.75),  # fewer levels were worth more: fewer still
        ([1.0, 0.99, 0.98], 15.0),  # fewer levels were worth less: back
        ([1.0, 1.1, 1.2], 15.0),
    ],
)
def test_levels_go_where_a_second_was_worth_more(second: list[float], levels: float) -> None:
    policy = AdaGQ(period=3)
    shared = rounds(policy, {}, [2.0, 1.8, 1.4])
    assert shared["rate"] == pytest.approx((2.0 - 1.4) / 2 / 20)
    assert rounds(policy, shared, second)["levels"] == levels


def test_a_shorter_round_is_worth_more() -> None:
    policy = AdaGQ(period=3)
    shared = rounds(policy, {}, [2.0, 1.8, 1.4], seconds=10.0)
    assert rounds(policy, shared, [2.0, 1.8, 1.5], seconds=10.0)["levels"] == 15
    assert rounds(policy, shared, [2.0, 1.8, 1.5], seconds=5.0)["levels"] == 3.75


def test_levels_that_could_not_move_are_moved_the_other_way() -> None:
    policy = AdaGQ(period=2, levels=1)
    assert after(policy, [2.0, 1.0])["levels"] == 2
    policy = AdaGQ(period=2, levels=255)
    shared = {"levels": 255.0, "held": 255.0, "before": 255.0, "rate": 0.1}
    assert rounds(policy, shared, [2.0, 1.0])["levels"] == 127.5


def test_levels_follow_the_norm_of_the_mean_update() -> None:
    """Equation 10, lambda = 2: 15 + 2 log2(8 / 1) = 21; and back by 2 log2(2 / 8) = -4."""
    policy = AdaGQ(sensitivity=2.0, period=50)
    shared = rounds(policy, {}, [1.0], update=1.0)
    assert shared["levels"] == 15
    shared = rounds(policy, shared, [1.0], update=8.0)
    assert shared["levels"] == 21
    assert rounds(policy, shared, [1.0], update=2.0)["levels"] == 17
    assert rounds(policy, shared, [1.0], update=0.0)["levels"] == 21
    assert rounds(policy, shared, [1.0], update=1e300)["levels"] == 255


@settings(deadline=None, max_examples=50)
@given(
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=25),
    updates=st.floats(0, allow_nan=False, allow_infinity=True),
    seconds=st.floats(0, 1e12),
    uplinks=st.lists(st.sampled_from([0.0, 1e-300, 1.0, 1e6, math.inf]), min_size=1, max_size=6),
)
def test_whatever_happens_a_line_is_chosen(
    losses: list[float], updates: float, seconds: float, uplinks: list[float]
) -> None:
    policy = AdaGQ(period=2)
    shared: Numbers = {}
    for loss in losses:
        shared = policy.review(shared, closed([loss], seconds=seconds, update=updates))
        updates = 1 / updates if updates else 1.0
    assert len(shared) <= 9
    members = [member(client, uplink=uplink) for client, uplink in enumerate(uplinks)]
    for told in policy.plan(shared, cohort(members))[0].values():
        decision, _ = policy.decide(policy.initial(), observed(told=told, loss=math.nan))
        assert decision.codec is not None
        Codec.parse(decision.codec)


def test_who_was_told_nothing_takes_the_first_levels() -> None:
    decision, _ = POLICY.decide(POLICY.initial(), observed())
    assert (decision.codec, decision.reason) == ("qsgd(levels=15) | rans", "as the mean")


def test_reasons_say_how_the_client_stands() -> None:
    for bits, reason in [(3.0, "short of time"), (4.0, "as the mean"), (6.0, "has time")]:
        decision, _ = POLICY.decide(POLICY.initial(), observed(told={"bits": bits, "levels": 20.0}))
        assert decision.reason == reason


def test_the_servers_memory_is_not_changed_in_place() -> None:
    shared = after(POLICY, [3.0, 2.0])
    before = dict(shared)
    assert POLICY.review(shared, closed([1.0])) != before
    assert shared == before


def test_thousands_of_clients_are_planned_for() -> None:
    members = [member(client, uplink=1e4 + client) for client in range(5000)]
    plan, _ = POLICY.plan({}, cohort(members))
    levels = [2 ** told["bits"] - 1 for told in plan.values()]
    assert len(levels) == 5000
    assert 14 < sum(levels) / 5000 <= 15


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 300}, r"at most 2\*\*max_bits - 1 = 255, got 300"),
        ({"max_bits": 15}, "less than or equal to 14"),
        ({"period": 1}, "greater than or equal to 2"),
        ({"sensitivity": -1.0}, "greater than or equal to 0"),
        ({"codec": "uniform(levels={levels})"}, "codec with levels = 1: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdaGQ.model_validate(fields)
