import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_views import SCHEMA, observed, outcome
from tightwire.policies.base import Decision
from tightwire.policies.budget import DENSITIES
from tightwire.policies.kimad import Kimad
from tightwire.policies.lines import quantised
from tightwire.policies.monitor import Link
from tightwire.policies.predict import predict

POLICY = Kimad(seconds=5.0)


def decide(**changes: Any) -> Decision:  # Any: fields of an observation
    return POLICY.decide(POLICY.initial(), observed(**changes))[0]


@settings(deadline=None, max_examples=40)
@given(uplink=st.floats(300, 1e5))
def test_the_densest_frame_that_the_bandwidth_carries_is_sent(uplink: float) -> None:
    seen = observed(uplink=uplink)
    decision = decide(uplink=uplink)
    weights = predict(seen.stats, (8,), DENSITIES, "rans").bytes[0]
    fitting = [d for d, weight in zip(DENSITIES, weights, strict=True) if weight <= uplink * 5 / 8]
    assert decision.density == (max(fitting) if fitting else DENSITIES[0])


def test_a_deadline_shortens_the_time_for_communication() -> None:
    long = decide(uplink=3000.0, deadline=None)
    short = decide(uplink=3000.0, deadline=21.0)
    assert 0 < short.density < long.density
    assert short.predicted_seconds is not None
    assert short.predicted_seconds <= 1.0


def test_where_no_time_is_left_nothing_is_sent() -> None:
    assert decide(deadline=20.0).reason == "no time is left"
    assert decide(deadline=20.0).codec is None


def test_on_a_dead_link_the_sparsest_frame_is_tried() -> None:
    decision = decide(uplink=0.0)
    assert (decision.codec, decision.predicted_seconds) == (quantised(8, DENSITIES[0], "rans"), None)
    assert decision.reason == "sparsest that there is"


def test_on_a_fast_link_everything_is_sent() -> None:
    assert (decide(uplink=1e9).density, decide(uplink=1e9).reason) == (1.0, "densest that there is")


@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_the_rate_that_uploads_get_is_learnt_whatever_was_promised(factor: float) -> None:
    state = POLICY.initial()
    for _ in range(30):
        decision, state = POLICY.decide(state, observed(uplink=2e3))
        size = int(decision.predicted_bytes or 0)
        state = POLICY.learn(state, outcome(decision, size, 0.05 + 8 * size / (2e3 * factor)))
        state = POLICY.load(POLICY.dump(state))
    assert state.rate == pytest.approx(2e3 * factor, rel=0.01)
    assert (POLICY.decide(state, observed(uplink=2e3))[0].density > decide(uplink=2e3).density) == (factor > 1)


@given(seconds=st.floats(0, 1e12) | st.just(math.inf) | st.just(math.nan), size=st.integers(0, 10**9))
def test_one_upload_moves_the_rate_a_bounded_way(seconds: float, size: int) -> None:
    learnt = Link(1e4).after(outcome(decide(), size, seconds), 0.7)
    assert 1e4 / 32 <= learnt.rate <= 1e4 * 32


def test_a_rate_fades_towards_the_promise() -> None:
    link = Link(10.0)
    for _ in range(60):
        link = link.faded(1e4, 0.7)
    assert link.rate == pytest.approx(1e4, rel=0.01)
    assert Link(10.0).faded(0.0, 0.7) == Link(10.0)


def test_a_vector_of_zeros_is_sent_without_error() -> None:
    decision = decide(vector=np.zeros(SCHEMA.size, np.float32))
    assert decision.predicted_error == 0
