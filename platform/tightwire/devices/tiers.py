"""The five built-in device tiers, each number with its source.

In the source texts, "assumption" marks a choice that nobody measured and "unchecked" a figure quoted
without having the original at hand. Energies above all are rough: simple power models of phones err by up
to 959 % (arXiv 2605.27601). Read joules as a comparison between runs and not as a prediction.

A cellular radio stays in a high-power state for seconds after the last byte: the tail. On LTE it holds 11.576 s at
1060 mW, 12.3 J (Huang et al., MobiSys 2012, power model table), more than sending 2 MB; on WiFi 0.238 s at 119 mW.

Phones' FLOP/s come from FLASH (Yang et al., WWW 2021), which timed batches of LEAF's FEMNIST CNN on three
phones, ten samples each by its default settings. One forward pass of that network is 28*28*25*32 +
14*14*25*32*64 (two 5x5 convolutions, "same" padding) + 3136*2048 + 2048*62 (two dense layers) = 17,211,904
multiply-adds of 2 FLOPs; a backward pass counts twice a forward pass; so a batch of ten is 10 * 3 * 2 *
17,211,904 = 1.0327e9 FLOPs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType

from tightwire.errors import ConfigError

FEMNIST_BATCH_FLOPS = 10 * 3 * 2 * (28 * 28 * 25 * 32 + 14 * 14 * 25 * 32 * 64 + 3136 * 2048 + 2048 * 62)
"""FLOPs that FLASH's timed batch stands for; see the module's text."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What a typical device of one kind can do. A population draws its devices around these numbers.

    Raises:
        ValueError: A number is not positive (`tail_joules`, `idle_watts` and `charge_watts` may be 0), a duty cycle is
            outside (0, 1], or a number has no source.
    """

    name: str
    flops: float
    """Sustained FLOP/s while training."""
    memory: float
    """Bytes that training may use."""
    uplink: float
    """Bit/s on air towards the server, before the duty cycle."""
    downlink: float
    """Bit/s on air from the server, before the duty cycle."""
    rtt: float
    """Round-trip time in seconds."""
    battery: float
    """Joules in a full battery; infinity on mains."""
    joules_per_flop: float
    """Energy of one floating-point operation."""
    joules_per_byte_up: float
    """Energy of the radio to send one byte."""
    joules_per_byte_down: float
    """Energy of the radio to receive one byte."""
    tail_joules: float
    """Energy of the radio after each burst of bytes, until it sleeps again."""
    idle_watts: float
    """Power of the device while it waits in a round."""
    charge_watts: float
    """Power of the charger into the battery; 0 where there is no charger or no battery."""
    duty_up: float = 1.0
    """Share of the time in which the device may send, in (0, 1]."""
    duty_down: float = 1.0
    """Share of the time in which it may be sent to, in (0, 1]."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each number comes from, by field name."""

    def __post_init__(self) -> None:
        for number in NUMBERS:
            value, least = getattr(self, number), "not negative" if number in MAY_BE_ZERO else "positive"
            positive = value >= 0 if number in MAY_BE_ZERO else value > 0
            if not positive or (math.isinf(value) and number != "battery"):
                raise ValueError(f"tier {self.name!r}: {number} is {value}; it must be {least} and finite")
            if number not in self.sources:
                raise ValueError(f"tier {self.name!r}: {number} has no source; add one to `sources`")
        for duty in ("duty_up", "duty_down"):
            share = getattr(self, duty)
            if not 0 < share <= 1:
                raise ValueError(f"tier {self.name!r}: {duty} is {share}; it must be in (0, 1]")
            if share < 1 and duty not in self.sources:
                raise ValueError(f"tier {self.name!r}: {duty} has no source; add one to `sources`")


NUMBERS = (
    "flops",
    "memory",
    "uplink",
    "downlink",
    "rtt",
    "battery",
    "joules_per_flop",
    "joules_per_byte_up",
    "joules_per_byte_down",
    "tail_joules",
    "idle_watts",
    "charge_watts",
)
"""The fields of a tier that vary from device to device, in the order in which a population draws them; append only."""

