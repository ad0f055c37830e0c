"""Sharing the server's link: fair, nothing lost, nothing invented, whatever the order."""

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.devices.links import Channel, Steady, arrives
from tightwire.devices.sharing import Transfer, level, share
from tightwire.devices.traces import Replay, recording
from tightwire.keys import generator

modest = settings(deadline=None, max_examples=100)


@dataclass(frozen=True)
class Steps:
    """A channel whose rate changes at whole seconds."""

    ends: tuple[int, ...]
    rates: tuple[float, ...]
    """One more; the last holds for ever."""

    def segments(self, start: float) -> Iterator[tuple[float, float]]:
        for until, rate in zip((*self.ends, math.inf), self.rates, strict=True):
            if until > start:
                yield until, rate


@st.composite
def stepped(draw: st.DrawFn) -> Steps:
    ends = sorted(draw(st.sets(st.integers(1, 40), max_size=4)))
    rates = draw(st.lists(st.sampled_from([0.0, 8.0, 40.0, 160.0]), min_size=len(ends), max_size=len(ends)))
    return Steps(tuple(ends), (*rates, draw(st.sampled_from([8.0, 40.0, 160.0]))))


tapes = st.lists(st.integers(0, 900), min_size=1, max_size=9).map(lambda ms: recording([*sorted(ms), 901]))
steadies = st.floats(1, 1e4).map(Steady)
channels = stepped() | steadies | st.builds(Replay, tapes, st.integers(0, 900), st.floats(0.1, 1))
groups = st.lists(st.builds(Transfer, st.floats(0, 30), st.integers(0, 3000), channels), min_size=1, max_size=7)
plain_groups = st.lists(
    st.builds(Transfer, st.integers(0, 30).map(float), st.integers(0, 300), stepped()), min_size=1, max_size=6
)
capacities = st.floats(1000, 4e4)


def filled(caps: dict[int, Fraction], capacity: Fraction) -> dict[int, Fraction]:
    """Max-min fair rates by the textbook: raise all alike, and stop those that are full, until nothing is left."""
    rates = dict.fromkeys(caps, Fraction(0))
    rising = {i for i, cap in caps.items() if cap > 0}
    while rising and capacity > 0:
        step = min(capacity / len(rising), *(caps[i] - rates[i] for i in rising))
        for i in rising:
            rates[i] += step
        capacity -= step * len(rising)
        rising = {i for i in rising if rates[i] < caps[i]}
    return rates


def reference(transfers: list[Transfer], capacity: float) -> list[float]:
    """`share` of stepped channels in exact fractions, from one second or end of a transfer to the next."""
    left = {i: Fraction(8 * transfer.size) for i, transfer in enumerate(transfers)}
    done = {i: Fraction(transfer.start) for i, transfer in enumerate(transfers) if transfer.size == 0}
    now = Fraction(0)
    while len(done) < len(transfers):
        caps = {}
        for i, transfer in enumerate(transfers):
            if i not in done and transfer.start <= now:
                caps[i] = Fraction(next(transfer.channel.segments(float(math.floor(now))))[1])
        rates = filled(caps, Fraction(capacity))
        second = Fraction(math.floor(now) + 1)
        until = min([second, *(now + left[i] / rate for i, rate in rates.items() if rate > 0)])
        for i, rate in rates.items():
            left[i] -= rate * (until - now)
            if left[i] == 0:
                done[i] = until
        now = until
    return [float(done[i]) for i in range(len(transfers))]


@settings(deadline=None, max_examples=100)
@given(plain_groups, st.integers(10, 400).map(float))
def test_transfers_end_as_in_exact_arithmetic(transfers: list[Transfer], capacity: float) -> None:
    assert share(transfers, capacity) == pytest.approx(reference(transfers, capacity), rel=1e-9)


@modest
@given(groups, capacities, st.randoms(use_true_random=False))
def test_the_order_of_transfers_does_not_matter(transfers: list[Transfer], capacity: float, rng: random.Random) -> None:
    order = list(range(len(transfers)))
    rng.shuffle(order)
    done = share(transfers, capacity)
    assert share([transfers[i] for i in order], capacity) == [done[i] for i in order]


@modest
@given(groups)
def test_without_a_limit_each_is_alone(transfers: list[Transfer]) -> None:
    alone = [arrives(t.channel, t.start, t.size) for t in transfers]
    assert share(transfers, None) == alone
    assert share(transfers, 1e12) == pytest.approx(alone, rel=1e-9)


@modest
@given(st.lists(st.builds(Transfer, st.floats(0, 30), st.integers(0, 3000), stepped() | steadies), max_size=9))
def test_a_link_that_is_never_full_leaves_no_trace_of_rounding(transfers: list[Transfer]) -> None:
    assert share(transfers, 1e12) == share(transfers, None)


