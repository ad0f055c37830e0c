"""The main job: run one experiment, show it, and say where to look."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tightwire import config as configs
from tightwire.config import Experiment
from tightwire.errors import ConfigError, DataError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import Ended
from tightwire.simulation import Parts, Simulation
from tightwire.tracking.base import NullTracker, RunInfo, Tracker
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import LATEST, RunFolder, check_latest, point_latest
from tightwire_pipelines.interrupts import Interrupts
from tightwire_pipelines.jobs_events import Events
from tightwire_pipelines.live import Live
from tightwire_pipelines.terminal import opening, report

RUNS = Path("runs")
STOPPING = "stopping after this round, with a checkpoint"
AGAIN = "; press Ctrl-C again to break off"
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


def start(request: Request, console: Console, *, quiet: bool, events: Events | None = None) -> tuple[Ended, RunFolder]:
    """Run, or resume, an experiment.

    Args:
        request: What to run.
        console: Where progress and results go to.
        quiet: Show notes alone.
        events: Hears of everything in place of the console.

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
    view: Live | Events
    if events is not None:
        view = events
        events.opened(name=folder.name, rounds=config.rounds, text=describe(config), folder=info.folder, begun=begun)
    else:
        view = Live(console, config.rounds, quiet=quiet, begun=begun)
        if not quiet:
            opening(folder.name, "in this process" if request.in_process else "on Ray", describe(config), console)
    with (
        _refusable(folder, begun, new=request.resume is None),
        Interrupts(view.note, STOPPING + ("" if events else AGAIN)) as stopping,
        view.shown(),
    ):
        if request.in_process:
            pool = InProcessPool(parts.runner())
            ended = Simulation(parts, folder, pool, tracker(), view).run(info, stopping)
        else:
            from tightwire_actors.session import run_on_ray  # ray takes a second to import

            ended = run_on_ray(config, info, tracker, view, stopping, request.address, stopping.install)
    if begun.problem is not None:
        view.note(begun.problem)
    plots = sorted(folder.plots.glob("*.png"))
    if events is not None:
        events.ended(ended, [plot.resolve() for plot in plots], mlflow_hint())
    else:
        place = os.path.relpath(folder.path)
        again = f"tightwire run --resume {place}"
        report(ended, place, [os.path.relpath(plot) for plot in plots], mlflow_hint(), again, console, quiet=quiet)
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


def mlflow_hint() -> str:
    """Where MLflow's pages of a new run are to be found."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("http"):
        return f"at {uri}"
    usual = "" if uri else "make mlflow, or: "
    return f"open with: {usual}mlflow ui --backend-store-uri {uri or 'sqlite:///mlflow.db'}"
