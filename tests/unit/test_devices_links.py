"""Links: what their channels carry, and when transfers over them are through."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tightwire.devices.draws import lognormal
from tightwire.devices.links import (
    AnyLink,
    AutoRegressive,
    Channel,
    Channels,
    Constant,
    LogNormal,
    Steady,
    Trace,
    arrives,
    carried,
    peak,
    through,
)
from tightwire.devices.population import Population
from tightwire.devices.traces import Replay, read
from tightwire.errors import DataError
from tightwire.keys import generator

PHONE = Population(tiers={"mid-phone-wifi": 1.0}, spread=0).profile(0, 0)
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
modest = settings(deadline=None, max_examples=100)


@dataclass(frozen=True)
class Steps:
    """A channel of a few steps; the last rate holds for ever."""

    steps: tuple[tuple[float, float], ...]
    """(seconds, bit/s), the first from second 0 on."""
    last: float

    def segments(self, start: float) -> Iterator[tuple[float, float]]:
        end = 0.0
        for seconds, rate in self.steps:
            end += seconds
            if end > start:
                yield end, rate
        yield math.inf, self.last


durations = st.floats(0.01, 50)
rates = st.just(0.0) | st.floats(1.0, 1e7)
steps = st.builds(Steps, st.lists(st.tuples(durations, rates), max_size=6).map(tuple), st.floats(1.0, 1e7))
channels = steps | st.floats(1.0, 1e9).map(Steady)


def steady(channels: Channels) -> tuple[float, float]:
    assert isinstance(channels.up, Steady)
    assert isinstance(channels.down, Steady)
    return channels.up.rate, channels.down.rate


def exactly(channel: Channel, start: float, end: float) -> float:
    """Bits that a channel carries between two seconds, summed up by its segments."""
    bits, now = 0.0, start
    for until, rate in channel.segments(start):
        bits += rate * (min(until, end) - now)
        now = until
        if until >= end:
            break
    return bits


def test_a_steady_transfer_takes_eight_bits_a_byte() -> None:
    assert arrives(Steady(8e6), 0.0, 1_000_000) == 1.0
    assert arrives(Steady(8e6), 5.0, 1_000_000) == 6.0
    assert arrives(Steady(1.0), 5.0, 0) == 5.0


def test_a_transfer_waits_while_nothing_gets_through() -> None:
    channel = Steps(((1.0, 8.0), (9.0, 0.0), (1.0, 16.0)), last=0.0)
    assert [arrives(channel, 0.0, size) for size in range(5)] == [0.0, 1.0, 10.5, 11.0, math.inf]
    assert arrives(channel, 0.5, 1) == 10.25
    assert arrives(channel, 3.0, 1) == 10.5
    assert [carried(channel, 0.0, end, 9) for end in (-1.0, 0.9, 1.0, 10.4, 10.5, 1e9)] == [0, 0, 1, 1, 2, 3]


@modest
@given(channels, st.floats(0, 200), st.integers(1, 10**7))
def test_a_transfer_ends_when_the_channel_has_carried_its_bits(channel: Channel, start: float, size: int) -> None:
    end = arrives(channel, start, size)
    assert end > start
    assert exactly(channel, start, end) == pytest.approx(8 * size, rel=1e-9, abs=1e9 * math.ulp(end))


@modest
@given(channels, st.floats(0, 200), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_bytes_are_never_through_earlier(channel: Channel, start: float, size: int, more: int) -> None:
    assert arrives(channel, start, size) <= arrives(channel, start, size + more)


@modest
@given(channels, st.floats(0, 200), st.floats(-1, 300), st.integers(0, 10**6))
def test_what_is_carried_by_a_second_is_the_most_that_arrives_by_then(
    channel: Channel, start: float, end: float, size: int
) -> None:
    count = carried(channel, start, end, size)
    assert 0 <= count <= size
    assert count == 0 or arrives(channel, start, count) <= end
    assert count == size or arrives(channel, start, count + 1) > end or end < start


@modest
@given(channels, st.floats(0, 200), st.integers(0, 10**6))
def test_all_is_carried_by_the_second_it_arrives(channel: Channel, start: float, size: int) -> None:
    assert carried(channel, start, arrives(channel, start, size), size) == size


def test_a_part_of_a_bit_can_be_left() -> None:
    assert through(Steady(2.0), 1.0, 0.5) == 1.25


@pytest.mark.parametrize(("start", "size"), [(0.0, -1), (math.nan, 1), (math.inf, 1)])
def test_a_transfer_that_makes_no_sense_is_refused(start: float, size: int) -> None:
    with pytest.raises(ValueError, match="cannot send"):
        arrives(Steady(1.0), start, size)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_steady_rate_is_positive_and_finite(rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        Steady(rate)


def test_nothing_is_promised_about_the_peak_of_an_unknown_channel() -> None:
    assert (peak(Steady(5.0)), peak(Steps((), 5.0))) == (5.0, math.inf)


def test_a_constant_link_is_the_profile() -> None:
    assert steady(Constant().channels(PHONE, round=9, client=3, seed=1)) == (PHONE.uplink, PHONE.downlink)


def test_a_log_normal_link_has_not_drifted() -> None:
    profile = Population().profile(0, seed=7)
    rates = steady(LogNormal().channels(profile, round=3, client=0, seed=7))
    assert rates == (22652703.72905742, 226438125.5436899)


def test_log_normal_links_vary_around_the_profile_by_round_client_and_direction() -> None:
    profile = Population().profile(0, 0)
    link = LogNormal(variation=0.3)
    rates = [steady(link.channels(profile, round=r, client=c, seed=0)) for r in range(60) for c in range(50)]
    assert len({up for up, _ in rates}) == len({down for _, down in rates}) == 3000
    ups = [math.log(up / profile.uplink) for up, _ in rates]
    downs = [math.log(down / profile.downlink) for _, down in rates]
    for logs in (ups, downs):
        assert abs(math.fsum(logs) / 3000) < 4 * 0.3 / math.sqrt(3000)
        assert math.sqrt(math.fsum(x * x for x in logs) / 3000) == pytest.approx(0.3, rel=0.06)
    correlation = math.fsum(u * d for u, d in zip(ups, downs, strict=True)) / 3000 / 0.09
    assert abs(correlation) < 4 / math.sqrt(3000)


@pytest.mark.parametrize("link", [LogNormal(variation=0), AutoRegressive(variation=0)])
def test_a_link_without_variation_is_the_profile(link: LogNormal | AutoRegressive) -> None:
    assert steady(link.channels(PHONE, round=9, client=0, seed=0)) == (PHONE.uplink, PHONE.downlink)


def series(link: AutoRegressive, client: int, rounds: int) -> list[float]:
    """The logarithm of an uplink's factor by round, over the variation."""
    ups = [steady(link.channels(PHONE, round=r, client=client, seed=0))[0] for r in range(1, rounds + 1)]
    return [math.log(up / PHONE.uplink) / link.variation for up in ups]


