"""A study's trials on Ray Tune: as many at once as the cluster has room for, each in a process and a folder of its own.

Tune places the trials and starts one again whose process died; it then goes on from its own checkpoint. Whatever is to
be known of a trial is in its folder, so Tune's own records are thrown away.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from tightwire import config as configs
from tightwire.errors import ConfigError
from tightwire.studies.folder import StudyFolder, status, write_error
from tightwire.studies.trial import Watcher, carry_out
from tightwire_actors.room import check_room
from tightwire_actors.session import _join, _start

RETRIES = 2
"""How often a trial is begun again after its process died."""
NEWS = 20
"""Times that a trial tells of its progress, about."""

_STORE = ".tune"
"""Tune's own folder in the study's; removed in the end."""
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's folder has its tables
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is handled by whoever started the study
    "TUNE_MAX_PENDING_TRIALS_PG": "1",  # so that few are under way when somebody asks them to stop
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "RAY_AIR_NEW_OUTPUT": "0",  # the only way to keep Tune silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_on_tune(
    study: Path,
    trials: Sequence[str],
    watcher: Watcher,
    stopping: Callable[[], bool],
    workers: int | None,
    address: str | None,
    connected: Callable[[], None],
) -> None:
    """Carry out trials on Ray; see `tightwire.studies.trial.run_here` for doing so without.

    Args:
        study: The study's folder; it must be reachable from all machines of the cluster, and so must the working
            folder, from which the paths of the experiments start.
        trials: Names of those to run, in order.
        watcher: Hears of what happens.
        stopping: Asked several times a second; True lets the trials under way save a checkpoint and end after their
            round, and begins no others.
        workers: At most so many trials at once; None for as many as there is room for.
        address: The cluster: host:port, "auto", "local" or None; as for a run.
        connected: Called once Ray has connected, which takes over the handling of SIGTERM.

    Raises:
        ConfigError: The cluster does not answer.
    """
    folder = StudyFolder(study)
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address not in (None, "", "local"):
            _join(str(address))
            check_room(f"the cluster at {address}", 1, {"CPU": 1.0})
        else:
            _start(min(workers or os.cpu_count() or 1, len(trials)))
        connected()
        fit(folder, trials, watcher, stopping, workers)
    finally:
        ray.shutdown()


def fit(
    folder: StudyFolder,
    trials: Sequence[str],
    watcher: Watcher,
    stopping: Callable[[], bool],
    workers: int | None = None,
) -> None:
    """As `run_on_tune`, on the cluster that this process is connected to."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for logger in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    store = folder.path / _STORE
    shutil.rmtree(store, ignore_errors=True)  # of a driver that was killed
    folder.stop.unlink(missing_ok=True)
    bridge = _Bridge(folder, watcher, stopping)
    try:
        tune.Tuner(
            tune.with_resources(_carry_out, {"cpu": 1}),
            param_space={
                "trial": tune.grid_search(list(trials)),
                "study": str(folder.path),
                "home": str(Path.cwd()),
            },
            tune_config=tune.TuneConfig(
                max_concurrent_trials=workers,
                reuse_actors=True,  # the next trial in a process that has everything imported
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=_STORE,
                storage_path=str(folder.path),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                stop=_Stop(bridge),
                callbacks=[_News(bridge)],
                verbose=0,
            ),
        ).fit()
    finally:
        folder.stop.unlink(missing_ok=True)
        shutil.rmtree(store, ignore_errors=True)


def _name(trial: TuneTrial) -> str:
    return str(trial.config["trial"])