@modest
@given(groups, capacities)
def test_nobody_is_faster_than_alone_or_than_the_link(transfers: list[Transfer], capacity: float) -> None:
    done = share(transfers, capacity)
    for transfer, end in zip(transfers, done, strict=True):
        alone = arrives(transfer.channel, transfer.start, transfer.size)
        assert end >= alone * (1 - 1e-9)
        assert end >= (transfer.start + 8 * transfer.size / capacity) * (1 - 1e-9)
    first = min(transfer.start for transfer in transfers)
    bits = 8 * sum(transfer.size for transfer in transfers)
    assert max(done) >= (first + bits / capacity) * (1 - 1e-9)


@modest
@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
    st.floats(10, 1e6),
    st.floats(1.0, 2.0),
)
def test_a_full_link_is_used_to_the_last_bit(sizes: list[int], capacity: float, more: float) -> None:
    """While each could fill it alone, all are through when one transfer of all bytes would be."""
    done = share([Transfer(5.0, size, Steady(capacity * more)) for size in sizes], capacity)
    assert max(done) == pytest.approx(5.0 + 8 * sum(sizes) / capacity, rel=1e-9)
    assert [end for _, end in sorted(zip(sizes, done, strict=True))] == sorted(done)


@modest
@given(groups, capacities, st.floats(1, 3))
def test_a_wider_link_makes_nobody_slower(transfers: list[Transfer], capacity: float, factor: float) -> None:
    for wide, narrow in zip(share(transfers, capacity * factor), share(transfers, capacity), strict=True):
        assert wide <= narrow * (1 + 1e-9)


@modest
@given(st.floats(0, 30), st.integers(0, 3000), channels, st.integers(2, 6), capacities)
def test_equals_are_treated_equally(start: float, size: int, channel: Channel, count: int, capacity: float) -> None:
    assert len(set(share([Transfer(start, size, channel)] * count, capacity))) == 1


@modest
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(1, 1e7))
def test_the_level_uses_all_of_the_capacity_or_holds_nobody_back(caps: list[float], capacity: float) -> None:
    height = level(np.array(caps), capacity)
    if height == math.inf:
        assert math.fsum(caps) <= capacity * (1 + 1e-12)
    else:
        assert math.fsum(min(cap, height) for cap in caps) == pytest.approx(capacity)
        assert height <= max(caps)


def test_what_the_slow_leave_over_goes_to_the_fast() -> None:
    slow, middle, fast = Steady(8.0), Steady(40.0), Steady(1e6)
    done = share([Transfer(0.0, 10, slow), Transfer(0.0, 10, middle), Transfer(0.0, 10, fast)], 80.0)
    assert done == pytest.approx([10.0, 20 / 9, 20 / 9])  # 8, 36 and 36 bit/s
    done = share([Transfer(0.0, 10, slow), Transfer(1.0, 10, fast)], 80.0)
    assert done == pytest.approx([10.0, 1 + 80 / 72])


def test_one_that_stays_silent_never_ends_and_holds_nobody_up() -> None:
    silent = Steps((1,), (8.0, 0.0))
    assert share([Transfer(0.0, 2, silent), Transfer(0.0, 5, Steady(8.0))], 12.0) == [math.inf, pytest.approx(5.25)]
    assert share([Transfer(0.0, 1, silent)], 12.0) == [1.0]


def test_nothing_is_through_at_once_and_nobody_makes_no_times() -> None:
    assert share([Transfer(3.0, 0, Steady(1.0)), Transfer(0.0, 1, Steady(8.0))], 4.0) == [3.0, 2.0]
    assert share([], 1.0) == share([], None) == []


def test_a_thousand_transfers_take_well_under_a_second() -> None:
    draws = generator(0, "transfers").random((1000, 3)).tolist()
    transfers = [
        Transfer(10 * begun, 10**4 + int(10**6 * size), Steady(1e4 + 1e7 * rate)) for begun, size, rate in draws
    ]
    begun = time.process_time()
    done = share(transfers, 5e7)
    assert time.process_time() - begun < 2.0
    assert max(done) < math.inf


@pytest.mark.parametrize("capacity", [0.0, -1.0, math.nan])
def test_a_capacity_that_makes_no_sense_is_refused(capacity: float) -> None:
    with pytest.raises(ValueError, match="it must be positive, or None for no limit"):
        share([], capacity)


@pytest.mark.parametrize(("start", "size"), [(math.inf, 1), (math.nan, 1), (0.0, -1)])
def test_a_transfer_that_makes_no_sense_is_refused(start: float, size: int) -> None:
    with pytest.raises(ValueError, match="size must be at least 0 and its start finite"):
        share([Transfer(start, size, Steady(1.0))], 1.0)