def test_an_autoregressive_link_follows_its_recursion() -> None:
    link, draws = AutoRegressive(variation=0.5, correlation=0.8), generator(3, "link-down-series", client=4)
    x = float(draws.standard_normal())
    for round_ in range(1, 6):
        down = steady(link.channels(PHONE, round=round_, client=4, seed=3))[1]
        assert down == PHONE.downlink * lognormal(0.5, x)
        x = 0.8 * x + math.sqrt(1 - 0.8 * 0.8) * float(draws.standard_normal())


def test_an_autoregressive_link_is_stationary_from_the_first_round_with_the_correlation_asked_for() -> None:
    link = AutoRegressive(variation=0.5, correlation=0.8)
    clients = [series(link, client, 6) for client in range(1500)]
    for round_ in range(6):
        square = math.fsum(x[round_] ** 2 for x in clients) / 1500
        assert abs(math.fsum(x[round_] for x in clients) / 1500) < 4 / math.sqrt(1500)
        assert abs(square - 1) < 4 * math.sqrt(2 / 1500)
    for lag in (1, 3):
        correlation = math.fsum(x[0] * x[lag] for x in clients) / 1500
        assert abs(correlation - 0.8**lag) < 4 * math.sqrt(2 / 1500)


def test_directions_of_an_autoregressive_link_differ() -> None:
    up, down = steady(AutoRegressive().channels(PHONE, round=1, client=0, seed=0))
    assert up / PHONE.uplink != down / PHONE.downlink


@pytest.mark.parametrize(("loss", "size", "resent"), [(0.0, 10**9, 0), (0.1, 9, 1), (0.1, 10, 2), (0.5, 7, 7)])
def test_lost_bytes_are_sent_again_and_rounded_up(loss: float, size: int, resent: int) -> None:
    assert Constant(loss=loss).resent(size) == resent


