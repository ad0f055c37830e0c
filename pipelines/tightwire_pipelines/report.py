"""`tightwire report RUN...`: a report on runs that exist, from folders or from MLflow; and the report of a study."""

import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tightwire.errors import ConfigError
from tightwire.federation.tables import write_atomically
from tightwire.studies.comparison import compare
from tightwire.studies.outcomes import STUDY, TRIALS, Loaded, Missing, TrialResult, load_runs, load_trials
from tightwire.studies.spec import Study, load
from tightwire.tracking.environment import environment_tags
from tightwire_pipelines.report_mlflow import fetch, is_id
from tightwire_pipelines.report_page import Report, page
from tightwire_pipelines.report_pngs import draw
from tightwire_pipelines.report_sections import sections
from tightwire_pipelines.report_tiers import measure_if_possible

PAGE = "report.html"


def write_report(
    folder: Path,
    trials: Sequence[TrialResult],
    title: str,
    target: float | None,
    *,
    missing: Sequence[Missing] = (),
    baseline: str | None = None,
    oracle: str | None = None,
) -> Path:
    """Write `report.html`, which has all in it, and PNGs of its main figures beside it.

    Args:
        folder: Where they go; made if it does not exist.
        trials: What is compared, variations in the order in which they shall be shown.
        title: The report's heading.
        target: Accuracy in [0, 1] that costs are compared at; None lets the trials decide.
        missing: Trials that failed, which the report names.
        baseline: Variation to compare the others with; None takes the best fixed codec.
        oracle: Variation that shows what foresight gains; None takes the one whose policy is `oracle`.

    Returns:
        The page.

    Raises:
        ConfigError: There is no trial.
        OSError: The folder cannot be written.
    """
    if not trials:
        raise ConfigError("there is no finished trial to report on")
    comparison = compare([_with_tiers(trial) for trial in trials], target, baseline=baseline, oracle=oracle)
    content = tuple(sections(comparison))
    tags = environment_tags(Path.cwd())
    made_with = {key.removeprefix("version."): value for key, value in tags.items() if key.startswith("version.")}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, page(Report(title, comparison, content, tuple(missing), made_with)))
    draw(folder, content, [panel.label for panel in comparison.panels], comparison.names)
    return folder / PAGE


def report_runs(runs: Sequence[str], out: Path, target: float | None, console: Console) -> Path:
    """Report on runs that exist.

    Args:
        runs: Each a run's folder, a study's folder, or the id of a run in MLflow.
        out: Where the report goes.
        target: As for `write_report`; None takes the study's own, where there is one study.
        console: Where the findings and the place of the report are said.

    Raises:
        ConfigError: One of `runs` is nothing of the kind, or has not finished.
        TrackingError: A run is damaged, or MLflow does not answer.
    """
    if not runs:
        raise ConfigError("report needs runs: folders of runs or studies, or ids of MLflow runs")
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"--target {target:g}: should be an accuracy above 0 and up to 1, such as 0.9")
    with tempfile.TemporaryDirectory(prefix="tightwire-report-") as scratch:
        loaded = _load(runs, Path(scratch))
        study = _study(runs)
        path = write_report(
            out,
            loaded.trials,
            _title(runs) if study is None else study.report.title or study.name,
            target if target is not None or study is None else study.target,
            missing=loaded.missing,
            baseline=None if study is None else study.report.baseline,
            oracle=None if study is None else study.report.oracle,
        )
    for one in loaded.missing:
        console.print(f"note: {one.name} is not in it: {one.why}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"report   {os.path.relpath(path)}", highlight=False, soft_wrap=True, markup=False)
    return path


def _with_tiers(trial: TrialResult) -> TrialResult:
    """The trial with its accuracy by tier, if it can be measured and was not yet."""
    if trial.source is None or any(share.accuracy is not None for share in trial.tiers.values()):
        return trial
    accuracy = measure_if_possible(trial.source)
    tiers = {tier: replace(share, accuracy=accuracy.get(tier)) for tier, share in trial.tiers.items()}
    return replace(trial, tiers=tiers)


def _load(runs: Sequence[str], scratch: Path) -> Loaded:
    """All trials of studies, and all runs together, which name one another by what they differ in.

    Variations of several studies have their study's name before their own: what two studies call the same may be two
    things.
    """
    trials: list[TrialResult] = []
    missing: list[Missing] = []
    places = [_place(run) or fetch(run, scratch) for run in runs]
    folders = [place for place in places if not (place / TRIALS).is_dir()]
    studies = [place for place in places if place not in folders]
    names = _told_apart({place.resolve() for place in studies})
    for place in studies:
        loaded = load_trials(place)
        if len(names) > 1:
            loaded = _prefixed(loaded, names[place.resolve()])
        trials += loaded.trials
        missing += loaded.missing
    loaded = load_runs(folders) if folders else Loaded(())
    return _once(Loaded((*trials, *loaded.trials), (*missing, *loaded.missing)))


def _told_apart(folders: Collection[Path]) -> dict[Path, str]:
    """Names of different folders, with as much of the path as tells them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in folders}) < len(folders):
        depth += 1
    return {path: "/".join(path.parts[-depth:]) for path in folders}


def _prefixed(loaded: Loaded, study: str) -> Loaded:
    trials = (replace(trial, variation=f"{study}: {trial.variation}") for trial in loaded.trials)
    return Loaded(tuple(trials), tuple(replace(one, name=f"{study}/{one.name}") for one in loaded.missing))


def _once(loaded: Loaded) -> Loaded:
    """One trial for each variation, point and seed; the same one twice would count as two seeds, falsely."""
    kept: dict[tuple[str, str, int], TrialResult] = {}
    missing = list(loaded.missing)
    for trial in loaded.trials:
        first = kept.setdefault((trial.variation, repr(sorted(trial.axes.items())), trial.seed), trial)
        if first is not trial:
            name = trial.experiment if trial.source is None else trial.source.name
            missing.append(Missing(name, f"has the variation, point and seed of {first.source}, which is in it"))
    return Loaded(tuple(kept.values()), tuple(missing))


def _place(run: str) -> Path | None:
    """The folder that is meant, a name below runs/ or studies/ included; None for what looks like an id in MLflow.

    Raises:
        ConfigError: There is no such folder, and it is no id.
    """
    for path in (Path(run), Path("runs") / run, Path("studies") / run):
        if path.is_dir():
            return path
    if is_id(run):
        return None
    raise ConfigError(f"{run} is neither the folder of a run or a study nor the id of an MLflow run (32 hex digits)")


def _study(runs: Sequence[str]) -> Study | None:
    """The study that is reported on, if it is one and has its file."""
    place = _place(runs[0]) if len(runs) == 1 else None
    return load(place / STUDY) if place is not None and (place / STUDY).is_file() else None


def _title(runs: Sequence[str]) -> str:
    names = [Path(run).name for run in runs]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
