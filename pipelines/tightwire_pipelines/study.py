"""Studies: many runs of one question, side by side, with one report."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tightwire.errors import ConfigError, TightwireError
from tightwire.federation.records import Summary
from tightwire.learning.samples import FederatedData
from tightwire.simulation import Parts, load_data
from tightwire.studies.folder import StudyFolder, read_summary, status
from tightwire.studies.plan import Plan, Trial, plan
from tightwire.studies.spec import Study, load
from tightwire.studies.statistics import Interval, interval
from tightwire.studies.trial import run_here
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.outbox import RunStatus
from tightwire_pipelines.interrupts import Interrupts
from tightwire_pipelines.study_live import StudyLive
from tightwire_pipelines.units import clock, megabytes

STUDIES = Path("studies")
STOPPING = "stopping: the trials under way end after their round, with a checkpoint; Ctrl-C breaks off"
INTERRUPTED = 130
"""Exit code of a study that was stopped, by the shell's convention."""


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """What the command line asked for."""

    file: Path | None
    overrides: tuple[str, ...] = ()
    seeds: int | None = None
    """How many, in place of what the file says."""
    workers: int | None = None
    """Trials at once; by default as many as there is room for."""
    in_process: bool = False
    out: Path | None = None
    resume: str | None = None
    """A study's folder, or its name below `studies/`."""
    address: str | None = None


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """How a study ended."""

    folder: Path
    finished: int
    """Trials that have their results."""
    failed: int
    open: int
    """Trials that were not begun or were stopped; more than none if the study was."""
    report: Path | None

    @property
    def code(self) -> int:
        """The command's exit code: 0 when all trials and the report are there, 1 when something has failed."""
        return INTERRUPTED if self.open else int(self.failed > 0 or self.report is None)


def start_study(request: StudyRequest, console: Console) -> StudyEnded:
    """Run, or go on with, a study; progress and results go to `console`.

    Raises:
        ConfigError: What was asked for cannot be run; no trial was begun.
        TightwireError: The cluster failed; what the trials had saved stays.
    """
    if request.in_process and request.workers is not None:
        raise ConfigError(f"--workers {request.workers}: --in-process has no workers; give one of the two")
    study, folder = _read(request)
    planned = plan(study)
    if folder is not None:
        folder.keeps(study, planned.trials)
    old = folder or StudyFolder((request.out or STUDIES / study.name).resolve())
    todo = [trial for trial in planned.trials if folder is None or status(old.trial(trial.name)) != "finished"]
    _check(todo)
    if folder is None:
        out = request.out or STUDIES / study.name
        folder = StudyFolder.create(out.parent, out.name)
    with RunFolder(folder.path).locked():
        folder.prepare(study, planned.trials)
        return _run(request, console, study, planned, folder, todo)


def _read(request: StudyRequest) -> tuple[Study, StudyFolder | None]:
    """The study, and its folder if it has one already."""
    if request.resume is None:
        if request.file is None:
            raise ConfigError("study needs a study file, such as those in examples/studies/, or --resume with a folder")
        if request.out is not None and request.out.exists():
            raise ConfigError(
                f"--out {request.out}: is there already; choose another folder, or --resume {request.out}"
            )
        return load(request.file, request.overrides, request.seeds), None
    if request.out is not None:
        raise ConfigError(f"--out {request.out}: a study that is resumed stays in its folder; leave --out away")
    path = Path(request.resume)
    folder = StudyFolder.open(path if path.is_dir() else STUDIES / path)
    return load(request.file or folder.study, request.overrides, request.seeds), folder


def _check(trials: Iterable[Trial]) -> None:
    """See that data and model of each variation are sound, before any trial is begun."""
    checked: set[str] = set()
    loaded: dict[str, FederatedData] = {}
    for trial in trials:
        if trial.label in checked:
            continue
        checked.add(trial.label)
        config = trial.config
        key = "".join(part.model_dump_json() for part in (config.data, config.partition, config.population))
        try:
            if f"{key}{config.seed}" not in loaded:
                loaded[f"{key}{config.seed}"] = load_data(config)
            Parts.of(config, loaded[f"{key}{config.seed}"])
        except TightwireError as error:
            raise ConfigError(f"variation {trial.label!r}: {error}") from None


def _run(
    request: StudyRequest, console: Console, study: Study, planned: Plan, folder: StudyFolder, todo: Sequence[Trial]
) -> StudyEnded:
    place = os.path.relpath(folder.path)
    names = [trial.name for trial in todo]
    before = len(planned.trials) - len(todo)
    live = StudyLive(console, folder, {trial.name: trial.config.rounds for trial in todo}, before)
    where = "in this process" if request.in_process else "on Ray"
    kinds, seeds = len(_by_label(planned)), len(study.seeds)
    counts = f"{len(planned.trials)} trials ({kinds} variations, {seeds} seed{'s' if seeds > 1 else ''})"
    again = f", {before} of them finished before" if before else ""
    console.print(f"[bold]{folder.name}[/] {where}: {counts}{again}", highlight=False, soft_wrap=True)
    recorder = _Recorded(folder, planned)
    became: RunStatus = "failed"
    try:
        watcher = _Both(live, recorder)
        with Interrupts(live.note, STOPPING) as stopping, live.shown():
            if names and request.in_process:
                run_here(folder.path, names, watcher, stopping)
            elif names:
                from tightwire_actors.study import run_on_tune  # ray takes a second to import

                run_on_tune(folder.path, names, watcher, stopping, request.workers, request.address, stopping.install)
        ended = _count(folder, planned)
        became = "killed" if ended.open else "finished"
        if ended.finished and not ended.open:
            ended = replace(ended, report=_report(study, planned, folder, live))
    except KeyboardInterrupt:
        became = "killed"
        console.print(_go_on(place), highlight=False, soft_wrap=True)
        raise
    finally:
        problem = recorder.finish(became)
        if problem is not None:
            console.print(f"note: {problem}", highlight=False, soft_wrap=True, markup=False)
    console.print(summary_table(study, planned, folder))
    _where_to_look(ended, place, recorder.run_id, console)
    return ended