MAY_BE_ZERO = ("tail_joules", "idle_watts", "charge_watts")
"""Those of `NUMBERS` that a device may be without."""

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "flops": "FLOP/s",
        "memory": "bytes",
        "uplink": "bit/s",
        "downlink": "bit/s",
        "rtt": "s",
        "battery": "J",
        "joules_per_flop": "J/FLOP",
        "joules_per_byte_up": "J/byte",
        "joules_per_byte_down": "J/byte",
        "tail_joules": "J",
        "idle_watts": "W",
        "charge_watts": "W",
        "duty_up": "share of the time",
        "duty_down": "share of the time",
    }
)
"""The unit of every number of a tier, in the order in which they are shown."""


def _phone_flops(milliseconds: float) -> float:
    return FEMNIST_BATCH_FLOPS / (milliseconds / 1000)


def _flash(milliseconds: str, phone: str) -> str:
    return f"FLASH: FEMNIST CNN, 1.0327 GFLOP a batch of 10 in {milliseconds} ms on a {phone}-class phone"


def _per_byte(watts: float, rate: float) -> float:
    """Joules a byte of a radio that draws `watts` while it moves `rate` bit/s."""
    return 8 * watts / rate


def _power(watts: str) -> str:
    return f"assumption: {watts} W for the whole board while training, divided by FLOP/s"


_LTE = "Huang et al. MobiSys 2012, power 438.39 mW/Mbit/s up, 51.97 down, 1288 mW base (unchecked)"
_LTE_UP_WATTS = (438.39 * 6 + 1288) / 1000
_LTE_DOWN_WATTS = (51.97 * 13 + 1288) / 1000
_NSA = "assumption: 2.5 times the LTE tier's power (5G NSA draws 2-3 times 4G, Xu et al. SIGCOMM 2020)"
_LTE_TAIL = 1.060 * 11.576
_LTE_TAIL_SOURCE = "Huang et al. MobiSys 2012: LTE's tail, 11.576 s at 1060 mW, is 12.3 J (unchecked)"
_WIFI_TAIL = 0.1193 * 0.2381
_WIFI_TAIL_SOURCE = "Huang et al. MobiSys 2012: WiFi's tail, 0.238 s at 119 mW, is 0.03 J (unchecked)"
_PHONE_IDLE = 0.27
_PHONE_IDLE_SOURCE = "Carroll and Heiser, USENIX ATC 2010: 269 mW awake, display off, on a Freerunner (unchecked)"
_WIFI_UP_WATTS = 0.350 * 3.7
_WIFI_DOWN_WATTS = 0.125 * 3.7
_AOSP = "AOSP power_profile of the Pixel 2 XL"
_FIXED_RTT = "Ookla, world mean of fixed lines, September 2020: 21 ms"
_FLASH_WIFI = "FLASH: rounded median over 19 WiFi users of their mean rate"
_LORA_AIR = "LoRaWAN EU868, SF7 at 125 kHz: 5470 bit/s; spread stands in for the slower factors"
_LORA_VOLTS = 3.3

FLAGSHIP_5G = Tier(
    name="flagship-5g",
    flops=_phone_flops(179),
    memory=2e9,
    uplink=21e6,
    downlink=166e6,
    rtt=0.028,
    battery=3.5 * 3.85 * 3600,
    joules_per_flop=4.0 / _phone_flops(179),
    joules_per_byte_up=_per_byte(2.5 * _LTE_UP_WATTS, 21e6),
    joules_per_byte_down=_per_byte(2.5 * _LTE_DOWN_WATTS, 166e6),
    tail_joules=2.5 * _LTE_TAIL,
    idle_watts=_PHONE_IDLE,
    charge_watts=25.0,
    sources={
        "flops": _flash("179", "Galaxy Note10"),
        "memory": "assumption: a quarter of 8 GB",
        "uplink": "Ookla, 5G median Q3 2021: 21 Mbit/s",
        "downlink": "Ookla, 5G median Q3 2021: 166 Mbit/s",
        "rtt": "mean mobile latency 2022: 28 ms (tele.net.in)",
        "battery": "Galaxy Note10: 3500 mAh at 3.85 V (unchecked)",
        "joules_per_flop": _power("4"),
        "joules_per_byte_up": f"{_NSA}; 3.92 W LTE at 6 Mbit/s gives 9.80 W at 21 Mbit/s",
        "joules_per_byte_down": f"{_NSA}; 1.96 W LTE at 13 Mbit/s gives 4.91 W at 166 Mbit/s",
        "tail_joules": f"{_NSA}; 12.3 J gives 31 J",
        "idle_watts": _PHONE_IDLE_SOURCE,
        "charge_watts": "Galaxy Note10: 25 W charger (unchecked); assumption: at full power to the end",
    },
)

