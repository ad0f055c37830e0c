"""Small experiments that tests run, and ways to run them without a terminal."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tightwire import config as configs
from tightwire.config import Experiment
from tightwire.federation.pool import InProcessPool, Pool
from tightwire.federation.records import Ended, RoundRecord
from tightwire.simulation import Parts, Simulation
from tightwire.tracking.base import NullTracker, RunInfo, Tracker
from tightwire.tracking.folder import RunFolder

SMALL: dict[str, Any] = {
    "name": "small",
    "rounds": 4,
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 1, "batch": 10, "lr": 0.1},
    "population": {"clients": 20},
    "participation": {"cohort": 8, "over": 0.25, "drop": 0.1},
    "checkpoints": {"every": 2},
    "tracking": {"to": "nowhere", "plots": False},
}


def small(**changes: Any) -> Experiment:
    """Four rounds of twenty clients on digits; seconds at most. `changes` replace whole sections."""
    return configs.parse({**SMALL, **changes})


class Quiet:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.earlier: list[RoundRecord] | None = None
        self.records: list[RoundRecord] = []
        self.notes: list[str] = []

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """See `tightwire.simulation.Listener`."""
        assert self.earlier is None, "a run begins once"
        self.earlier = list(records)

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        self.records.append(record)

    def note(self, text: str) -> None:
        """See `tightwire.simulation.Listener`."""
        self.notes.append(text)


def run_here(
    config: Experiment,
    folder: Path,
    *,
    pool: Pool[Any] | None = None,
    listener: Quiet | None = None,
    stop_after: int | None = None,
    tracker: Tracker | None = None,
) -> Ended:
    """Run an experiment in `folder`, in this process unless a pool is given; a second call resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    listener = listener or Quiet()
    run_folder = RunFolder(folder)
    run_folder.plots.mkdir(exist_ok=True)
    run_folder.write_config(configs.dump(config))
    parts = Parts.load(config)
    pool = pool or InProcessPool(parts.runner())
    simulation = Simulation(parts, run_folder, pool, tracker or NullTracker(), listener)
    stopping = (lambda: len(listener.records) >= stop_after) if stop_after is not None else (lambda: False)
    return simulation.run(RunInfo(folder.name, folder, configs.flat(config)), stopping)


_UNDISTURBED: dict[str, str] = {}


def undisturbed(config: Experiment) -> str:
    """The digest of a run in this process that nothing disturbs; one run, however many tests compare with it."""
    dumped = configs.dump(config)
    if dumped not in _UNDISTURBED:
        with TemporaryDirectory() as folder:
            _UNDISTURBED[dumped] = digest_of(run_here(config, Path(folder) / "undisturbed"))
    return _UNDISTURBED[dumped]


def digest_of(ended: Ended) -> str:
    """The digest of a run that has finished."""
    assert ended.summary is not None, "the run was stopped"
    return ended.summary.digest
