"""What a terminal is told before a run's first round and after its last one; `watch` tells the same of a job's run."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tightwire.federation.records import Ended, Summary
from tightwire_pipelines.units import clock, joules, megabytes, times


def opening(name: str, where: str, text: str, console: Console) -> None:
    """Say what is going to run where."""
    console.print(f"[bold]{name}[/] {where}: {text}", highlight=False, soft_wrap=True)


def report(
    ended: Ended,
    place: str,
    plots: Sequence[str],
    mlflow: str,
    again: str,
    console: Console,
    *,
    quiet: bool,
    host: str = "",
) -> None:
    """Say how a run ended and where to look.

    Args:
        ended: How.
        place: Its folder.
        plots: The pictures in it.
        mlflow: Where MLflow's pages are to be found, in words.
        again: The command that goes on with it.
        console: Where to.
        quiet: Leave out all that is as it should be.
        host: Where the folder is, in words that follow a list; empty for here.
    """
    if ended.untracked is not None:
        _say(f"note: {ended.untracked}", console)
    if ended.summary is None:
        _say(f"stopped after round {ended.round}, nothing is lost; go on with: {again}", console)
    elif not quiet:
        console.print(summary_table(ended.summary, ended.late, ended.late_fp32))
        lines = [f"digest   {ended.summary.digest}", f"results  {place}/ (tables, model, summary.json{host})"]
        lines += [f"plots    {plot}" for plot in plots]
        if ended.summary.mlflow_run_id is not None:
            lines.append(f"MLflow   run {ended.summary.mlflow_run_id}; {mlflow}")
        for line in lines:
            _say(line, console)


def _say(line: str, console: Console) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def summary_table(summary: Summary, late: int, late_fp32: int) -> Table:
    """The run beside the same rounds at fp32: the same clients, links and clock, every frame uncompressed."""
    table = Table(
        title=f"{summary.name}: {summary.rounds} rounds",
        title_justify="left",
        title_style="bold",
        caption="at fp32: the same clients and links, waiting as long as it takes to get in as many updates",
        caption_justify="left",
    )
    table.add_column("")
    for heading in ("this run", "at fp32", "saved"):
        table.add_column(heading, justify="right")
    for what, share in (("accuracy", summary.accuracy), ("best accuracy", summary.best_accuracy)):
        table.add_row(what, "-" if math.isnan(share) else f"{share:.2%}", "", "")
    for what, ours, theirs in (
        ("bytes up", summary.bytes_up, summary.bytes_up_fp32),
        ("bytes down", summary.bytes_down, summary.bytes_down_fp32),
    ):
        table.add_row(what, megabytes(ours), megabytes(theirs), times(theirs / ours) if ours else "")
    seconds, seconds_fp32 = summary.sim_seconds, summary.sim_seconds_fp32
    table.add_row(
        "simulated time",
        clock(seconds),
        clock(seconds_fp32),
        times(seconds_fp32 / seconds) if seconds else "",
    )
    table.add_row("missed the deadline", str(late), str(late_fp32), "")
    table.add_row("bytes wasted", megabytes(summary.bytes_wasted), "", "")
    table.add_row("energy", joules(summary.energy_joules), "", "")
    table.add_row("wall time", clock(summary.wall_seconds), "", "")
    return table
