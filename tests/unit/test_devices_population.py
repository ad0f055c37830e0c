import math
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tightwire.devices.draws import lognormal
from tightwire.devices.energy import can_afford, compute_joules, download_joules, drain, upload_joules
from tightwire.devices.links import Link, transfer_seconds
from tightwire.devices.population import Population, Profile
from tightwire.devices.tiers import NUMBERS, TIERS


def test_one_profile_and_its_link_have_not_drifted() -> None:
    profile = Population().profile(1, seed=7)
    assert profile == Profile(
        tier="sensor-lora",
        flops=78473024.8072654,
        memory=1126117.1636296618,
        uplink=65.09209789521294,
        downlink=400.4390376436137,
        rtt=2.785585506611816,
        battery=31533.434651192427,
        joules_per_flop=4.3424544180327485e-09,
        joules_per_byte_up=0.0001867070409302806,
        joules_per_byte_down=6.109544870282215e-05,
    )
    rates = Link().rates(Population().profile(0, seed=7), round=3, client=0, seed=7)
    assert (rates.up, rates.down) == (22652703.72905742, 226438125.5436899)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 99), st.integers(100, 10**9), st.integers(-(2**40), 2**70))
def test_a_profile_does_not_depend_on_the_size_of_the_population(client: int, clients: int, seed: int) -> None:
    assert Population(clients=clients).profile(client, seed) == Population(clients=100).profile(client, seed)


def test_a_profile_does_not_depend_on_the_order_of_the_mix_or_on_who_was_drawn_before() -> None:
    mix = {"pi4-wifi": 2.0, "flagship-5g": 1.0, "sensor-lora": 3.0}
    forwards = Population(tiers=mix)
    backwards = Population(tiers=dict(reversed(mix.items())))
    assert list(forwards.tiers) == list(backwards.tiers) == ["flagship-5g", "pi4-wifi", "sensor-lora"]
    first = [forwards.profile(c, 0) for c in range(100)]
    assert first == [backwards.profile(c, 0) for c in reversed(range(100))][::-1]


def test_another_seed_or_client_gives_another_device() -> None:
    population = Population()
    drawn = {population.profile(c, s).flops for c in range(20) for s in range(20)}
    assert len(drawn) == 400


def test_spread_changes_numbers_and_not_tiers() -> None:
    narrow, wide = Population(spread=0.1), Population(spread=1.0)
    for client in range(100):
        assert narrow.profile(client, 0).tier == wide.profile(client, 0).tier
        assert narrow.profile(client, 0).flops != wide.profile(client, 0).flops


def test_without_spread_a_device_is_its_tier_with_the_duty_cycle_in_its_rates() -> None:
    for name, tier in TIERS.items():
        profile = asdict(Population(tiers={name: 1.0}, spread=0).profile(5, 1))
        assert profile.pop("tier") == name
        expected = {number: getattr(tier, number) for number in NUMBERS}
        expected["uplink"] *= tier.duty_up
        expected["downlink"] *= tier.duty_down
        assert profile == expected


def test_tiers_follow_the_mix_and_numbers_the_spread() -> None:
    population = Population(clients=4000, tiers={"pi4-wifi": 3.0, "old-phone-lte": 1.0}, spread=0.5)
    profiles = [population.profile(c, 0) for c in range(4000)]
    share = Counter(p.tier for p in profiles)["pi4-wifi"] / 4000
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)
    logs = [math.log(p.uplink / TIERS[p.tier].uplink) for p in profiles]
    mean = math.fsum(logs) / 4000
    assert abs(mean) < 4 * 0.5 / math.sqrt(4000)
    assert math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / 4000) == pytest.approx(0.5, rel=0.05)


def test_mains_stays_mains() -> None:
    assert Population(tiers={"pi4-wifi": 1.0}).profile(3, 0).battery == math.inf


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tiers": {"pi4": 1.0}}, "did you mean 'pi4-wifi'"),
        ({"tiers": {"pi4-wifi": 0.0}}, "weight of tier 'pi4-wifi' is 0.0"),
        ({"tiers": {}}, "at least 1"),
        ({"clients": 0}, "greater than 0"),
        ({"spread": -0.1}, "greater than or equal to 0"),
        ({"speed": 1}, "Extra inputs"),
    ],
)
def test_a_population_that_makes_no_sense_is_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Population.model_validate(bad)


@pytest.mark.parametrize("client", [-1, 100])
def test_a_client_outside_the_population_is_refused(client: int) -> None:
    with pytest.raises(ValueError, match=f"client {client} is not among the clients 0 to 99"):
        Population().profile(client, 0)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 2), st.floats(-8, 8))
def test_lognormal_factors_are_within_one_last_bit_of_the_exponential(sigma: float, z: float) -> None:
    assert lognormal(sigma, z) == pytest.approx(math.exp(sigma * z), rel=3e-16, abs=0)


def test_links_vary_around_the_profile_by_round_client_and_direction() -> None:
    profile = Population().profile(0, 0)
    link = Link(variation=0.3)
    rates = [link.rates(profile, round=r, client=c, seed=0) for r in range(60) for c in range(50)]
    assert len({r.up for r in rates}) == len({r.down for r in rates}) == 3000
    ups = [math.log(r.up / profile.uplink) for r in rates]
    downs = [math.log(r.down / profile.downlink) for r in rates]
    for logs in (ups, downs):
        assert abs(math.fsum(logs) / 3000) < 4 * 0.3 / math.sqrt(3000)
        assert math.sqrt(math.fsum(x * x for x in logs) / 3000) == pytest.approx(0.3, rel=0.06)
    correlation = math.fsum(u * d for u, d in zip(ups, downs, strict=True)) / 3000 / 0.09
    assert abs(correlation) < 4 / math.sqrt(3000)


def test_a_link_without_variation_is_the_profile() -> None:
    profile = Population().profile(0, 0)
    rates = Link(variation=0).rates(profile, round=9, client=0, seed=0)
    assert (rates.up, rates.down) == (profile.uplink, profile.downlink)


def test_a_transfer_takes_its_latency_and_eight_bits_a_byte() -> None:
    assert transfer_seconds(1_000_000, 8e6, 0.25) == 1.25
    assert transfer_seconds(0, 1.0, 0.25) == 0.25


@pytest.mark.parametrize("bad", [(-1, 1.0, 0.0), (1, 0.0, 0.0), (1, math.nan, 0.0), (1, 1.0, -1.0)])
def test_a_transfer_that_makes_no_sense_is_refused(bad: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="cannot send"):
        transfer_seconds(*bad)


def test_energy_is_linear_in_flops_and_bytes() -> None:
    profile = Population(tiers={"old-phone-lte": 1.0}, spread=0).profile(0, 0)
    assert compute_joules(1e9, profile) == pytest.approx(4.77, rel=1e-3)
    assert upload_joules(10**6, profile) == pytest.approx(5.22, rel=1e-3)
    assert download_joules(10**6, profile) == pytest.approx(1.21, rel=2e-3)


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
