"""Uploads on their way: what gets through, when, and at what cost."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightwire.devices.links import Steady
from tightwire.federation.passage import Upload, passages
from tightwire.federation.tasks import Passage

MEGABIT = Steady(1e6)
USUAL = Upload(
    size=100_000,
    resent=0,
    begins=10.0,
    latency=0.05,
    channel=MEGABIT,
    joules_per_byte=1e-5,
    joules_per_second=0.1,
    tail=2.0,
)


def alone(upload: Upload, clock: float = 1000.0) -> Passage:
    return passages([upload], clock, None)[0]


def test_a_whole_upload_takes_its_bytes_over_the_rate_and_its_latency() -> None:
    way = alone(USUAL)
    assert (way.bytes, way.resent) == (100_000, 0)
    assert way.seconds == pytest.approx(0.85)
    assert way.arrival == pytest.approx(10.85)
    assert way.joules == pytest.approx(100_000 * 1e-5 + 0.8 * 0.1 + 2.0)


def test_lost_packets_take_time_and_energy_besides_the_frame() -> None:
    way = alone(replace(USUAL, resent=25_000))
    assert (way.bytes, way.resent) == (100_000, 25_000)
    assert way.seconds == pytest.approx(1.05)
    assert way.joules == pytest.approx(125_000 * 1e-5 + 1.0 * 0.1 + 2.0)


def test_who_goes_away_in_the_middle_has_sent_what_got_through() -> None:
    way = alone(replace(USUAL, leaves=10.2))
    assert way.arrival is None
    assert way.bytes == pytest.approx(25_000, abs=1)
    assert way.seconds == pytest.approx(0.2)
    assert way.joules == pytest.approx(25_000 * 1e-5 + 0.2 * 0.1 + 2.0, rel=1e-4)


def test_who_is_gone_before_has_sent_nothing_and_spent_nothing() -> None:
    assert alone(replace(USUAL, leaves=10.0)) == Passage()
    assert alone(replace(USUAL, leaves=3.0)) == Passage()


def test_a_drop_out_has_sent_its_share() -> None:
    assert alone(replace(USUAL, drops=0.5)).bytes == pytest.approx(50_000, abs=1)
    assert alone(replace(USUAL, drops=0.0)) == Passage()


def test_an_empty_battery_cuts_the_upload_and_never_gives_more_than_it_has() -> None:
    spent = alone(USUAL).joules
    way = alone(replace(USUAL, joules=spent / 2))
    assert way.arrival is None
    assert way.bytes == pytest.approx(50_000, abs=1)
    assert way.joules <= spent / 2
    assert alone(replace(USUAL, joules=0.0)) == Passage()


def test_what_is_lost_of_a_link_with_losses_is_split_in_proportion() -> None:
    way = alone(replace(USUAL, resent=100_000, drops=0.5))
    assert way.bytes == pytest.approx(50_000, abs=1)
    assert way.resent == pytest.approx(50_000, abs=1)


def test_a_shared_link_slows_all_who_send_at_the_same_time() -> None:
    ways = passages([USUAL] * 10, 0.0, 2e6)
    assert all(way.arrival == pytest.approx(10 + 4.0 + 0.05) for way in ways)
    free = passages([USUAL] * 10, 0.0, 1e9)
    assert free == passages([USUAL] * 10, 0.0, None)


@given(
    leaves=st.floats(0, 30),
    drops=st.none() | st.floats(0, 1),
    joules=st.floats(0, 10) | st.just(math.inf),
    size=st.integers(1, 10**6),
    resent=st.integers(0, 10**6),
    clock=st.floats(0, 1e7),
)
def test_nobody_sends_more_than_there_is_or_spends_more_than_it_has(
    leaves: float, drops: float | None, joules: float, size: int, resent: int, clock: float
) -> None:
    way = alone(replace(USUAL, leaves=leaves, drops=drops, joules=joules, size=size, resent=resent), clock)
    assert 0 <= way.bytes <= size
    assert 0 <= way.resent <= resent + 1
    assert 0 <= way.joules <= joules
    assert way.seconds >= 0
    assert (way.arrival is None) == (way.bytes < size) or way.bytes == size
