from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_views import SCHEMA, cohort, member, observed, outcome
from tightwire.policies.bcrs import Bcrs

POLICY = Bcrs(ratio=0.02)
WHOLE = 4.0 * SCHEMA.size


@given(uplinks=st.lists(st.floats(1e2, 1e9), min_size=1, max_size=8), latency=st.floats(0, 1))
def test_everybody_takes_as_long_as_the_slowest_or_sends_everything(uplinks: list[float], latency: float) -> None:
    members = [member(c, uplink=uplink, latency=latency * (c % 2)) for c, uplink in enumerate(uplinks)]
    plan, shared = POLICY.plan({}, cohort(members))
    slowest = max(m.latency + 8 * 0.02 * WHOLE / m.uplink for m in members)
    for m in members:
        size = plan[m.client]["bytes"]
        assert 0.02 * WHOLE * (1 - 1e-9) <= size <= WHOLE
        assert m.latency + 8 * size / m.uplink == pytest.approx(slowest) or size == WHOLE
    assert shared == {}


def test_the_slowest_sends_the_base_ratio_and_a_quicker_one_more() -> None:
    plan, _ = POLICY.plan({}, cohort([member(1, uplink=1e4), member(2, uplink=3e4)]))
    slow, quick = (POLICY.decide(POLICY.initial(), observed(told=plan[client]))[0] for client in (1, 2))
    assert slow.predicted_bytes is not None
    assert 0.75 * 0.02 * WHOLE <= slow.predicted_bytes <= 0.02 * WHOLE
    assert (quick.predicted_bytes or 0) > 2 * slow.predicted_bytes


def test_a_rate_that_was_measured_counts_and_not_the_promised_one() -> None:
    quick = member(1, uplink=1e6, state={"rate": 1e3})
    plan, _ = POLICY.plan({}, cohort([quick, member(2, uplink=1e4)]))
    assert plan[1]["bytes"] == pytest.approx(0.02 * WHOLE)
    assert plan[2]["bytes"] == pytest.approx(0.2 * WHOLE)
    newcomer = POLICY.plan({}, cohort([replace(quick, state={"rate": 0.0}), member(2, uplink=1e4)]))[0]
    assert newcomer[2]["bytes"] == pytest.approx(0.02 * WHOLE)


def test_what_a_client_learns_reaches_the_plan() -> None:
    decision, state = POLICY.decide(POLICY.initial(), observed(uplink=1e4))
    state = POLICY.learn(state, outcome(decision, 1000, 0.05 + 8.0))
    assert POLICY.dump(state)["rate"] < 1e4


def test_dead_links_hold_nobody_up_and_nobody_is_told_anything_in_an_empty_cohort() -> None:
    plan, _ = POLICY.plan({}, cohort([member(1, uplink=0.0), member(2, uplink=1e4)]))
    assert plan[1] == {"bytes": 0.0}
    assert plan[2]["bytes"] == pytest.approx(0.02 * WHOLE)
    assert POLICY.plan({}, cohort([]))[0] == {}


def test_without_a_word_from_the_server_the_base_ratio_is_sent() -> None:
    decision = POLICY.decide(POLICY.initial(), observed())[0]
    assert decision.predicted_bytes == pytest.approx(0.02 * WHOLE, rel=0.25)
