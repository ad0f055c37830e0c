"""Carrying out one trial in its folder, wherever that is done; and a study's trials one after the other, right here."""

import shutil
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tightwire import config as configs
from tightwire.errors import TightwireError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import RoundRecord
from tightwire.simulation import Parts, Simulation
from tightwire.studies.folder import ERROR, StudyFolder, write_error
from tightwire.tracking.base import NullTracker, RunInfo
from tightwire.tracking.folder import RunFolder


class Watcher(Protocol):
    """Whoever watches a study while it goes; what a trial came to is in its folder."""

    def started(self, trial: str) -> None:
        """A trial begins, or goes on."""
        ...

    def advanced(self, trial: str, round: int) -> None:
        """A trial has closed so many rounds."""
        ...

    def ended(self, trial: str) -> None:
        """A trial is over: finished, failed, or stopped on request."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know, in one line."""
        ...


def carry_out(
    folder: RunFolder,
    advanced: Callable[[int], None],
    note: Callable[[str], None],
    stopping: Callable[[], bool],
) -> None:
    """Run a trial from its start or its checkpoint; whatever goes wrong is noted in its folder and not raised.

    Args:
        folder: The trial's folder, with its config.
        advanced: Told how many rounds have closed.
        note: Told what a person should know.
        stopping: Asked between rounds; True saves a checkpoint and ends the trial early.

    Raises:
        OSError: Not even the failure could be noted.
    """
    (folder.path / ERROR).unlink(missing_ok=True)
    try:
        config = configs.load(folder.config)
        parts = Parts.load(config)
        pool = InProcessPool(parts.runner())
        try:
            simulation = Simulation(parts, folder, pool, NullTracker(), _Ear(advanced, note))
            ended = simulation.run(RunInfo(folder.name, folder.path, configs.flat(config)), stopping)
        finally:
            pool.close()
        if ended.summary is not None:
            shutil.rmtree(folder.checkpoint, ignore_errors=True)  # of no more use, and as large as all residuals
    except TightwireError as error:
        write_error(folder, " ".join(str(error).split()))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        write_error(folder, reason, traceback.format_exc())


def run_here(study: Path, trials: Sequence[str], watcher: Watcher, stopping: Callable[[], bool]) -> None:
    """Carry out trials one after the other in this process.

    Args:
        study: The study's folder.
        trials: Names of those to run.
        watcher: Hears of what happens.
        stopping: Asked between rounds; True ends the trial under way with a checkpoint, and all that follow.
    """
    folder = StudyFolder(study)
    for name in trials:
        if stopping():
            return
        watcher.started(name)
        carry_out(folder.trial(name), _Told(watcher, name).advanced, _Told(watcher, name).note, stopping)
        watcher.ended(name)


class _Told:
    """A watcher of a study as one trial sees it."""

    def __init__(self, watcher: Watcher, trial: str) -> None:
        self._watcher = watcher
        self._trial = trial

    def advanced(self, round: int) -> None:
        self._watcher.advanced(self._trial, round)

    def note(self, text: str) -> None:
        self._watcher.note(f"{self._trial}: {text}")


class _Ear:
    """The listener of a trial's simulation."""

    def __init__(self, advanced: Callable[[int], None], note: Callable[[str], None]) -> None:
        self._advanced = advanced
        self.note = note

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """See `tightwire.simulation.Listener`."""
        self._advanced(len(records))

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        self._advanced(record.round)