MID_PHONE_WIFI = Tier(
    name="mid-phone-wifi",
    flops=_phone_flops(588),
    memory=1e9,
    uplink=27e6,
    downlink=35e6,
    rtt=0.021,
    battery=4.0 * 3.85 * 3600,
    joules_per_flop=3.0 / _phone_flops(588),
    joules_per_byte_up=_per_byte(_WIFI_UP_WATTS, 27e6),
    joules_per_byte_down=_per_byte(_WIFI_DOWN_WATTS, 35e6),
    tail_joules=_WIFI_TAIL,
    idle_watts=_PHONE_IDLE,
    charge_watts=18.0,
    sources={
        "flops": _flash("588", "Redmi Note 8"),
        "memory": "assumption: a quarter of 4 GB",
        "uplink": f"{_FLASH_WIFI}: 27 Mbit/s",
        "downlink": f"{_FLASH_WIFI}: 35 Mbit/s",
        "rtt": _FIXED_RTT,
        "battery": "Redmi Note 8: 4000 mAh at 3.85 V (unchecked)",
        "joules_per_flop": _power("3"),
        "joules_per_byte_up": f"{_AOSP}: 350 mA at 3.7 V while sending; at 27 Mbit/s",
        "joules_per_byte_down": f"{_AOSP}: 125 mA at 3.7 V while receiving; at 35 Mbit/s",
        "tail_joules": _WIFI_TAIL_SOURCE,
        "idle_watts": _PHONE_IDLE_SOURCE,
        "charge_watts": "Redmi Note 8: 18 W charger (unchecked); assumption: at full power to the end",
    },
)

OLD_PHONE_LTE = Tier(
    name="old-phone-lte",
    flops=_phone_flops(1642),
    memory=0.75e9,
    uplink=6e6,
    downlink=13e6,
    rtt=0.070,
    battery=3.22 * 3.8 * 3600,
    joules_per_flop=3.0 / _phone_flops(1642),
    joules_per_byte_up=_per_byte(_LTE_UP_WATTS, 6e6),
    joules_per_byte_down=_per_byte(_LTE_DOWN_WATTS, 13e6),
    tail_joules=_LTE_TAIL,
    idle_watts=_PHONE_IDLE,
    charge_watts=14.4,
    sources={
        "flops": _flash("1642", "Nexus 6"),
        "memory": "assumption: a quarter of 3 GB",
        "uplink": "Huang et al. MobiSys 2012, LTE median: 6 Mbit/s",
        "downlink": "Huang et al. MobiSys 2012, LTE median: 13 Mbit/s",
        "rtt": "Huang et al. MobiSys 2012: about 70 ms (unchecked)",
        "battery": "Nexus 6: 3220 mAh at 3.8 V",
        "joules_per_flop": _power("3"),
        "joules_per_byte_up": f"{_LTE}: 3.92 W at 6 Mbit/s, 653 nJ/bit; the tail is counted apart",
        "joules_per_byte_down": f"{_LTE}: 1.96 W at 13 Mbit/s, 151 nJ/bit; the tail is counted apart",
        "tail_joules": _LTE_TAIL_SOURCE,
        "idle_watts": _PHONE_IDLE_SOURCE,
        "charge_watts": "Nexus 6: 14.4 W charger, 9 V at 1.6 A (unchecked); assumption: at full power to the end",
    },
)

