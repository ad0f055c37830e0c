"""The folder of a study, `studies/NAME/`, and what it says of each trial.

* `study.yaml`: the study, with the experiment that it starts from
* `trials/TRIAL/`: a run's folder (`tracking.folder`) each, with `trial.json`, and `error.txt` if it failed
* `mlflow.json`: what the tracking server has of the study
* `.stop`: is there while somebody asks the trials to stop
"""

import itertools
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tightwire import config as configs
from tightwire.errors import ConfigError, TrackingError
from tightwire.federation.records import Summary
from tightwire.federation.tables import write_atomically
from tightwire.studies.outcomes import STUDY, TRIAL, TRIALS
from tightwire.studies.plan import Trial
from tightwire.studies.spec import Study, dump, load
from tightwire.tracking.folder import RunFolder

ERROR = "error.txt"

Status = Literal["finished", "failed", "open"]
"""What became of a trial; an open one has not begun or not ended."""

_ANY = ("hosts", "checkpoints", "tracking")
"""Sections of a config that may differ between a trial and its resumption: no result depends on them."""


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The places inside one study's folder."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "StudyFolder":
        """Make a new folder below `root`; `name-2`, `name-3` and so on are taken where it exists.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            for path in itertools.chain([root / name], (root / f"{name}-{n}" for n in itertools.count(2))):
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path.resolve())
        except OSError as error:
            raise ConfigError(f"cannot make a folder for study {name!r} in {root}: {error.strerror}") from None
        raise AssertionError("unreachable: the numbers do not end")

    @classmethod
    def open(cls, path: Path) -> "StudyFolder":
        """The folder of an earlier study.

        Raises:
            ConfigError: There is no study.
        """
        folder = cls(path.resolve())
        if not folder.study.is_file():
            raise ConfigError(f"{path} is no study's folder, it has no {folder.study.name}; give studies/NAME")
        return folder

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def study(self) -> Path:
        """The study, YAML."""
        return self.path / STUDY

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.path / TRIALS

    @property
    def mlflow(self) -> Path:
        """What the tracking server has of the study, JSON."""
        return self.path / "mlflow.json"

    @property
    def stop(self) -> Path:
        """Is there while the trials are asked to stop."""
        return self.path / ".stop"

    def trial(self, name: str) -> RunFolder:
        """The folder of one trial."""
        return RunFolder(self.trials / name)

    def read(self) -> Study:
        """The study that the folder is of.

        Raises:
            ConfigError: Its file is damaged.
        """
        return load(self.study)

    def keeps(self, study: Study, trials: Sequence[Trial]) -> None:
        """See that going on with the study as it is now gives nothing up that the folder has.

        Raises:
            ConfigError: A seed, or a finished trial, would no longer belong to the study.
        """
        had = self.read().seeds
        lost = [seed for seed in had if seed not in study.seeds]
        if lost:
            raise ConfigError(
                f"seeds: {self.name} has {_listed(had)}, got {_listed(study.seeds)}; a study keeps the seeds that it "
                "has: give more, or leave --seeds out"
            )
        names = {trial.name for trial in trials}
        there = sorted(path.name for path in self.trials.iterdir()) if self.trials.is_dir() else []
        for name in there:
            if name not in names and status(self.trial(name)) == "finished":
                raise ConfigError(
                    f"variations: trial {name} of {self.name} has finished and belongs to none of them now; "
                    "keep its variation as it was, or start a new study"
                )

    def prepare(self, study: Study, trials: Sequence[Trial]) -> None:
        """Write down the study, and each trial that is not there yet.

        A trial that failed, or never began, may be another experiment than it was; then it starts afresh.

        Raises:
            ConfigError: A trial has finished, or has a checkpoint to go on from, and was another experiment.
            OSError: The disk is full or the folder cannot be written.
        """
        changed = {trial.name: _changed(self.trial(trial.name), trial) for trial in trials}
        for name, what in changed.items():
            if what is not None and not _may_change(self.trial(name)):
                raise ConfigError(
                    f"{what.key}: is {what.old} in trial {name}, which is there already, and {what.new} now; start a "
                    "new study, or resume this one as it was"
                )
        write_atomically(self.study, dump(study))
        for trial in trials:
            folder = self.trial(trial.name)
            if changed[trial.name] is not None:
                shutil.rmtree(folder.path)
            folder.plots.mkdir(parents=True, exist_ok=True)
            if status(folder) != "finished":
                folder.write_config(configs.dump(trial.config))
            told = {"variation": trial.variation, "axes": dict(trial.axes), "seed": trial.seed}
            write_atomically(folder.path / TRIAL, json.dumps(told, indent=2) + "\n")


def status(folder: RunFolder) -> Status:
    """What became of a trial, by its folder."""
    if folder.summary.is_file():
        return "finished"
    return "failed" if (folder.path / ERROR).is_file() else "open"


def read_error(folder: RunFolder) -> str:
    """Why a trial failed, in one line."""
    try:
        lines = (folder.path / ERROR).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return lines[0] if lines else "no reason was kept"


def write_error(folder: RunFolder, line: str, more: str = "") -> None:
    """Note why a trial failed.

    Args:
        folder: The trial's folder.
        line: The reason in one line.
        more: What helps to find the fault, such as a traceback.
    """
    write_atomically(folder.path / ERROR, line + "\n" + (f"\n{more}" if more else ""))


def read_summary(folder: RunFolder) -> Summary:
    """The figures of a finished trial; accuracies are NaN where none was measured.

    Raises:
        TrackingError: They are missing or damaged.
    """
    try:
        fields = json.loads(folder.summary.read_bytes())
        accuracies = {key: math.nan for key in ("accuracy", "best_accuracy") if fields[key] is None}
        return Summary(**{**fields, **accuracies})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrackingError(f"cannot read {folder.summary}: {error}; it should be the summary.json of a run") from None


def _may_change(folder: RunFolder) -> bool:
    """Whether nothing would be lost if the trial were another experiment."""
    return status(folder) == "failed" or (status(folder) == "open" and not folder.checkpoint.exists())


@dataclass(frozen=True, slots=True)
class _Change:
    key: str
    old: str | None
    new: str | None


def _changed(folder: RunFolder, trial: Trial) -> _Change | None:
    """The first thing that a trial that is there differs in from the one that is planned; None for nothing."""
    if not folder.config.is_file():
        return None
    old, new = configs.flat(configs.load(folder.config)), configs.flat(trial.config)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and key.split(".")[0] not in _ANY:
            return _Change(key, old.get(key), new.get(key))
    return None


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
