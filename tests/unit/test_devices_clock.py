import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.devices.clock import (
    CODEC_FLOPS,
    Arrival,
    close_round,
    codec_seconds,
    compute_seconds,
)
from tightwire.devices.population import Population

seconds = st.none() | st.floats(0, 100) | st.sampled_from([1.0, 2.0, 5.0])
rounds = st.lists(seconds, max_size=12).map(lambda times: [Arrival(c, s) for c, s in enumerate(times)])
deadlines = st.none() | st.floats(0.01, 120) | st.sampled_from([1.0, 2.0, 5.0])
modest = settings(deadline=None, max_examples=200)


@modest
@given(rounds, st.integers(0, 14), deadlines, st.randoms(use_true_random=False))
def test_the_order_of_arrivals_does_not_matter(
    arrivals: list[Arrival], wanted: int, deadline: float | None, rng: random.Random
) -> None:
    shuffled = arrivals.copy()
    rng.shuffle(shuffled)
    expected = close_round(arrivals, wanted=wanted, deadline=deadline)
    assert close_round(shuffled, wanted=wanted, deadline=deadline) == expected


@modest
@given(rounds, st.integers(0, 14), deadlines)
def test_every_client_is_in_exactly_one_group(arrivals: list[Arrival], wanted: int, deadline: float | None) -> None:
    closing = close_round(arrivals, wanted=wanted, deadline=deadline)
    groups = closing.accepted + closing.late + closing.surplus + closing.lost
    assert sorted(groups) == [a.client for a in arrivals]
    assert len(closing.accepted) <= wanted
    assert not closing.surplus or len(closing.accepted) == wanted


@modest
@given(rounds, st.integers(0, 14), deadlines)
def test_a_round_is_never_longer_than_its_deadline_and_never_shorter_than_what_it_uses(
    arrivals: list[Arrival], wanted: int, deadline: float | None
) -> None:
    closing = close_round(arrivals, wanted=wanted, deadline=deadline)
    times = {a.client: a.seconds for a in arrivals}
    used = [t for c in closing.accepted if (t := times[c]) is not None]
    assert max(used, default=0.0) <= closing.seconds
    if deadline is not None:
        assert closing.seconds <= deadline
        finished = [t for c in closing.late if (t := times[c]) is not None]
        assert len(finished) == len(closing.late)
        assert all(t > deadline for t in finished)
    else:
        assert closing.late == ()
        assert closing.seconds == max(used, default=0.0)


@modest
@given(rounds, st.integers(0, 13), deadlines)
def test_wanting_more_never_shortens_a_round_and_never_drops_a_client(
    arrivals: list[Arrival], wanted: int, deadline: float | None
) -> None:
    fewer = close_round(arrivals, wanted=wanted, deadline=deadline)
    more = close_round(arrivals, wanted=wanted + 1, deadline=deadline)
    assert fewer.seconds <= more.seconds
    assert set(fewer.accepted) <= set(more.accepted)


@modest
@given(rounds, st.integers(0, 14), st.floats(0.01, 120), st.floats(0.01, 120))
def test_a_later_deadline_never_drops_a_client(
    arrivals: list[Arrival], wanted: int, first: float, second: float
) -> None:
    early = close_round(arrivals, wanted=wanted, deadline=min(first, second))
    late = close_round(arrivals, wanted=wanted, deadline=max(first, second))
    assert set(early.accepted) <= set(late.accepted)
    assert early.seconds <= late.seconds


def test_ties_go_to_the_lower_client() -> None:
    closing = close_round([Arrival(2, 1.0), Arrival(1, 1.0), Arrival(0, 3.0)], wanted=1, deadline=None)
    assert (closing.accepted, closing.surplus, closing.seconds) == ((1,), (0, 2), 1.0)


def test_an_arrival_on_the_deadline_is_in_time() -> None:
    assert close_round([Arrival(0, 5.0)], wanted=1, deadline=5.0).accepted == (0,)


def test_a_lost_client_holds_up_the_round_until_the_deadline_only() -> None:
    arrivals = [Arrival(0, 2.0), Arrival(1, None)]
    assert close_round(arrivals, wanted=2, deadline=9.0).seconds == 9.0
    assert close_round(arrivals, wanted=2, deadline=None).seconds == 2.0
    assert close_round(arrivals, wanted=1, deadline=9.0).seconds == 2.0


def test_when_everybody_has_arrived_the_round_does_not_wait_for_more() -> None:
    assert close_round([Arrival(0, 2.0)], wanted=5, deadline=9.0).seconds == 2.0


def test_a_late_client_holds_up_the_round_until_the_deadline() -> None:
    closing = close_round([Arrival(0, 2.0), Arrival(1, 30.0)], wanted=2, deadline=9.0)
    assert (closing.seconds, closing.accepted, closing.late) == (9.0, (0,), (1,))


def test_a_round_without_anybody_takes_no_time() -> None:
    assert close_round([], wanted=0, deadline=9.0).seconds == 0.0
    assert close_round([], wanted=3, deadline=9.0).seconds == 0.0


@pytest.mark.parametrize(
    ("arrivals", "wanted", "deadline", "message"),
    [
        ([], -1, None, "wanted is -1"),
        ([], 1, 0.0, "deadline is 0.0"),
        ([], 1, math.nan, "deadline is nan"),
        ([Arrival(3, 1.0), Arrival(3, 2.0)], 1, None, "arrives twice"),
        ([Arrival(3, -1.0)], 1, None, "client 3 arrives after -1.0 s"),
        ([Arrival(3, math.nan)], 1, None, "client 3 arrives after nan s"),
    ],
)
def test_a_round_that_makes_no_sense_is_refused(
    arrivals: list[Arrival], wanted: int, deadline: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        close_round(arrivals, wanted=wanted, deadline=deadline)


def test_work_takes_flops_over_flops_a_second() -> None:
    pi = Population(tiers={"pi4-wifi": 1.0}, spread=0).profile(0, 0)
    assert compute_seconds(16e9, pi) == 2.0
    assert codec_seconds(10**9, 3, pi) == 3 * CODEC_FLOPS / 8
    assert codec_seconds(10**9, 0, pi) == 0
