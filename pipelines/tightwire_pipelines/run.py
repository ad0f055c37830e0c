"""The main job: run one experiment, show it, and say where to look."""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tightwire import config as configs
from tightwire.config import Experiment
from tightwire.errors import ConfigError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import Summary
from tightwire.simulation import Ended, Parts, Simulation
from tightwire.tracking.base import NullTracker, RunInfo, Tracker
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import RunFolder
from tightwire_pipelines.live import Live
from tightwire_pipelines.units import clock, megabytes, times

RUNS = Path("runs")
RESUMABLE = ("hosts", "checkpoints", "tracking", "rounds")
"""What may differ between a run and its resumption: nothing of it changes a round that has been run."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    file: Path | None
    overrides: tuple[str, ...] = ()
    workers: int | None = None
    in_process: bool = False
    out: Path | None = None
    resume: str | None = None
    address: str | None = None


def start(request: Request, console: Console, *, quiet: bool) -> Ended:
    """Run, or resume, an experiment; progress and results go to `console`.

    Raises:
        ConfigError: What was asked for cannot be run; nothing was begun.
        TightwireError: The run failed; what it had saved stays.
    """
    overrides = request.overrides
    if request.workers is not None:
        overrides = (*overrides, f"hosts.workers={request.workers}")
    config, folder, parts = _prepare(request, overrides)
    info = RunInfo(folder.name, folder.path.resolve(), configs.flat(config), environment_tags(Path.cwd()))
    tracker = _tracker(config)
    live = Live(console, config.rounds, quiet=quiet)
    if not quiet:
        where = "in this process" if request.in_process else "on Ray"
        console.print(f"[bold]{folder.name}[/] {where}: {describe(config)}", highlight=False, soft_wrap=True)
    with _interruptible(live) as stopping, live.shown():
        if request.in_process:
            pool = InProcessPool(parts.runner())
            ended = Simulation(parts, folder, pool, tracker(), live).run(info, stopping)
        else:
            from tightwire_actors.session import run_on_ray  # ray takes a second to import

            ended = run_on_ray(config, info, tracker, live, stopping, request.address)
    _report(ended, folder, console, quiet=quiet)
    return ended


def describe(config: Experiment) -> str:
    """An experiment in one line."""
    return (
        f"{config.data.name}, {config.population.clients} clients, cohort {config.participation.cohort}, "
        f"{config.model.name}, policy {config.policy.name}, {config.rounds} rounds, seed {config.seed}"
    )


def _prepare(request: Request, overrides: tuple[str, ...]) -> tuple[Experiment, RunFolder, Parts]:
    """The experiment and its folder; the folder is made only once data and model are known to be sound."""
    if request.resume is not None:
        return _reopen(request, overrides)
    if request.file is None:
        raise ConfigError("run needs an experiment file, such as examples/digits.yaml, or --resume with a run's folder")
    config = configs.load(request.file, overrides)
    parts = Parts.load(config)
    root, name = (RUNS, config.name) if request.out is None else (request.out.parent, request.out.name)
    if request.out is not None and request.out.exists():
        raise ConfigError(f"--out {request.out}: is there already; choose another folder, or --resume {request.out}")
    folder = RunFolder.create(root, name)
    folder.write_config(configs.dump(config))
    return config, folder, parts


def _reopen(request: Request, overrides: tuple[str, ...]) -> tuple[Experiment, RunFolder, Parts]:
    path = Path(str(request.resume))
    folder = RunFolder.open(path if path.is_dir() else RUNS / path)
    before = configs.load(folder.config)
    if request.file is None:
        config = configs.override(before.model_dump(mode="json"), overrides)
    else:
        config = configs.load(request.file, overrides)
    old, new = configs.flat(before), configs.flat(config)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) and name.split(".")[0] not in RESUMABLE:
            raise ConfigError(
                f"{name}: is {old.get(name)} in {folder.path.name} and {new.get(name)} now, which would change rounds "
                f"that have been run; start a new run, or resume without it"
            )
    parts = Parts.load(config)
    folder.write_config(configs.dump(config))
    return config, folder, parts


def _tracker(config: Experiment) -> Callable[[], Tracker]:
    """Makes the tracker wherever the rounds are run; the store is settled here, in the user's folder."""
    if config.tracking.to == "nowhere":
        return NullTracker
    from tightwire.tracking.mlflow import MlflowTracker, default_uri

    return functools.partial(MlflowTracker, default_uri(), config.tracking.experiment)


@contextmanager
def _interruptible(live: Live) -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C, or SIGTERM, asks for an orderly end; the second one breaks off."""
    asked = threading.Event()

    def handle(number: int, frame: object) -> None:  # noqa: ARG001 - the signal module's signature
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        live.note("stopping after this round, with a checkpoint; press Ctrl-C again to break off")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(ended: Ended, folder: RunFolder, console: Console, *, quiet: bool) -> None:
    if ended.untracked is not None:
        console.print(f"note: {ended.untracked}", highlight=False, soft_wrap=True, markup=False)
    place = os.path.relpath(folder.path)
    if ended.summary is None:
        console.print(
            f"stopped after round {ended.round}, nothing is lost; go on with: tightwire run --resume {place}",
            highlight=False,
            soft_wrap=True,
        )
    elif not quiet:
        console.print(summary_table(ended.summary, ended.late, ended.late_fp32))
        _where_to_look(ended.summary, folder, place, console)


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
    accuracy = f"{summary.accuracy:.2%}" if summary.accuracy == summary.accuracy else "-"
    best = f"best {summary.best_accuracy:.2%}" if summary.best_accuracy == summary.best_accuracy else ""
    table.add_row("accuracy", accuracy, "", best)
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
    table.add_row("energy", f"{summary.energy_joules / 1000:.1f} kJ", "", "")
    table.add_row("wall time", clock(summary.wall_seconds), "", "")
    return table


def _where_to_look(summary: Summary, folder: RunFolder, place: str, console: Console) -> None:
    lines = [f"digest   {summary.digest}", f"results  {place}/ (tables, model, summary.json)"]
    lines += [f"plots    {os.path.relpath(path)}" for path in sorted(folder.plots.glob("*.png"))]
    if summary.mlflow_run_id is not None:
        lines.append(f"MLflow   run {summary.mlflow_run_id}; open with: make mlflow")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
