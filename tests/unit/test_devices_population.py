import math
import pickle
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tightwire.devices.draws import lognormal
from tightwire.devices.population import Population, Profile
from tightwire.devices.tiers import MAY_BE_ZERO, NUMBERS, TIERS


def test_one_profile_has_not_drifted() -> None:
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
        tail_joules=0.0,
        idle_watts=0.011094704433925795,
        charge_watts=0.0,
    )


def test_numbers_that_came_later_leave_those_before_as_they_were() -> None:
    profile = Population().profile(0, seed=3)
    assert (profile.tier, profile.flops, profile.battery) == ("old-phone-lte", 333709913.0339026, 34554.31182069755)
    assert profile.joules_per_byte_down == 1.1430446349271494e-06
    assert (profile.tail_joules, profile.idle_watts) == (10.825071565867262, 0.26665565899188154)


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


MINE = {"based_on": "pi4-wifi", "flops": 5e9, "battery": 1000.0, "source": "a wattmeter"}


def test_a_tier_of_ones_own_takes_what_it_leaves_out_from_the_built_in_one() -> None:
    population = Population.model_validate({"profiles": {"mine": MINE}, "tiers": {"mine": 1}, "spread": 0})
    mine, base = population.tier("mine"), TIERS["pi4-wifi"]
    assert (mine.name, mine.flops, mine.battery, mine.uplink) == ("mine", 5e9, 1000.0, base.uplink)
    assert mine.sources["flops"] == "a wattmeter"
    assert mine.sources["uplink"] == f"as pi4-wifi: {base.sources['uplink']}"
    profile = population.profile(0, 0)
    assert (profile.tier, profile.flops, profile.memory) == ("mine", 5e9, base.memory)


def test_duty_cycles_of_the_built_in_tier_stay_law() -> None:
    own = {"slow": {"based_on": "sensor-lora", "uplink": 1000.0}}
    profile = Population.model_validate({"profiles": own, "tiers": {"slow": 1}, "spread": 0}).profile(0, 0)
    assert profile.uplink == 10.0


def test_a_tier_of_ones_own_on_mains_never_runs_empty() -> None:
    own = {"box": {"based_on": "old-phone-lte", "battery": "mains"}}
    assert Population.model_validate({"profiles": own, "tiers": {"box": 1}}).profile(0, 0).battery == math.inf


def test_a_tier_that_is_based_on_nothing_needs_every_number_but_tail_idle_charger_and_duty() -> None:
    everything = {number: 1.0 for number in NUMBERS if number not in MAY_BE_ZERO}
    tier = Population.model_validate({"profiles": {"own": everything}}).tier("own")
    assert (tier.tail_joules, tier.idle_watts, tier.charge_watts, tier.duty_up) == (0, 0, 0, 1)
    for number in everything:
        less = {name: value for name, value in everything.items() if name != number}
        with pytest.raises(ValidationError, match=f"a tier without {number} must say which built-in one"):
            Population.model_validate({"profiles": {"own": less}})


def test_tiers_of_ones_own_leave_the_clients_that_draw_built_in_ones_as_they_are() -> None:
    alone = Population(clients=200, tiers={"pi4-wifi": 1.0})
    mixed = Population.model_validate(
        {"clients": 200, "profiles": {"mine": MINE}, "tiers": {"pi4-wifi": 0.5, "mine": 0.5}}
    )
    drawn = [mixed.profile(client, 0) for client in range(200)]
    assert Counter(profile.tier for profile in drawn).keys() == {"pi4-wifi", "mine"}
    assert all(drawn[c] == alone.profile(c, 0) for c in range(200) if drawn[c].tier == "pi4-wifi")


def test_a_resolved_population_is_the_same_population() -> None:
    population = Population.model_validate({"profiles": {"mine": {**MINE, "battery": "mains"}}, "tiers": {"mine": 2}})
    assert population.profile(3, 0).tier == "mine"
    again = Population.model_validate(population.model_dump(mode="json"))
    assert again == population == pickle.loads(pickle.dumps(population))  # noqa: S301 - what was pickled here
    assert again.profile(3, 0) == population.profile(3, 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"profiles": {"mine": MINE}, "tiers": {"mne": 1}}, "unknown device tier 'mne'; did you mean 'mine'"),
        ({"profiles": {"pi4-wifi": MINE}}, "'pi4-wifi' is a built-in tier"),
        ({"profiles": {"mine": {"based_on": "pi4"}}}, "did you mean 'pi4-wifi'"),
        ({"profiles": {"mine": {"based_on": "pi4-wifi", "rtt": 0}}}, "greater than 0"),
        ({"profiles": {"mine": {"based_on": "pi4-wifi", "duty_up": 1.1}}}, "less than or equal to 1"),
        ({"profiles": {"mine": {"based_on": "pi4-wifi", "battery": "big"}}}, "mains"),
        ({"profiles": {"mine": {"based_on": "pi4-wifi", "speed": 1}}}, "Extra inputs"),
        ({"profiles": {"a.b": MINE}}, "pattern"),
    ],
)
def test_a_tier_of_ones_own_that_makes_no_sense_is_refused(bad: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Population.model_validate(bad)
