"""Mahimahi's traces: reading them, refusing what is none, and replaying them for ever."""

import math
import os
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.devices.links import arrives
from tightwire.devices.traces import LONGEST, PACKET_BITS, Recording, Replay, pairs, pick, read, recording
from tightwire.errors import DataError

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
modest = settings(deadline=None, max_examples=100)

schedules = st.lists(st.integers(0, 3000), min_size=1, max_size=60).map(sorted).filter(lambda ms: ms[-1] > 0)
replays = st.builds(Replay, schedules.map(recording), st.integers(0, 5000), st.floats(0.01, 100))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "link.up"
    path.write_text(text, encoding="utf-8")
    return path


def read_or_refusal(path: Path) -> tuple[Recording | None, str]:
    try:
        return read(path), ""
    except DataError as refusal:
        return None, str(refusal)


def exactly(channel: Replay, start: float, end: float) -> float:
    """Bits that a channel carries between two seconds, summed up by its segments."""
    bits, now = 0.0, start
    for until, rate in channel.segments(start):
        bits += rate * max(0.0, min(until, end) - now)
        now = until
        if until >= end:
            break
    return bits


def test_opportunities_become_rates_over_tenths_of_a_second(tmp_path: Path) -> None:
    tape = read(written(tmp_path, "0\n99\n100\n350\n350\n400\n"))
    assert tape.edges == (100, 200, 300, 400)
    assert tape.bits == tuple(PACKET_BITS * packets for packets in (2, 3, 3, 6))
    assert (tape.period, tape.mean, tape.peak) == (400, 180_000.0, 360_000.0)


def test_the_last_bin_takes_in_what_is_left_of_the_period(tmp_path: Path) -> None:
    tape = read(written(tmp_path, "50\n199\n200\n299\n"))
    assert tape.edges == (100, 299)
    assert tape.bits == (12_000, 48_000)


def test_neighbouring_bins_of_one_rate_become_one_run(tmp_path: Path) -> None:
    tape = read(written(tmp_path, "".join(f"{ms}\n" for ms in (10, 120, 230, 770, 1000))))
    assert tape.edges == (300, 700, 800, 900, 1000)
    assert tape == recording([10, 120, 230, 770, 1000])


@pytest.mark.parametrize("text", ["5\r\n250\r\n", "5\n250", "005\n250\n"])
def test_line_ends_and_leading_zeros_do_not_matter(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, text)) == recording([5, 250])


