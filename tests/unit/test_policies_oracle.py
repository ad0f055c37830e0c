import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_views import SCHEMA, observed
from tightwire.policies.base import Decision, NoState
from tightwire.policies.oracle import Oracle
from tightwire.policies.predict import predict

POLICY = Oracle()


def steady(rate: float, outage: float = 0.0) -> Callable[[int, float], float]:
    """A link that is dead until `outage`, then of a constant rate."""
    return lambda size, begun: max(begun, outage) + 0.05 + 8 * size / rate


def decide(**changes: Any) -> Decision:  # Any: fields of an observation
    return POLICY.decide(NoState(), observed(**changes))[0]


def grid() -> tuple[Any, Any]:
    seen = observed()
    points = predict(seen.stats, POLICY.bits, POLICY.densities, "rans")
    return points.bytes, points.error / seen.stats.norm**2


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(20, 1e6), outage=st.floats(0, 70))
def test_with_a_deadline_no_point_of_less_error_would_arrive_in_time(rate: float, outage: float) -> None:
    future = steady(rate, outage)
    decision = decide(future=future)
    weights, errors = grid()
    arrivals = np.array([[future(math.ceil(w * 1.0299), 20.01) for w in row] for row in weights])
    if decision.codec is None:
        assert (arrivals > 59.9).all()
        return
    assert decision.predicted_bytes is not None
    assert decision.predicted_error is not None
    assert future(int(decision.predicted_bytes), 20.01) <= 60
    assert (errors[arrivals <= 59.9] >= decision.predicted_error * (1 - 1e-5)).all()


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(20, 1e6))
def test_without_a_deadline_no_point_makes_more_progress_a_second(rate: float) -> None:
    future = steady(rate)
    decision = decide(future=future, deadline=None)
    weights, errors = grid()
    arrivals = np.array([[future(math.ceil(w * 1.03), 20.01) for w in row] for row in weights])
    progress = np.maximum(1 - errors, 0) / arrivals
    assert decision.predicted_error is not None
    mine = (1 - decision.predicted_error) / future(math.ceil((decision.predicted_bytes or 0) * 1.03), 20.01)
    assert mine >= progress.max() * (1 - 1e-5)


def test_the_future_counts_and_not_the_promise() -> None:
    assert decide(uplink=1.0, future=steady(1e6)) == decide(uplink=1e9, future=steady(1e6))
    assert decide(uplink=1e6, future=steady(1e6, outage=61.0)).codec is None


def test_before_an_outage_less_is_sent() -> None:
    def breaks(size: int, begun: float) -> float:
        arrival = begun + 8 * size / 1e4
        return arrival if arrival <= 20.5 else arrival + 1000

    decision = decide(future=breaks)
    assert decision.predicted_bytes is not None
    assert decision.predicted_bytes * 1.03 <= 0.5 * 1e4 / 8
    assert decision.density < 1


@pytest.mark.parametrize(
    "changes",
    [{"energy": 0.0}, {"memory": 0.0}, {"elapsed": 61.0}, {"future": lambda size, begun: math.inf}],  # noqa: ARG005
    ids=["battery", "memory", "deadline", "away"],
)
def test_what_cannot_arrive_is_not_sent(changes: dict[str, Any]) -> None:
    for deadline in (60.0, None):
        if deadline is None and "elapsed" in changes:
            continue
        assert decide(**{"future": steady(1e6), "deadline": deadline, **changes}).codec is None


def test_zeros_take_the_fewest_bytes() -> None:
    decision = decide(vector=np.zeros(SCHEMA.size, np.float32), future=steady(1e5))
    seen = observed(np.zeros(SCHEMA.size, np.float32))
    assert decision.predicted_bytes == pytest.approx(
        predict(seen.stats, POLICY.bits, POLICY.densities, "rans").bytes.min(), rel=1e-5
    )


def test_it_says_that_it_is_clairvoyant_and_without_the_future_goes_by_the_promise() -> None:
    assert POLICY.clairvoyant
    assert decide(uplink=1e5) == decide(uplink=1.0, future=steady(1e5))