def _carry_out(config: dict[str, Any]) -> None:
    """One trial, in a process of the cluster."""
    try:
        os.chdir(config["home"])
        folder = StudyFolder(Path(config["study"]))
        trial = folder.trial(config["trial"])
        rounds = configs.load(trial.config).rounds
    except (OSError, ConfigError) as error:
        raise ConfigError(
            f"{config['study']}: cannot be reached on a machine of the cluster ({error}); start the study in a folder "
            "that all machines share"
        ) from None
    notes: list[str] = []
    every = max(1, rounds // NEWS)

    def advanced(round: int) -> None:
        if round % every == 0 or notes:
            tune.report({"round": round, "notes": list(notes)})
            notes.clear()

    if folder.stop.exists():
        tune.report({"notes": []})
        return
    carry_out(trial, advanced, notes.append, folder.stop.exists)
    tune.report({"notes": notes, **({"round": rounds} if status(trial) == "finished" else {})})


class _Bridge:
    """What Tune tells, as a watcher of the study hears it, and the wish to stop on its way to the trials."""

    def __init__(self, folder: StudyFolder, watcher: Watcher, stopping: Callable[[], bool]) -> None:
        self._folder = folder
        self._watcher = watcher
        self._stopping = stopping
        self._asked = False
        self._under_way: set[str] = set()

    def started(self, trial: str) -> None:
        if not self._asked and trial not in self._under_way:
            self._under_way.add(trial)
            self._watcher.started(trial)

    def told(self, trial: str, result: dict[str, Any]) -> None:
        for text in result.get("notes", ()):
            self._watcher.note(f"{trial}: {text}")
        if trial in self._under_way and "round" in result:
            self._watcher.advanced(trial, int(result["round"]))

    def died(self, trial: str) -> None:
        if trial in self._under_way:
            self._watcher.note(f"{trial}: its process died; it goes on from its checkpoint in a new one")

    def ended(self, trial: str) -> None:
        if trial in self._under_way:
            self._under_way.remove(trial)
            self._watcher.ended(trial)

    def failed(self, trial: str, line: str, more: str) -> None:
        folder = self._folder.trial(trial)
        if status(folder) == "open":
            write_error(folder, line, more)
        self.ended(trial)

    def over(self) -> bool:
        """Whether Tune shall end: somebody asked, and the trials that were under way have saved what they had."""
        if not self._asked and self._stopping():
            self._asked = True
            self._folder.stop.touch()
        return self._asked and not self._under_way


class _News(tune.Callback):
    """Tune's events for a `_Bridge`."""

    def __init__(self, bridge: _Bridge | None = None) -> None:
        self._bridge = bridge

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()  # Tune keeps a copy on disk, which nobody reads

    def on_trial_start(self, *_: object, **info: Any) -> None:  # Any: Tune's own
        if self._bridge:
            self._bridge.started(_name(info["trial"]))

    def on_trial_result(self, *_: object, **info: Any) -> None:
        if self._bridge:
            self._bridge.told(_name(info["trial"]), info["result"])

    def on_trial_complete(self, *_: object, **info: Any) -> None:
        if self._bridge:
            self._bridge.ended(_name(info["trial"]))

    def on_trial_recover(self, *_: object, **info: Any) -> None:
        if self._bridge:
            self._bridge.died(_name(info["trial"]))

    def on_trial_error(self, *_: object, **info: Any) -> None:
        if self._bridge:
            self._bridge.failed(_name(info["trial"]), *_why(info["trial"]))


class _Stop(tune.Stopper):
    """Ends Tune when its `_Bridge` says so."""

    def __init__(self, bridge: _Bridge | None = None) -> None:
        self._bridge = bridge

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()  # as `_News`

    def __call__(self, *_: object, **__: object) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._bridge is not None and self._bridge.over()


def _why(trial: TuneTrial) -> tuple[str, str]:
    """Why a trial did not end: in one line, and in Ray's words."""
    last = trial.get_pickled_error() or trial.get_error()
    error: BaseException | None = last
    while error is not None and not isinstance(error, ConfigError):
        error = getattr(error, "cause", None) or error.__cause__
    if error is not None:
        return str(error), ""
    line = (
        f"its process died {RETRIES + 1} times; the machine may be short of memory (then try fewer workers), or its "
        "model may crash"
    )
    return line, str(last)