class _Recorded:
    """The study in MLflow, or nowhere."""

    def __init__(self, folder: StudyFolder, planned: Plan) -> None:
        self._recorder = None
        if planned.tracking.to == "nowhere":
            return
        from tightwire.studies.tracked import StudyRecorder, StudySender
        from tightwire.tracking.client import chosen_uri
        from tightwire.tracking.outbox import SendState

        stored = SendState.load(folder.mlflow).tracking_uri if folder.mlflow.is_file() else None
        sender = StudySender(folder, planned.trials, chosen_uri(None, stored), planned.tracking.experiment)
        self._recorder = StudyRecorder(sender)
        for trial in planned.trials:
            if status(folder.trial(trial.name)) == "finished":
                self._recorder.ended(trial.name)

    @property
    def run_id(self) -> str | None:
        return self._recorder.run_id if self._recorder else None

    def ended(self, trial: str) -> None:
        if self._recorder:
            self._recorder.ended(trial)

    def finish(self, became: RunStatus) -> str | None:
        return self._recorder.finish(became) if self._recorder else None


class _Both:
    """A watcher that tells the terminal and the record."""

    def __init__(self, live: StudyLive, recorder: _Recorded) -> None:
        self.started = live.started
        self.advanced = live.advanced
        self.note = live.note
        self._live = live
        self._recorder = recorder

    def ended(self, trial: str) -> None:
        """See `tightwire.studies.trial.Watcher`."""
        self._live.ended(trial)
        self._recorder.ended(trial)


def _count(folder: StudyFolder, planned: Plan) -> StudyEnded:
    became = [status(folder.trial(trial.name)) for trial in planned.trials]
    return StudyEnded(folder.path, became.count("finished"), became.count("failed"), became.count("open"), None)


def _report(study: Study, planned: Plan, folder: StudyFolder, live: StudyLive) -> Path | None:
    """Write the report of the study's own trials; a folder may hold others, of an earlier, larger study.

    Returns:
        The report, or None where it could not be written, which is said and spoils nothing else.
    """
    from tightwire.studies.outcomes import load_trials
    from tightwire_pipelines.report import write_report  # plots take a second to import

    mine = {trial.name for trial in planned.trials}
    try:
        loaded = load_trials(folder.path)
        return write_report(
            folder.path,
            [trial for trial in loaded.trials if trial.source is not None and trial.source.name in mine],
            study.report.title or study.name,
            study.target,
            missing=[trial for trial in loaded.missing if trial.name in mine],
            baseline=study.report.baseline,
            oracle=study.report.oracle,
        )
    except Exception as error:
        again = f"tightwire report {os.path.relpath(folder.path)}"
        live.note(f"the report could not be written ({type(error).__name__}: {error}); all results are there: {again}")
        return None


def summary_table(study: Study, planned: Plan, folder: StudyFolder) -> Table:
    """A line for each variation: means over its seeds, the accuracy's with half a 95 % interval."""
    seeds = len(study.seeds)
    table = Table(
        title=f"{folder.name}: means over {seeds} seed{'s' if seeds > 1 else ''}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("variation", overflow="fold")
    for heading in ("accuracy", "up", "simulated time", "trials"):
        table.add_column(heading, justify="right")
    for label, trials in _by_label(planned).items():
        ends = [status(folder.trial(trial.name)) for trial in trials]
        summaries = [
            read_summary(folder.trial(trial.name)) for trial, end in zip(trials, ends, strict=True) if end == "finished"
        ]
        counts = [f"{ends.count('finished')} ok"]
        counts += [f"{ends.count(end)} {end}" for end in ("failed", "open") if end in ends]
        table.add_row(label, *_figures(summaries), ", ".join(counts), style="red" if "failed" in ends else None)
    return table


def _figures(summaries: Sequence[Summary]) -> tuple[str, str, str]:
    if not summaries:
        return "-", "-", "-"
    up = sum(summary.bytes_up for summary in summaries) / len(summaries)
    seconds = sum(summary.sim_seconds for summary in summaries) / len(summaries)
    return _share(interval([summary.accuracy for summary in summaries])), megabytes(up), clock(seconds)


def _share(found: Interval) -> str:
    if found.mean != found.mean:  # NaN: nothing was evaluated
        return "-"
    return f"{found.mean:.2%}" + (f" ± {100 * found.half:.2f}" if found.n > 1 else "")


def _by_label(planned: Plan) -> dict[str, list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in planned.trials:
        groups.setdefault(trial.label, []).append(trial)
    return groups


def _go_on(place: str) -> str:
    return f"stopped, nothing is lost; go on with: tightwire study --resume {place}"


def _where_to_look(ended: StudyEnded, place: str, run_id: str | None, console: Console) -> None:
    lines = [f"results  {place}/trials/ (a run's folder each)"]
    if ended.report is not None:
        lines.append(f"report   {os.path.relpath(ended.report)}")
    if run_id is not None:
        lines.append(f"MLflow   run {run_id}, with a run below it for each trial")
    if ended.failed:
        lines.append(
            f"failed   {ended.failed} trials, see {place}/trials/*/error.txt; again: tightwire study --resume {place}"
        )
    if ended.open:
        lines.append(_go_on(place))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