@modest
@given(schedules)
def test_a_recording_carries_every_packet_once_a_period(schedule: list[int]) -> None:
    tape = recording(schedule)
    assert tape.bits[-1] == PACKET_BITS * len(schedule)
    assert tape.period == schedule[-1]
    assert all(early < late for early, late in pairwise((0, *tape.edges)))
    assert all(early <= late for early, late in pairwise((0, *tape.bits)))
    fastest = max((run[3] - run[2]) * 1000 / (run[1] - run[0]) for run in map(tape.run, range(len(tape.edges))))
    assert tape.peak == fastest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give a mahimahi trace"),
        ("\n", "line 1: received an empty line; should be an integer of milliseconds"),
        ("1\n\n2\n", "line 2: received an empty line"),
        ("1\n2\n\n", "line 3: received an empty line"),
        ("1\n2.5\n", "line 2: received '2.5'; should be an integer"),
        ("1\n-2\n", "line 2: received '-2'"),
        ("1 2\n", "line 1: received '1 2'"),
        ("1_000\n", "line 1: received '1_000'"),
        ("ms\n", "line 1: received 'ms'"),
        ("\u0663\n", r"line 1: received '\\\\xd9\\\\xa3'"),
        ("7\n6\n", "line 2: 6 comes after 7; milliseconds must not descend"),
        ("0\n0\n", "line 2: the last time is 0 ms; a trace must last for more than that"),
        (f"{LONGEST + 1}\n", f"line 1: received {LONGEST + 1}; should be at most {LONGEST} ms"),
        ("1\n" + "9" * 10_000, "line 2: received 9{40}; should be at most"),
        ("x" * 10_000, "line 1: received 'x{40}'; should be"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line_that_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=message) as refusal:
        read(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


@modest
@given(st.binary(max_size=40))
def test_any_bytes_are_a_trace_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "link.up"
    path.write_bytes(content)
    tape, refusal = read_or_refusal(path)
    assert "\n" not in refusal
    assert tape is None or tape.period == int(content.split()[-1])


def test_a_long_silence_costs_no_memory(tmp_path: Path) -> None:
    tape = read(written(tmp_path, f"1\n{LONGEST}\n"))
    assert len(tape.edges) == 3
    assert arrives(Replay(tape, 0, 1.0), 0.0, 1501) > LONGEST / 1000 - 1


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.up: cannot be read \(No such file or directory\)"):
        read(tmp_path / "none.up")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = written(tmp_path, "100\n")
    first = read(path)
    assert read(path) is first
    path.write_text("200\n")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert read(path).period == 200


def test_a_folder_gives_its_pairs_by_name(tmp_path: Path) -> None:
    for name in ("b.up", "b.down", "a.down", "a.up", "notes.txt"):
        (tmp_path / name).write_text("1\n")
    assert pairs(tmp_path) == tuple((tmp_path / f"{name}.up", tmp_path / f"{name}.down") for name in "ab")


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no traces; give a folder with pairs"):
        pairs(tmp_path)
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    (lonely / "a.down").write_text("1\n")
    with pytest.raises(DataError, match=r"a\.down has no counterpart"):
        pairs(lonely)
    with pytest.raises(DataError, match="cannot be read"):
        pairs(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        pairs(lonely / "a.down")


@modest
@given(replays, st.floats(0, 1e5))
def test_segments_go_on_from_each_other_and_never_end(channel: Replay, start: float) -> None:
    ends = [until for until, _ in islice(channel.segments(start), 200)]
    assert ends[0] > start
    assert all(early < late for early, late in pairwise(ends))
    assert all(rate >= 0 for _, rate in islice(channel.segments(start), 200))
    assert max(rate for _, rate in islice(channel.segments(start), 200)) == pytest.approx(channel.peak)


@modest
@given(replays, st.floats(0, 1e4), st.integers(1, 20))
def test_where_segments_end_does_not_depend_on_where_one_looks_from(channel: Replay, start: float, on: int) -> None:
    segments = list(islice(channel.segments(start), on + 5))
    middle = segments[on][0]
    assert list(islice(channel.segments(middle), 4)) == segments[on + 1 : on + 5]


@modest
@given(replays, st.floats(0, 1e4), st.integers(1, 40_000))
def test_the_short_cut_arrives_as_soon_as_the_segments_have_carried_all(
    channel: Replay, start: float, size: int
) -> None:
    end = arrives(channel, start, size)
    rounding = channel.peak * 8 * math.ulp(start + end)
    assert exactly(channel, start, end) == pytest.approx(8 * size, rel=1e-9, abs=rounding)
    assert exactly(channel, start, end - 1e-3) < 8 * size


@modest
@given(replays, st.integers(0, 10**4), st.integers(1, 10**6))
def test_whole_periods_take_whole_periods(channel: Replay, start: int, loops: int) -> None:
    tape, plain = channel.recording, Replay(channel.recording, channel.offset, 1.0)
    begun = arrives(plain, float(start), 1)  # not in a silence
    size = tape.bits[-1] // 8 * loops
    assert arrives(plain, begun, size) - begun == pytest.approx(tape.period * loops / 1000, rel=1e-9)


def test_the_last_bit_of_a_period_does_not_wait_for_the_next() -> None:
    tape = recording([50, 1000, 1000])
    silent = Replay(tape, 100, 1.0)  # begins after the first packet
    assert arrives(silent, 0.0, 3000) == 0.9
    assert arrives(silent, 0.0, 4500) == 1.0
    assert arrives(silent, 0.0, 4500 * 10**9) == pytest.approx(0.9 + 1e9 - 0.8)


def test_a_transfer_over_many_periods_is_as_quick_to_work_out_as_over_one() -> None:
    channel = Replay(recording([1]), 0, 1e-6)
    assert arrives(channel, 0.0, 10**12) == pytest.approx(8e12 / 12)
    assert math.isfinite(arrives(channel, 0.0, 10**18))


def test_picks_are_below_the_count_and_even() -> None:
    assert [pick(key, 4) for key in (0, 2**62 - 1, 2**62, 2**63, 2**64 - 1)] == [0, 0, 1, 2, 3]


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded traces are not on this machine")
def test_recorded_traces_are_read_with_the_rates_of_their_lines() -> None:
    found = pairs(RECORDED)
    assert len(found) >= 4
    for path in (path for pair in found for path in pair):
        lines = path.read_text().split()
        tape: Recording = read(path)
        assert tape.mean == pytest.approx(len(lines) * 12_000_000 / int(lines[-1]))
        channel = Replay(tape, 12_345, 1.0)
        assert exactly(channel, 7.0, arrives(channel, 7.0, 3_000_000)) == pytest.approx(24e6, rel=1e-9)
