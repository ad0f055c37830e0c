import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tightwire.devices.battery import DAY, Battery
from tightwire.devices.population import Population

PHONE = Population(tiers={"old-phone-lte": 1.0}, spread=0).profile(0, 0)
MAINS = Population(tiers={"pi4-wifi": 1.0}, spread=0).profile(0, 0)
SENSOR = Population(tiers={"sensor-lora": 1.0}, spread=0).profile(0, 0)
NIGHTLY = Battery(charging=True)
times = st.floats(0, 30 * DAY)
clients = st.integers(0, 50)
modest = settings(deadline=None, max_examples=100)


def test_by_default_batteries_start_full_and_nothing_changes_them() -> None:
    battery = Battery()
    assert battery.initial(PHONE, 3, 0) == PHONE.battery
    assert battery.charged(5.0, PHONE, 3, 0.0, 10 * DAY, 0) == 5.0
    assert battery.available(5.0, PHONE) == 5.0


def test_clients_start_evenly_between_the_shares_each_by_its_own_key() -> None:
    battery = Battery(start=(0.2, 0.8))
    shares = [battery.initial(PHONE, client, 1) / PHONE.battery for client in range(2000)]
    assert 0.2 <= min(shares) < 0.21
    assert 0.79 < max(shares) <= 0.8
    assert math.fsum(shares) / 2000 == pytest.approx(0.5, abs=4 * 0.6 / math.sqrt(12 * 2000))
    assert shares[0] != battery.initial(PHONE, 0, 2) / PHONE.battery


def test_mains_is_infinite_whatever_the_spec_says() -> None:
    battery = Battery(start=(0.0, 0.0), charging=True, reserve=0.9)
    assert battery.initial(MAINS, 0, 0) == math.inf
    assert battery.charged(math.inf, MAINS, 0, 0.0, DAY, 0) == math.inf
    assert battery.available(math.inf, MAINS) == math.inf


@modest
@given(clients, st.integers(0, 20), st.floats(0, DAY))
def test_every_day_has_its_hours_wherever_the_day_begins(client: int, days: int, since: float) -> None:
    plugged = NIGHTLY.plugged(client, since, since + days * DAY, 0)
    assert plugged == pytest.approx(days * 8 * 3600, abs=1e-6)


@modest
@given(clients, times, times, times)
def test_time_plugged_in_adds_up(client: int, first: float, second: float, third: float) -> None:
    a, b, c = sorted((first, second, third))
    parts = NIGHTLY.plugged(client, a, b, 0) + NIGHTLY.plugged(client, b, c, 0)
    assert parts == pytest.approx(NIGHTLY.plugged(client, a, c, 0), abs=1e-6)
    assert 0 <= NIGHTLY.plugged(client, a, b, 0) <= b - a + 1e-6


def test_the_window_is_one_stretch_a_day_that_begins_when_the_key_of_the_client_says() -> None:
    begins = []
    for client in range(200):
        plugged = [NIGHTLY.plugged(client, 600.0 * t, 600.0 * (t + 1), 0) > 300 for t in range(144)]
        turns = [t for t in range(144) if plugged[t] and not plugged[t - 1]]
        assert len(turns) == 1
        begins.append(turns[0])
    assert len(set(begins)) > 90


@modest
@given(clients, st.floats(0, PHONE.battery), times, times)
def test_a_battery_never_holds_more_than_full_or_less_than_before(
    client: int, joules: float, first: float, second: float
) -> None:
    since, now = sorted((first, second))
    after = NIGHTLY.charged(joules, PHONE, client, since, now, 0)
    assert joules <= after <= PHONE.battery


def test_a_while_at_the_charger_is_its_power_times_that_while() -> None:
    always = Battery(charging=True, hours=24)
    assert always.charged(100.0, PHONE, 0, DAY, DAY + 600, 0) == pytest.approx(100 + 600 * 14.4)
    assert always.charged(100.0, PHONE, 0, 0.0, 30 * DAY, 0) == PHONE.battery


def test_without_a_charger_nothing_charges() -> None:
    assert NIGHTLY.charged(1.0, SENSOR, 0, 0.0, 30 * DAY, 0) == 1.0


def test_what_is_below_the_reserve_is_not_spent() -> None:
    battery = Battery(reserve=0.25)
    quarter = 0.25 * PHONE.battery
    assert battery.available(quarter + 10, PHONE) == pytest.approx(10)
    assert battery.available(quarter - 10, PHONE) == 0


@pytest.mark.parametrize(("since", "now"), [(-1.0, 0.0), (2.0, 1.0), (math.nan, 1.0)])
def test_times_that_make_no_sense_are_refused(since: float, now: float) -> None:
    with pytest.raises(ValueError, match="from an earlier time to a later"):
        NIGHTLY.charged(1.0, PHONE, 0, since, now, 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"start": [0.8, 0.2]}, "from the smallest to the largest"),
        ({"start": [0.5, 1.5]}, "less than or equal to 1"),
        ({"hours": 0}, "greater than 0"),
        ({"hours": 25}, "less than or equal to 24"),
        ({"reserve": 1.0}, "less than 1"),
        ({"capacity": 1.0}, "Extra inputs"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Battery.model_validate(bad)
