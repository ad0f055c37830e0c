"""`tightwire device`: the device tiers there are, every number with its unit and its source."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tightwire import config as configs
from tightwire.devices.population import Population
from tightwire.devices.tiers import UNITS, Tier

app = typer.Typer(help="List the device tiers, and show their numbers with sources.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Experiment file (YAML) whose own tiers to show too.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_WORDS = {
    "flops": "sustained, while training",
    "memory": "that training may use",
    "uplink": "on air, before the duty cycle",
    "downlink": "on air, before the duty cycle",
    "rtt": "round-trip time",
    "battery": "a full one",
    "tail_joules": "of the radio after each burst of bytes",
    "idle_watts": "while it waits in a round",
    "charge_watts": "of the charger",
}
"""What a number is, where its name and unit do not say it."""


@app.command("list")
def list_tiers(file: File = None, as_json: Json = False) -> None:
    """List the built-in device tiers, and those of an experiment file."""
    population = _population(file)
    if as_json:
        typer.echo(json.dumps([_record(tier, population) for tier in population.known.values()], indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("tier", no_wrap=True)
    for column in ("GFLOP/s", "memory\nMB", "down\nMbit/s", "up\nMbit/s", "RTT\nms", "battery\nkJ", "tail\nJ"):
        table.add_column(column, justify="right", no_wrap=True)
    for tier in population.known.values():
        table.add_row(
            escape(tier.name),
            f"{tier.flops / 1e9:.3g}",
            f"{tier.memory / 1e6:.4g}",
            f"{tier.downlink * tier.duty_down / 1e6:.3g}",
            f"{tier.uplink * tier.duty_up / 1e6:.3g}",
            f"{1e3 * tier.rtt:.4g}",
            "mains" if math.isinf(tier.battery) else f"{tier.battery / 1e3:.3g}",
            f"{tier.tail_joules:.3g}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("\nduty cycles are part of the rates; `tightwire device show TIER` says where each number comes from")


@app.command("show")
def show_tier(
    name: Annotated[str, typer.Argument(help="A tier, such as pi4-wifi.", show_default=False)],
    file: File = None,
    as_json: Json = False,
) -> None:
    """Show every number of a device tier, with its unit and its source."""
    population = _population(file)
    tier = population.tier(name)
    if as_json:
        typer.echo(json.dumps(_record(tier, population), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(tier.name)}[/]")
    for number, unit in UNITS.items():
        value = getattr(tier, number)
        shown = "on mains" if math.isinf(value) else f"{value:,.6g} {unit}"
        words = f", {_WORDS[number]}" if number in _WORDS else ""
        console.print(f"  {number:<21} {shown}{words}")
        if number in tier.sources:
            console.print(f"      [dim]{escape(tier.sources[number])}[/]")


def _population(file: Path | None) -> Population:
    return Population() if file is None else configs.load(file).population


def _record(tier: Tier, population: Population) -> dict[str, object]:
    """A tier as JSON; a battery on mains is null."""
    numbers = {
        number: {
            "value": None if math.isinf(value := getattr(tier, number)) else value,
            "unit": unit,
            "source": tier.sources.get(number, ""),
        }
        for number, unit in UNITS.items()
    }
    return {"name": tier.name, "built_in": tier.name not in population.profiles, "numbers": numbers}
