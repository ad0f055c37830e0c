"""When clients are there: consistent in time, as frequent as asked for, and read as recorded."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tightwire.devices.availability import Always, AnyAvailability, Diurnal, Presence, Replayed
from tightwire.errors import DataError

HOUR, DAY = 3600, 86_400
modest = settings(deadline=None, max_examples=60)
diurnals = st.builds(
    Diurnal, mean_on=st.floats(0.1, 50), mean_off=st.floats(0.1, 50), swing=st.floats(1, 10), zones=st.floats(0, 24)
)


def spans(spec: Diurnal, client: int, until: int, seed: int = 0) -> list[tuple[float, float]]:
    """When a client is there from second 0 on, found by asking every minute while it is away."""
    found, now = [], 0.0
    while now < until:
        end = spec.until(client, now, seed)
        if end is not None:
            found.append((now, end))
            now = end
        else:
            now += 60
    return found


def test_always_is_for_ever() -> None:
    Always().check()
    assert Always().until(3, 1e9, 0) == math.inf


@modest
@given(diurnals, st.integers(0, 10**6), st.floats(0, 1e8), st.integers(0, 2**64))
def test_who_is_there_stays_until_the_second_told_and_is_away_then(
    spec: Diurnal, client: int, now: float, seed: int
) -> None:
    end = spec.until(client, now, seed)
    if end is not None:
        assert end > now
        assert end == int(end)
        for part in (0.25, 0.5, 0.999):
            assert spec.until(client, now + part * (end - now), seed) == end
        assert spec.until(client, end, seed) is None


@modest
@given(diurnals, st.integers(0, 99), st.floats(0, 1e7), st.floats(0, 1e7))
def test_the_answer_does_not_depend_on_what_was_asked_before(
    spec: Diurnal, client: int, now: float, other: float
) -> None:
    first = spec.until(client, now, 0)
    spec.until(client, other, 0)
    assert spec.until(client, now, 0) == first


def test_a_diurnal_client_has_not_drifted() -> None:
    ends = [Diurnal().until(client, 0.0, 7) for client in range(12)]
    assert ends == [None, 1914.0, 8357.0, None, 5352.0, None, None, None, None, None, None, 6404.0]


def test_clients_and_seeds_differ() -> None:
    assert spans(Diurnal(), 0, 5 * DAY) != spans(Diurnal(), 1, 5 * DAY)
    assert spans(Diurnal(), 0, 5 * DAY) != spans(Diurnal(), 0, 5 * DAY, seed=1)


def test_times_there_are_exponential_with_their_mean() -> None:
    spec = Diurnal(mean_on=1.5, mean_off=3.0)
    lengths = [(spec.until(c, 1e6, 0) or 1e6) - 1e6 for c in range(8000)]
    left = [length / HOUR for length in lengths if length > 0]
    mean = math.fsum(left) / len(left)
    assert abs(mean - 1.5) < 4 * 1.5 / math.sqrt(len(left))  # memoryless: what is left is as long as the whole
    for hours in (0.5, 3.0):
        share = sum(length > hours for length in left) / len(left)
        assert abs(share - math.exp(-hours / 1.5)) < 4 * 0.5 / math.sqrt(len(left))


def test_without_a_swing_the_share_that_is_there_is_that_of_the_means_from_second_0_on() -> None:
    spec = Diurnal(mean_on=2.0, mean_off=6.0, swing=1)
    for now in (0.0, 40_000.0, 100.0 * DAY):
        there = sum(spec.until(c, now, 0) is not None for c in range(4000)) / 4000
        assert abs(there - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)


def there_by_hour(spec: Diurnal, clients: int) -> list[float]:
    there = [0] * 24
    for client in range(clients):
        for hour in range(24):
            there[hour] += spec.until(client, 9.0 * DAY + hour * HOUR, 0) is not None
    return [number / clients for number in there]


def test_short_stays_swing_between_night_and_day_as_asked() -> None:
    """With stays of minutes, who is there follows the hazard of coming at once: a / (a + b)."""
    spec = Diurnal(mean_on=0.1, mean_off=0.9, swing=4.0, zones=0)
    shares = there_by_hour(spec, 3000)
    peak, trough = 1.6 / 0.9, 0.4 / 0.9
    for hour, hazard in ((0, peak), (12, trough)):
        due = hazard / (hazard + 10)
        assert abs(shares[hour] - due) < 4 * math.sqrt(due / 3000)
    assert shares[12] < shares[18] < shares[0]


def test_clients_all_around_the_world_level_the_day_out() -> None:
    near, far = (there_by_hour(Diurnal(zones=zones), 2500) for zones in (3, 24))
    assert max(near) / min(near) > 1.8
    assert max(far) / min(far) < 1.35


def test_a_client_is_there_less_often_by_day() -> None:
    time_there = [0.0] * 24
    for client in range(40):
        for start, end in spans(Diurnal(zones=0), client, 10 * DAY):
            for hour in range(int(start // HOUR), int(end // HOUR) + 1):
                time_there[hour % 24] += min(end, (hour + 1) * HOUR) - max(start, hour * HOUR)
    assert math.fsum(time_there[22:] + time_there[:4]) > 1.5 * math.fsum(time_there[10:16])


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "diurnall"},
        {"name": "diurnal", "mean_on": 0.0},
        {"name": "diurnal", "mean_off": math.inf},
        {"name": "diurnal", "swing": 0.5},
        {"name": "diurnal", "zones": 25},
        {"name": "always", "mean_on": 1.0},
        {"name": "replayed"},
    ],
)
def test_an_availability_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Always | Diurnal | Replayed](AnyAvailability).validate_python(bad)


def record(*spans: tuple[float, float], finish: float = 100) -> dict[str, Any]:
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    return {"duration": 7, "inactive": ends, "active": starts, "finish_time": finish, "model": "CPH1801"}


def written(tmp_path: Path, tree: object) -> Replayed:
    path = tmp_path / "clients.json"
    path.write_text(json.dumps(tree) if not isinstance(tree, str) else tree, encoding="utf-8")
    return Replayed(path=path)


def test_a_recorded_client_is_there_when_it_was_over_and_over(tmp_path: Path) -> None:
    spec = written(tmp_path, {"3834": record((10, 20), (50, 70))})
    for begun in (0, 100, 12_300):
        told = [spec.until(0, begun + second, 5) for second in (0, 10, 19.5, 20, 50, 69, 70, 99)]
        there = [None, 20, 20, None, 70, 70, None, None]
        assert told == [None if end is None else begun + end for end in there]


def test_records_go_round_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = {"b": (0, 4), "10": (0, 2), "9": (0, 1), "a": (0, 3)}
    spec = written(tmp_path, {name: record(span) for name, span in names.items()})
    assert [spec.until(client, 0.0, 0) for client in range(9)] == [1, 2, 3, 4, 1, 2, 3, 4, 1]


def test_times_that_follow_at_once_are_one(tmp_path: Path) -> None:
    spec = written(
        tmp_path,
        {
            "0": record((10, 20), (20, 30), (40, 40)),
            "1": record((0, 5), (90, 100)),
            "2": record((0, 60), (60, 100)),
            "3": record(),
        },
    )
    assert [spec.until(0, second, 0) for second in (10.0, 25.0, 40.0)] == [30, 30, None]
    assert [spec.until(1, second, 0) for second in (2.0, 95.0, 102.0, 50.0)] == [5, 105, 105, None]
    assert spec.until(2, 123.0, 0) == math.inf
    assert spec.until(3, 0.0, 0) is None


cuts = st.sets(st.integers(0, 1000), min_size=2, max_size=12).map(sorted).filter(lambda cuts: len(cuts) % 2 == 0)


@modest
@given(cuts, st.integers(0, 500), st.floats(0, 1e6))
def test_a_recorded_client_stays_until_the_second_told(cuts: list[int], rest: int, now: float) -> None:
    starts, ends, period = tuple(cuts[::2]), tuple(cuts[1::2]), float(cuts[-1] + rest)
    presence = Presence(starts, ends, period)
    end = presence.until(now)
    position = now % period
    assert (end is not None) == any(start <= position < stop for start, stop in zip(starts, ends, strict=True))
    if end is not None and end < math.inf:
        assert end > now
        assert presence.until(now + 0.5 * (end - now)) == end
        assert presence.until(end + 1e-6) is None or (end + 1e-6) % period >= starts[0]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    spec = written(tmp_path, {"0": record((0, 5))})
    assert spec.until(0, 0.0, 0) == 5
    assert spec.records() is spec.records()
    written(tmp_path, {"0": record((0, 5)), "1": record((0, 9))})
    assert spec.until(1, 0.0, 0) == 9


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ("[]", r"holds \[\]; give a JSON object of records"),
        ("{}", r"holds {}; give a JSON object"),
        ({"7": 5}, "client '7' is 5; should be a record"),
        ({"7": {"active": [], "inactive": []}}, "client '7': finish_time is missing; should be seconds, at least 1"),
        ({"7": record((0, 1), finish=0)}, "finish_time is 0"),
        ({"7": {**record((0, 1)), "finish_time": True}}, "finish_time is True"),
        ({"7": {**record((0, 1)), "active": None}}, "active is missing; should be a list of seconds"),
        ({"7": {**record((0, 1)), "active": [0, 1]}}, "active has 2 times and inactive 1; should be as many"),
        ({"7": {**record((0, 1)), "inactive": ["x"]}}, "inactive holds 'x'; should be seconds, from 0"),
        ({"7": record((0, math.nan))}, "inactive holds nan"),
        ({"7": record((0, 10**400))}, "inactive holds 1000"),
        ({"7": record((-1, 5))}, "active holds -1"),
        ({"7": record((5, 1))}, "active from 5 until 1 after 0, with finish_time 100; times should ascend"),
        ({"7": record((0, 50), (40, 60))}, "active from 40 until 60 after 50"),
        ({"7": record((0, 101))}, "active from 0 until 101 after 0, with finish_time 100"),
        ({"x" * 999: 5}, r"client 'x{39}\.\.\. is 5"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, tree: object, message: str) -> None:
    spec = written(tmp_path, tree)
    with pytest.raises(DataError, match=message) as refusal:
        spec.check()
    assert str(refusal.value).startswith(str(spec.path))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read \(No such file or directory\)"):
        Replayed(path=tmp_path / "none.json").until(0, 0.0, 0)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        Replayed(path=tmp_path).check()
