import math
from dataclasses import replace
from pathlib import Path

import pytest

from tightwire.devices.memory import refusal, training_memory
from tightwire.devices.population import Population
from tightwire.devices.tiers import FEMNIST_BATCH_FLOPS, MAY_BE_ZERO, NUMBERS, TIERS, UNITS, tier
from tightwire.errors import ConfigError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "devices.md"


def test_the_five_tiers_are_there_in_their_order() -> None:
    assert list(TIERS) == ["flagship-5g", "mid-phone-wifi", "old-phone-lte", "pi4-wifi", "sensor-lora"]
    assert all(name == record.name for name, record in TIERS.items())


def test_every_number_has_a_source_and_every_source_a_number() -> None:
    for record in TIERS.values():
        duties = {duty for duty in ("duty_up", "duty_down") if getattr(record, duty) < 1}
        assert set(record.sources) == set(NUMBERS) | duties


def test_every_number_has_a_unit() -> None:
    assert set(UNITS) == set(NUMBERS) | {"duty_up", "duty_down"}


@pytest.mark.parametrize("number", NUMBERS)
def test_only_what_a_device_can_be_without_may_be_zero(number: str) -> None:
    if number in MAY_BE_ZERO:
        assert getattr(replace(TIERS["pi4-wifi"], **{number: 0.0}), number) == 0.0  # type: ignore[arg-type] # by name
    else:
        with pytest.raises(ValueError, match=f"{number} is 0.0; it must be positive"):
            replace(TIERS["pi4-wifi"], **{number: 0.0})  # type: ignore[arg-type] # by name


def test_an_unknown_tier_is_refused_with_the_nearest_name_and_all_names() -> None:
    with pytest.raises(ConfigError, match=r"'pi4-wfi'; did you mean 'pi4-wifi'\?.*flagship-5g.*sensor-lora"):
        tier("pi4-wfi")
    with pytest.raises(ConfigError, match="unknown device tier 'zzz'; the tiers are"):
        tier("zzz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flops": 0.0}, "flops is 0.0"),
        ({"uplink": math.inf}, "uplink is inf"),
        ({"rtt": math.nan}, "rtt is nan"),
        ({"tail_joules": -1.0}, "tail_joules is -1.0; it must be not negative"),
        ({"idle_watts": math.inf}, "idle_watts is inf"),
        ({"duty_up": 1.5}, "duty_up is 1.5"),
        ({"duty_down": 0.5}, "duty_down has no source"),
        ({"sources": {}}, "flops has no source"),
    ],
)
def test_a_tier_that_makes_no_sense_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TIERS["pi4-wifi"], **change)  # type: ignore[arg-type] # wrong on purpose


def test_the_timed_phones_take_the_published_time_for_the_published_batch() -> None:
    assert FEMNIST_BATCH_FLOPS == 1_032_714_240
    published = {"flagship-5g": 0.179, "mid-phone-wifi": 0.588, "old-phone-lte": 1.642}
    for name, seconds in published.items():
        assert FEMNIST_BATCH_FLOPS / tier(name).flops == pytest.approx(seconds, rel=1e-12)


def test_radio_energies_reproduce_the_published_joules_a_bit() -> None:
    lte = tier("old-phone-lte")
    assert lte.joules_per_byte_up / 8 == pytest.approx(653e-9, rel=1e-3)
    assert lte.joules_per_byte_down / 8 == pytest.approx(151e-9, rel=1e-3)
    assert 24e-6 < tier("sensor-lora").joules_per_byte_up / 8 < 27e-6


def test_the_tail_of_lte_is_more_than_sending_two_megabytes_and_that_of_wifi_next_to_nothing() -> None:
    lte, wifi = tier("old-phone-lte"), tier("mid-phone-wifi")
    assert lte.tail_joules == pytest.approx(12.27, abs=0.01)
    assert lte.tail_joules > 2e6 * lte.joules_per_byte_up
    assert tier("flagship-5g").tail_joules == pytest.approx(2.5 * lte.tail_joules)
    assert wifi.tail_joules < 1e5 * wifi.joules_per_byte_up


def test_devices_charge_faster_than_they_idle_and_only_those_with_a_battery() -> None:
    for record in TIERS.values():
        assert record.charge_watts == 0 or (record.charge_watts > record.idle_watts and record.battery < math.inf)


def test_a_199k_model_at_one_bit_takes_an_hour_over_lora() -> None:
    sensor = tier("sensor-lora")
    assert 199_210 / (sensor.uplink * sensor.duty_up) / 3600 == pytest.approx(1.0, rel=0.02)


def test_a_sensor_trains_the_small_mlp_and_refuses_the_2nn() -> None:
    population = Population(clients=500, tiers={"sensor-lora": 1.0})
    mlp = training_memory(17_226, 4 * (64 + 200 + 10), batch=10)
    two_nn = training_memory(199_210, 4 * (784 + 200 + 200 + 10), batch=10)
    for client in range(500):
        profile = population.profile(client, seed=0)
        assert refusal(profile, mlp) is None
        assert refusal(profile, two_nn) == "memory"


def test_every_other_tier_trains_the_2nn() -> None:
    needed = training_memory(199_210, 4 * 1194, batch=10)
    for name in list(TIERS)[:-1]:
        assert refusal(Population(tiers={name: 1.0}, spread=0).profile(0, seed=0), needed) is None


def test_the_documented_table_is_the_code() -> None:
    def row(name: str) -> str:
        t = TIERS[name]
        up, down = f"{t.uplink / 1e6:.4g}", f"{t.downlink / 1e6:.4g}"
        if t.duty_up < 1:
            up, down = f"{up} at {t.duty_up:.0%}", f"{down} at {t.duty_down:.0%}"
        battery = "mains" if math.isinf(t.battery) else f"{t.battery / 1e3:.1f}"
        nano = [f"{1e9 * t.joules_per_flop:.3g}"]
        nano += [f"{1e9 * joules:,.0f}" for joules in (t.joules_per_byte_up, t.joules_per_byte_down)]
        cells = [
            f"{t.flops / 1e9:.3g}",
            f"{t.memory / 1e6:.4g}",
            down,
            up,
            f"{1e3 * t.rtt:.0f}",
            battery,
            *nano,
            f"{t.tail_joules:.3g}",
            f"{t.idle_watts:.3g}",
            f"{t.charge_watts:.3g}",
        ]
        return f"| `{name}` | " + " | ".join(cells) + " |"

    text = DOCS.read_text(encoding="utf-8")
    for name in TIERS:
        assert row(name) in text
        for field, source in TIERS[name].sources.items():
            assert f"| {field} | {source} |" in text, f"{name}: {field}"
