"""What a study compares: one trial's curve, its bill by device tier and its decisions over time, read from its folder.

A trial's folder is a run's folder (`tracking.folder`) with a `trial.json` beside the usual files: ``{"variation": name,
"axes": {key: value}, "seed": int}``. Only the columns that are needed are read, by name, so that tables with further
columns serve as well.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tightwire.arrays import AnyArray, Floats, Ints
from tightwire.errors import ConfigError, TrackingError
from tightwire.studies import reading
from tightwire.studies.naming import Value, name_runs
from tightwire.tracking.folder import RunFolder

TRIAL = "trial.json"
STUDY = "study.yaml"
TRIALS = "trials"
ALL_TIERS = "all tiers"
"""Key of the choices of all clients together."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One trial round by round; all arrays have shape (rounds,)."""

    rounds: Ints
    accuracy: Floats
    """Test accuracy in [0, 1]; NaN in rounds without evaluation."""
    up: Floats
    """Bytes that clients have sent so far."""
    down: Floats
    """Bytes that clients were sent so far."""
    seconds: Floats
    """Simulated clock at the end of the round."""
    joules: Floats
    """Energy of all clients so far."""

    @property
    def total(self) -> Floats:
        """Bytes up and down so far."""
        return self.up + self.down

    @property
    def final_accuracy(self) -> float:
        """Accuracy of the last evaluated round; NaN where there is none."""
        seen = self.accuracy[~np.isnan(self.accuracy)]
        return float(seen[-1]) if len(seen) else math.nan


@dataclass(frozen=True, slots=True)
class TierShare:
    """What the clients of one device tier paid and got."""

    asked: int
    """Times that a client of this tier was asked to take part."""
    used: int
    """Times that its update was used."""
    bytes_up: int
    bytes_down: int
    bits: float
    """Mean quantiser bits over its uploads; NaN where it sent nothing."""
    density: float
    """Mean kept fraction over its uploads; NaN where it sent nothing."""
    accuracy: float | None = None
    """Accuracy of the final model on what this tier's clients see, in [0, 1], where it was measured."""

    @property
    def participation(self) -> float:
        """Share of the times asked in which the update was used, in [0, 1]; NaN where nobody was asked."""
        return self.used / self.asked if self.asked else math.nan


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen in each round; all arrays have shape (rounds,), as the curve's."""

    bits: Floats
    """Mean bits over the round's uploads; NaN where nothing was sent."""
    density: Floats
    """Mean kept fraction over the round's uploads; NaN where nothing was sent."""
    bytes: Floats
    """Mean length of the round's uploads in bytes; NaN where nothing was sent."""
    skipped: Floats
    """Share of those who decided that sent nothing, in [0, 1]; NaN where nobody decided."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial of a study: one variation, at one point of the grid, with one seed."""

    variation: str
    axes: Mapping[str, Value]
    """The point of the grid by axis; empty where the study has none."""
    seed: int
    curve: Curve
    tiers: Mapping[str, TierShare] = field(default_factory=dict)
    choices: Mapping[str, Choices] = field(default_factory=dict)
    """By tier, and under `ALL_TIERS`."""
    policy: str = ""
    """Name of the policy, such as ``"fixed"``."""
    experiment: str = ""
    """Name of the run, or of its MLflow experiment."""
    digest: str = ""
    """SHA-256 over final model, ledger and decisions; empty where unknown."""
    config: Mapping[str, str] = field(default_factory=dict)
    """The resolved config, flat: ``{"training.lr": "0.1", ...}``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions that the run was made with, where they were recorded."""
    source: Path | None = None
    """The run's folder, where it has one."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A trial that is not in the comparison."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The trials that could be read, and those that could not."""

    trials: tuple[TrialResult, ...]
    missing: tuple[Missing, ...] = ()


def load_trials(study: Path) -> Loaded:
    """Read all finished trials of a study's folder; those that failed or never ended are named instead.

    Args:
        study: The study's folder; its trials are in `trials/`.

    Raises:
        ConfigError: It is no study's folder, or none of its trials has finished.
    """
    folder = study / TRIALS
    if not folder.is_dir():
        raise ConfigError(f"{study} is no study's folder, it has no trials/; give the folder of a study or of a run")
    trials, missing = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            trials.append(load_trial(path))
        except TrackingError as error:
            missing.append(Missing(path.name, str(error)))
    if not trials:
        why = f"; the first says: {missing[0].why}" if missing else ""
        raise ConfigError(f"{study}: none of its {len(missing)} trials has finished{why}")
    order = reading.order(study / STUDY)
    trials.sort(key=lambda trial: order.index(_stem(trial.variation, order)))
    return Loaded(tuple(trials), tuple(missing))


def load_trial(folder: Path) -> TrialResult:
    """Read one trial.

    Raises:
        TrackingError: It has not finished, or one of its files is missing or damaged.
    """
    trial = reading.json_object(folder / TRIAL)
    try:
        name, seed = str(trial["variation"]), int(str(trial["seed"]))
        axes = {str(key): _value(value) for key, value in dict(trial.get("axes") or {}).items()}  # type: ignore[call-overload]  # JSON
    except (KeyError, TypeError, ValueError):
        raise TrackingError(f"{folder / TRIAL} is no trial's: it should have variation, axes and seed") from None
    config = reading.config(folder)
    return _read(folder, name, axes, seed, config)