PI4_WIFI = Tier(
    name="pi4-wifi",
    flops=8e9,
    memory=2e9,
    uplink=11.5e6,
    downlink=11.5e6,
    rtt=0.021,
    battery=math.inf,
    joules_per_flop=6.5 / 8e9,
    joules_per_byte_up=_per_byte(_WIFI_UP_WATTS, 11.5e6),
    joules_per_byte_down=_per_byte(_WIFI_DOWN_WATTS, 11.5e6),
    tail_joules=_WIFI_TAIL,
    idle_watts=2.7,
    charge_watts=0.0,
    sources={
        "flops": "HPL, fp64: 8 GFLOP/s (feiereisen.net, 2022); assumption: fp32 training sustains as much",
        "memory": "assumption: half of 4 GB",
        "uplink": "PruneFL (Jiang et al. 2022): 5.56e-6 s for a parameter's 8 bytes, up and down",
        "downlink": "PruneFL, as for the uplink",
        "rtt": _FIXED_RTT,
        "battery": "on mains",
        "joules_per_flop": "6 to 7 W loaded (unchecked), divided by FLOP/s: 0.8 nJ",
        "joules_per_byte_up": f"assumption: a phone's radio; {_AOSP}, 350 mA at 3.7 V; at 11.5 Mbit/s",
        "joules_per_byte_down": f"assumption: a phone's radio; {_AOSP}, 125 mA at 3.7 V; at 11.5 Mbit/s",
        "tail_joules": f"assumption: a phone's radio; {_WIFI_TAIL_SOURCE}",
        "idle_watts": "Raspberry Pi 4 idle: 540 mA at 5 V (pidramble.com, unchecked)",
        "charge_watts": "on mains",
    },
)

SENSOR_LORA = Tier(
    name="sensor-lora",
    flops=1e8,
    memory=800 * 1024,
    uplink=5470.0,
    downlink=5470.0,
    rtt=2.0,
    battery=2.6 * 3.6 * 3600,
    joules_per_flop=0.5 / 1e8,
    joules_per_byte_up=_per_byte(0.0425 * _LORA_VOLTS, 5470),
    joules_per_byte_down=_per_byte(0.0115 * _LORA_VOLTS, 5470),
    tail_joules=0.0,
    idle_watts=0.01,
    charge_watts=0.0,
    duty_up=0.01,
    duty_down=0.10,
    sources={
        "flops": "assumption: STM32H743 at 480 MHz, some ten cycles a multiply-add in plain fp32 code",
        "memory": "STM32H743: 512 KiB AXI SRAM + 288 KiB SRAM1 to 3; the rest is for stack and radio",
        "uplink": _LORA_AIR,
        "downlink": _LORA_AIR,
        "rtt": "LoRaWAN class A: the second receive window opens 2 s after an uplink; airtime is in the rate",
        "battery": "assumption: one 18650 cell, 2600 mAh at 3.6 V",
        "joules_per_flop": "assumption: STM32H743 running at 0.5 W, divided by FLOP/s",
        "joules_per_byte_up": "LoRa radio sending: 40-45 mA at 3.3 V; 26 uJ/bit at SF7",
        "joules_per_byte_down": "Semtech SX1276 receiving: 11.5 mA at 3.3 V (unchecked); at SF7",
        "tail_joules": "assumption: none that counts; LoRaWAN class A sleeps after two short receive windows",
        "idle_watts": "assumption: STM32H743 in Stop mode and the radio asleep, 3 mA at 3.3 V",
        "charge_watts": "no charger",
        "duty_up": "ETSI EN 300 220, 868.0-868.6 MHz: 1 %",
        "duty_down": "ETSI EN 300 220, 869.4-869.65 MHz (second receive window): 10 % (unchecked)",
    },
)

TIERS: Mapping[str, Tier] = MappingProxyType(
    {tier.name: tier for tier in (FLAGSHIP_5G, MID_PHONE_WIFI, OLD_PHONE_LTE, PI4_WIFI, SENSOR_LORA)}
)
"""The built-in tiers by name. Their order decides which client draws which tier, so append and never
reorder."""


def tier(name: str) -> Tier:
    """The built-in tier called `name`.

    Raises:
        ConfigError: There is none; the message suggests the nearest and lists all.
    """
    return named(name, TIERS)


def named(name: str, tiers: Mapping[str, Tier]) -> Tier:
    """The one of `tiers` called `name`.

    Raises:
        ConfigError: There is none; the message suggests the nearest and lists all.
    """
    if name in tiers:
        return tiers[name]
    near = get_close_matches(name, tiers, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"unknown device tier {name!r}; {hint}the tiers are {', '.join(tiers)}")
