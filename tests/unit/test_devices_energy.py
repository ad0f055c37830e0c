import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.devices.energy import (
    can_afford,
    compute_joules,
    download_joules,
    drain,
    idle_joules,
    tail_joules,
    upload_joules,
)
from tightwire.devices.population import Population

LTE = Population(tiers={"old-phone-lte": 1.0}, spread=0).profile(0, 0)


def test_energy_is_linear_in_flops_bytes_bursts_and_seconds() -> None:
    assert compute_joules(1e9, LTE) == pytest.approx(4.77, rel=1e-3)
    assert upload_joules(10**6, LTE) == pytest.approx(5.22, rel=1e-3)
    assert download_joules(10**6, LTE) == pytest.approx(1.21, rel=2e-3)
    assert tail_joules(LTE, 2) == pytest.approx(2 * 12.27, rel=1e-3)
    assert idle_joules(LTE, 100.0) == pytest.approx(27.0)


def test_nothing_done_costs_nothing() -> None:
    assert compute_joules(0, LTE) == upload_joules(0, LTE) == tail_joules(LTE, 0) == idle_joules(LTE, 0.0) == 0


def test_below_two_megabytes_the_tail_costs_more_than_the_bytes() -> None:
    assert upload_joules(2_000_000, LTE) < tail_joules(LTE, 1) < upload_joules(3_000_000, LTE)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_a_wait_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="cannot wait"):
        idle_joules(LTE, seconds)


def test_a_negative_number_of_bursts_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 transfers"):
        tail_joules(LTE, -1)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1e6) | st.just(math.inf), st.floats(0, 1e6))
def test_a_battery_drains_to_nothing_and_not_below(battery: float, joules: float) -> None:
    left = drain(battery, joules)
    assert 0 <= left <= battery
    if can_afford(battery, joules):
        assert left == battery - joules
    else:
        assert left == 0


@pytest.mark.parametrize("joules", [-1.0, math.inf, math.nan])
def test_a_drain_that_makes_no_sense_is_refused(joules: float) -> None:
    with pytest.raises(ValueError, match="cannot drain"):
        drain(1.0, joules)