@modest
@given(st.floats(0, 0.99), st.integers(0, 10**10))
def test_of_all_bytes_sent_the_share_lost_is_the_loss(loss: float, size: int) -> None:
    resent = LogNormal(loss=loss).resent(size)
    assert resent == pytest.approx(size * loss / (1 - loss), abs=1, rel=1e-12)
    assert resent >= 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pairs of traces of different lengths and rates."""
    for name, step in (("a", 10), ("b", 25), ("c", 40)):
        (tmp_path / f"{name}.up").write_text("".join(f"{ms}\n" for ms in range(step, 4001, step)))
        (tmp_path / f"{name}.down").write_text("".join(f"{ms}\n" for ms in range(0, 5001, step // 5)))
    (tmp_path / "README").write_text("no trace")
    return tmp_path


def replays(channels: Channels) -> tuple[Replay, Replay]:
    assert isinstance(channels.up, Replay)
    assert isinstance(channels.down, Replay)
    return channels.up, channels.down


def test_each_client_replays_a_pair_from_its_own_place_whatever_the_round(folder: Path) -> None:
    link = Trace(folder=folder)
    pairs = [replays(link.channels(PHONE, round=1, client=c, seed=0)) for c in range(60)]
    assert pairs == [replays(link.channels(PHONE, round=8, client=c, seed=0)) for c in range(60)]
    assert all(up.offset == down.offset for up, down in pairs)
    assert len({up.offset for up, _ in pairs}) > 50
    known = [(read(folder / f"{name}.up"), read(folder / f"{name}.down")) for name in "abc"]
    assert {known.index((up.recording, down.recording)) for up, down in pairs} == {0, 1, 2}
    assert pairs != [replays(link.channels(PHONE, round=1, client=c, seed=1)) for c in range(60)]


@modest
@given(st.integers(0, 50))
def test_a_scaled_trace_has_the_profiles_rate_in_the_mean(
    tmp_path_factory: pytest.TempPathFactory, client: int
) -> None:
    folder = tmp_path_factory.mktemp("scaled")
    (folder / "x.up").write_text("3\n150\n150\n350\n")
    (folder / "x.down").write_text("700\n")
    up, down = replays(Trace(folder=folder).channels(PHONE, round=1, client=client, seed=0))
    assert exactly(up, 0.0, 35.0) / 35.0 == pytest.approx(PHONE.uplink)
    assert exactly(down, 0.0, 70.0) / 70.0 == pytest.approx(PHONE.downlink)
    up, _ = replays(Trace(folder=folder, scaled=False).channels(PHONE, round=1, client=client, seed=0))
    assert exactly(up, 0.0, 35.0) == pytest.approx(4 * 12_000 * 100)


def test_a_folder_and_its_files_by_name_are_the_same_link(folder: Path) -> None:
    names = [folder / name for name in "abc"]
    ups, downs = (tuple(name.with_suffix(end) for name in names) for end in (".up", ".down"))
    for client in range(9):
        listed = Trace(up=ups, down=downs).channels(PHONE, round=1, client=client, seed=0)
        assert listed == Trace(folder=folder).channels(PHONE, round=1, client=client, seed=0)


def test_damaged_traces_can_be_found_before_the_first_round(folder: Path) -> None:
    link = Trace(folder=folder)
    link.check()
    (folder / "b.down").write_text("1\n\n")
    with pytest.raises(DataError, match=r"b\.down, line 2: received an empty line"):
        link.check()
    Constant().check()


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded traces are not on this machine")
def test_recorded_links_carry_the_profiles_rate_in_the_long_run() -> None:
    for client in range(12):
        channels = Trace(folder=RECORDED).channels(PHONE, round=1, client=client, seed=0)
        size = round(PHONE.uplink / 8 * 100_000)
        assert arrives(channels.up, 0.0, size) == pytest.approx(100_000, rel=0.05)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"name": "constnat"}, "constnat"),
        ({"name": "lognormal", "variation": 3}, "less than or equal to 2"),
        ({"name": "autoregressive", "correlation": 1.0}, "less than 1"),
        ({"name": "constant", "loss": 1.0}, "less than 1"),
        ({"name": "constant", "variation": 0.3}, "Extra inputs"),
        ({"name": "trace"}, "no traces are given; give folder, or the lists up and down"),
        ({"name": "trace", "folder": "f", "up": ["a"], "down": ["b"]}, "both folder"),
        ({"name": "trace", "up": ["a", "b"], "down": ["c"]}, "up names 2 traces and down 1"),
    ],
)
def test_a_link_that_makes_no_sense_is_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter[Constant | LogNormal | AutoRegressive | Trace](AnyLink).validate_python(bad)


@modest
@given(steps, st.floats(0, 100), st.floats(0.01, 100), st.integers(1, 10**6))
def test_beginning_later_is_never_through_earlier(channel: Steps, start: float, wait: float, size: int) -> None:
    first, later = arrives(channel, start, size), arrives(channel, start + wait, size)
    assume(first < math.inf)
    assert later >= first or later == pytest.approx(first, rel=1e-12)