def load_runs(paths: Sequence[Path]) -> Loaded:
    """Read runs that no study made; they are named by what their configs differ in.

    What describes the world (population, links, data and so on) becomes an axis, and what describes how it is met
    (policy, codec, feedback) becomes the variation. Two runs of the same config and seed are one.

    Args:
        paths: Folders of runs.

    Raises:
        ConfigError: A path is no run's folder, or a run has not finished.
        TrackingError: One of its files is damaged.
    """
    folders = [RunFolder.open(path).path for path in paths]
    for folder in folders:
        if not RunFolder(folder).summary.is_file():
            raise ConfigError(f"run {folder} {reading.why(folder)}; go on with: tightwire run --resume {folder}")
    trials: list[TrialResult] = []
    missing: list[Missing] = []
    configs = [reading.config(folder) for folder in folders]
    seen: dict[tuple[str, str, int], str] = {}
    for folder, config, (name, axes) in zip(folders, configs, name_runs(configs), strict=True):
        seed = _seed(folder, config)
        point = (name, repr(sorted(axes.items())), seed)
        if point in seen:
            missing.append(Missing(folder.name, f"is {seen[point]} once more: same config, same seed"))
        else:
            seen[point] = folder.name
            trials.append(_read(folder, name, axes, seed, config))
    return Loaded(tuple(trials), tuple(missing))


def curve_of(columns: Mapping[str, AnyArray]) -> Curve:
    """A curve from the columns of `RoundRecord`, each of shape (rounds,)."""
    return Curve(
        rounds=columns["round"].astype(np.int64),
        accuracy=columns["accuracy"].astype(np.float64),
        up=np.cumsum(columns["bytes_up"], dtype=np.float64),
        down=np.cumsum(columns["bytes_down"], dtype=np.float64),
        seconds=columns["sim_seconds"].astype(np.float64),
        joules=np.cumsum(columns["joules"], dtype=np.float64),
    )


def _seed(folder: Path, config: Mapping[str, str]) -> int:
    try:
        return int(config.get("seed", "0"))
    except ValueError:
        raise TrackingError(
            f"{folder / 'config.yaml'}: seed: should be a number (received {config['seed']!r})"
        ) from None


def _read(folder: Path, variation: str, axes: Mapping[str, Value], seed: int, config: Mapping[str, str]) -> TrialResult:
    run = RunFolder(folder)
    if not run.summary.is_file():
        raise TrackingError(reading.why(folder))
    summary = reading.json_object(run.summary)
    curve = curve_of(reading.columns(run.rounds, "round accuracy bytes_up bytes_down sim_seconds joules"))
    decisions = reading.columns(run.decisions, "round client tier codec bits density bytes status")
    ledger = reading.columns(run.ledger, "round client tier direction bytes")
    digest = str(summary.get("digest") or "")
    return TrialResult(
        variation=variation,
        axes=axes,
        seed=seed,
        curve=curve,
        tiers=dict(_tiers(decisions, ledger, reading.tier_accuracy(folder, digest))),
        choices=dict(_choices(decisions, curve.rounds)),
        policy=config.get("policy.name", ""),
        experiment=config.get("name", folder.name),
        digest=digest,
        config=config,
        versions=reading.versions(run),
        source=folder,
    )


def _tiers(
    decisions: Mapping[str, AnyArray], ledger: Mapping[str, AnyArray], accuracy: Mapping[str, float]
) -> Iterator[tuple[str, TierShare]]:
    for tier in sorted(set(ledger["tier"]) | set(decisions["tier"])):
        frames, mine = ledger["tier"] == tier, decisions["tier"] == tier
        up, sent = ledger["direction"] == "up", mine & (decisions["codec"] != "")
        asked = {
            *zip(decisions["round"][mine].tolist(), decisions["client"][mine].tolist(), strict=True),
            *zip(ledger["round"][frames].tolist(), ledger["client"][frames].tolist(), strict=True),
        }
        yield (
            str(tier),
            TierShare(
                asked=len(asked),
                used=int((mine & (decisions["status"] == "used")).sum()),
                bytes_up=int(ledger["bytes"][frames & up].sum()),
                bytes_down=int(ledger["bytes"][frames & ~up].sum()),
                bits=_mean(decisions["bits"][sent]),
                density=_mean(decisions["density"][sent]),
                accuracy=accuracy.get(str(tier)),
            ),
        )


def _choices(decisions: Mapping[str, AnyArray], rounds: Ints) -> Iterator[tuple[str, Choices]]:
    everybody = np.ones(len(decisions["round"]), dtype=bool)
    tiers = [(str(tier), decisions["tier"] == tier) for tier in sorted(set(decisions["tier"]))]
    for name, mine in [(ALL_TIERS, everybody), *tiers]:
        sent = mine & (decisions["codec"] != "")
        at = np.searchsorted(rounds, decisions["round"])
        decided = np.bincount(at[mine], minlength=len(rounds)).astype(np.float64)
        uploads = np.bincount(at[sent], minlength=len(rounds)).astype(np.float64)
        means = {
            column: _ratio(np.bincount(at[sent], decisions[column][sent], minlength=len(rounds)), uploads)
            for column in ("bits", "density", "bytes")
        }
        yield name, Choices(**means, skipped=1.0 - _ratio(uploads, decided))


def _stem(variation: str, names: Sequence[str]) -> str:
    """The name that a variation has in the study's file: a grid adds to it."""
    return next((name for name in names if variation == name or variation.startswith(f"{name}, ")), "")


def _ratio(sums: AnyArray, counts: Floats) -> Floats:
    ratios = np.full(len(counts), math.nan)
    np.divide(sums, counts, out=ratios, where=counts > 0)
    return ratios


def _mean(values: AnyArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _value(value: object) -> Value:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
