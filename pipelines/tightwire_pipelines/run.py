"""The main job: run one experiment, show it, and say where to look."""

import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tightwire import config as configs
from tightwire.config import Experiment
from tightwire.errors import ConfigError, DataError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import Summary
from tightwire.simulation import Ended, Parts, Simulation
from tightwire.tracking.base import NullTracker, RunInfo, Tracker
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import LATEST, RunFolder, check_latest, point_latest
from tightwire_pipelines.interrupts import Interrupts
from tightwire_pipelines.live import Live
from tightwire_pipelines.units import clock, joules, megabytes, times

RUNS = Path("runs")
STOPPING = "stopping after this round, with a checkpoint; press Ctrl-C again to break off"
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


def start(request: Request, console: Console, *, quiet: bool) -> tuple[Ended, RunFolder]:
    """Run, or resume, an experiment; progress and results go to `console`.

    Raises:
        ConfigError: What was asked for cannot be run; nothing was begun, and nothing is left of it.
        TightwireError: The run failed; what it had saved stays.
    """
    if request.in_process and request.workers is not None:
        raise ConfigError(f"--workers {request.workers}: --in-process has no workers; give one of the two")
    check_latest(RUNS)
    overrides = request.overrides
    if request.workers is not None:
        overrides = (*overrides, f"hosts.workers={request.workers}")
    config, folder, parts = _prepare(request, overrides)
    info = RunInfo(folder.name, folder.path.resolve(), configs.flat(config), environment_tags(Path.cwd()))
    tracker = _tracker(config)
    begun = _Begun(folder)
    live = Live(console, config.rounds, quiet=quiet, begun=begun)
    if not quiet:
        where = "in this process" if request.in_process else "on Ray"
        console.print(f"[bold]{folder.name}[/] {where}: {describe(config)}", highlight=False, soft_wrap=True)
    with (
        _refusable(folder, begun, new=request.resume is None),
        Interrupts(live.note, STOPPING) as stopping,
        live.shown(),
    ):
        if request.in_process:
            pool = InProcessPool(parts.runner())
            ended = Simulation(parts, folder, pool, tracker(), live).run(info, stopping)
        else:
            from tightwire_actors.session import run_on_ray  # ray takes a second to import

            ended = run_on_ray(config, info, tracker, live, stopping, request.address, stopping.install)
    if begun.problem is not None:
        live.note(begun.problem)
    _report(ended, folder, console, quiet=quiet)
    return ended, folder


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
    with folder.locked():
        folder.write_config(configs.dump(config))
    return config, folder, parts


class _Begun:
    """Called when the run begins, so that what is refused before does not become the latest run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.yet = False
        self.problem: str | None = None
        """What should be said of it, in one line."""

    def __call__(self) -> None:
        self.yet = True
        try:
            point_latest(RUNS, self._folder)
        except OSError as error:
            self.problem = f"{RUNS / LATEST} could not be made to point to this run ({error.strerror})"


@contextmanager
def _refusable(folder: RunFolder, begun: _Begun, *, new: bool) -> Iterator[None]:
    """Remove a new run's folder if the block refuses the run before it has begun."""
    try:
        yield
    except (ConfigError, DataError):
        if new and not begun.yet:
            folder.discard()
        raise


def _tracker(config: Experiment) -> Callable[[], Tracker]:
    """Makes the tracker wherever the rounds are run; the store is settled here, in the user's folder."""
    if config.tracking.to == "nowhere":
        return NullTracker
    from tightwire.tracking.mlflow import MlflowTracker, default_uri, environment

    return functools.partial(MlflowTracker, default_uri(), config.tracking.experiment, environment=environment())


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


def _mlflow_hint() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("http"):
        return f"at {uri}"
    usual = "" if uri else "make mlflow, or: "
    return f"open with: {usual}mlflow ui --backend-store-uri {uri or 'sqlite:///mlflow.db'}"


def _where_to_look(summary: Summary, folder: RunFolder, place: str, console: Console) -> None:
    lines = [f"digest   {summary.digest}", f"results  {place}/ (tables, model, summary.json)"]
    lines += [f"plots    {os.path.relpath(path)}" for path in sorted(folder.plots.glob("*.png"))]
    if summary.mlflow_run_id is not None:
        lines.append(f"MLflow   run {summary.mlflow_run_id}; {_mlflow_hint()}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
