"""What a run will cost, shown before anything is trained."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tightwire import config as configs
from tightwire.preview import Preview, preview
from tightwire.simulation import Parts
from tightwire_pipelines.run import describe
from tightwire_pipelines.units import clock, joules, megabytes, times


def show(file: Path, overrides: tuple[str, ...], *, as_json: bool) -> None:
    """Preview an experiment file, as a table or as JSON on standard output."""
    config = configs.load(file, overrides)
    parts = Parts.load(config)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        task = progress.add_task("going through the rounds", total=None)
        expected = preview(parts, lambda record: progress.update(task, completed=record.round))
    if as_json:
        sys.stdout.write(json.dumps(asdict(expected), indent=2) + "\n")
        return
    out = Console()
    out.print(f"{config.name}: {describe(config)}", highlight=False, soft_wrap=True)
    out.print(preview_table(expected))
    if expected.rounds_simulated < expected.rounds:
        out.print(f"from the first {expected.rounds_simulated} of {expected.rounds} rounds", highlight=False)


def preview_table(expected: Preview) -> Table:
    """A preview beside the same rounds at fp32."""
    table = Table()
    table.add_column("")
    for heading in ("expected", "at fp32", "saved"):
        table.add_column(heading, justify="right")

    for what, ours, theirs, unit in (
        ("bytes up", expected.bytes_up, expected.bytes_up_fp32, megabytes),
        ("bytes down", expected.bytes_down, expected.bytes_down_fp32, megabytes),
        ("simulated time", expected.sim_seconds, expected.sim_seconds_fp32, clock),
    ):
        table.add_row(what, unit(ours), unit(theirs), times(theirs / ours) if ours else "")
    table.add_row("energy", joules(expected.energy_joules), "", "")
    table.add_row("memory a device", megabytes(expected.memory), "", "")
    for tier, share in expected.refused.items():
        table.add_row(f"  {tier}", f"{share:.0%} cannot hold it", "", "")
    return table
