"""A study's trials, compared: within each point of the grid, every variation beside every other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from tightwire.arrays import Floats
from tightwire.studies import statistics
from tightwire.studies.naming import Value
from tightwire.studies.outcomes import TrialResult
from tightwire.studies.statistics import Interval, Paired, ToTarget


@dataclass(frozen=True, slots=True)
class Cost:
    """Something that accuracy is paid with."""

    key: str
    """`up`, `total`, `seconds` or `joules`."""
    label: str
    """As in "MB up to 90 %"."""
    noun: str
    """As in "saves 12 % of the bytes up"."""

    def of(self, trial: TrialResult) -> Floats:
        """Spent so far, round by round, shape (rounds,); bytes, seconds or joules."""
        spent: Floats = getattr(trial.curve, self.key)
        return spent


UP = Cost("up", "bytes up", "bytes up")
TOTAL = Cost("total", "bytes total", "bytes in both directions")
SECONDS = Cost("seconds", "simulated time", "simulated time")
JOULES = Cost("joules", "energy", "energy")
COSTS = (UP, TOTAL, SECONDS, JOULES)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The smallest differences that matter."""

    accuracy: float = 0.002
    """Share of the test set: 0.2 points."""
    cost: float = 2.0
    """Percent of bytes, time or energy."""


@dataclass(frozen=True)
class Variation:
    """One variation at one point of the grid: its trials, one a seed."""

    name: str
    trials: tuple[TrialResult, ...]
    """Ascending by seed."""

    @property
    def policy(self) -> str:
        """Name of its policy."""
        return self.trials[0].policy

    @cached_property
    def accuracies(self) -> dict[int, float]:
        """Final accuracy by seed, in [0, 1]."""
        return {trial.seed: trial.curve.final_accuracy for trial in self.trials}

    @property
    def accuracy(self) -> Interval:
        """Final accuracy over seeds, in [0, 1]."""
        return statistics.interval([value for value in self.accuracies.values() if not math.isnan(value)])

    def spent(self, cost: Cost) -> dict[int, float]:
        """All that each seed's run cost."""
        return {trial.seed: float(cost.of(trial)[-1]) if len(cost.of(trial)) else 0.0 for trial in self.trials}

    def bill(self, cost: Cost) -> Interval:
        """All that a run cost, over seeds."""
        return statistics.interval(list(self.spent(cost).values()))

    def crossings(self, cost: Cost, target: float) -> dict[int, float | None]:
        """What each seed spent until it first was at the target; None for those that never were."""
        return {
            trial.seed: statistics.first_crossing(trial.curve.accuracy, cost.of(trial), target) for trial in self.trials
        }

    def to_target(self, cost: Cost, target: float) -> ToTarget:
        """What reaching the target cost, over seeds."""
        return statistics.to_target(list(self.crossings(cost, target).values()))

    def attained(self, cost: Cost, grid: Floats) -> tuple[Floats, Floats, Floats]:
        """Best accuracy by cost, mean and 95 % band over seeds; three arrays of the grid's shape."""
        return statistics.band([statistics.attained(t.curve.accuracy, cost.of(t), grid) for t in self.trials])


@dataclass(frozen=True)
class Panel:
    """All variations at one point of the grid."""

    axes: Mapping[str, Value]
    variations: tuple[Variation, ...]
    target: float
    """Accuracy in [0, 1] that costs are compared at."""
    thresholds: Thresholds
    baseline: str | None = None
    """Variation to compare with, where somebody named one."""
    seer: str | None = None
    """Variation that shows what foresight gains, where somebody named one."""

    @property
    def label(self) -> str:
        """The point in words, such as ``spread = 4``; empty where the study has no axes."""
        return ", ".join(f"{key.split('.')[-1]} = {value}" for key, value in self.axes.items())

    def find(self, name: str) -> Variation | None:
        """The variation called so, if this point has it."""
        return next((variation for variation in self.variations if variation.name == name), None)

    @property
    def oracle(self) -> Variation | None:
        """The variation that sees the future, if there is one."""
        if self.seer is not None:
            return self.find(self.seer)
        return next((variation for variation in self.variations if variation.policy == "oracle"), None)

    def best_fixed(self, cost: Cost | None) -> Variation | None:
        """The fixed codec that, in hindsight, does best: cheapest to the target, or most accurate.

        Args:
            cost: What to be cheap in; None for accuracy at the end.

        Returns:
            None without fixed variations. Where none has a median to the target, the one that most seeds reached it
            with, and of those the most accurate.
        """
        fixed = [variation for variation in self.variations if variation.policy == "fixed"]
        if not fixed:
            return None

        def rank(variation: Variation) -> tuple[float, float, float]:
            accuracy = variation.accuracy.mean
            worth = -accuracy if not math.isnan(accuracy) else math.inf
            if cost is None:
                return (worth, 0.0, 0.0)
            reached = variation.to_target(cost, self.target)
            median = math.inf if reached.median is None else reached.median
            return (median, -reached.fraction, worth)

        return min(fixed, key=rank)

    def reference(self, cost: Cost | None) -> Variation:
        """What others are compared with: the baseline if there is one, or else the best fixed codec, or the first."""
        named = None if self.baseline is None else self.find(self.baseline)
        return named or self.best_fixed(cost) or self.variations[0]

    def against(self, reference: Variation, cost: Cost | None) -> dict[str, Paired]:
        """Each other variation's paired difference to one, judged as one family.

        Args:
            reference: What to compare with.
            cost: The cost to the target, in percent; None for accuracy at the end, as a difference in [-1, 1].
        """
        others = [variation for variation in self.variations if variation.name != reference.name]
        if cost is None:
            family = [statistics.paired(other.accuracies, reference.accuracies) for other in others]
            judged = statistics.judge(family, matters=self.thresholds.accuracy, more_is="better")
        else:
            theirs, spent = reference.crossings(cost, self.target), reference.spent(cost)
            family = [
                statistics.paired_costs(other.crossings(cost, self.target), theirs, other.spent(cost), spent)
                for other in others
            ]
            judged = statistics.judge(family, matters=self.thresholds.cost, more_is="worse")
        return {other.name: comparison for other, comparison in zip(others, judged, strict=True)}

    def box(self, cost: Cost) -> tuple[float, float] | None:
        """Least and most that any trial had spent when it was first, and last, evaluated; None if none ever was."""
        ends = [
            (float(spent[0]), float(spent[-1]))
            for variation in self.variations
            for trial in variation.trials
            if len(spent := cost.of(trial)[~np.isnan(trial.curve.accuracy)])
        ]
        low, high = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)
        return (low, high) if 0 < low < high else None

    def hypervolume(self, variation: Variation, cost: Cost) -> Interval:
        """Share of the box that a variation dominates, over seeds, in [0, 1].

        The box reaches from the least to the most that any trial here spent, on a logarithmic scale, and from
        accuracy 0 to 1; the reference point is its worst corner: the most spent, and accuracy 0.
        """
        box = self.box(cost)
        if box is None:
            return statistics.interval([])
        low, high = math.log10(box[0]), math.log10(box[1])
        volumes = []
        for trial in variation.trials:
            seen = ~np.isnan(trial.curve.accuracy)
            pairs = zip(cost.of(trial)[seen], trial.curve.accuracy[seen], strict=True)
            points = [(math.log10(spent), float(accuracy)) for spent, accuracy in pairs if spent > 0]
            volumes.append(statistics.hypervolume(points, (high, 0.0)) / (high - low))
        return statistics.interval(volumes)


@dataclass(frozen=True)
class Comparison:
    """A whole study, compared."""

    panels: tuple[Panel, ...]
    names: tuple[str, ...]
    """The variations in the order in which the trials name them."""
    target: float
    chosen: bool
    """Whether the target was asked for; otherwise it follows from the trials."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the study."""
        return tuple(
            sorted({t.seed for panel in self.panels for variation in panel.variations for t in variation.trials})
        )

    @property
    def axes(self) -> dict[str, list[Value]]:
        """The grid's axes and the values on them, in order."""
        keys = list(self.panels[0].axes) if self.panels else []
        return {key: list(dict.fromkeys(panel.axes[key] for panel in self.panels)) for key in keys}


def compare(
    trials: Sequence[TrialResult],
    target: float | None = None,
    *,
    thresholds: Thresholds | None = None,
    baseline: str | None = None,
    oracle: str | None = None,
) -> Comparison:
    """Sort a study's trials into panels.

    Args:
        trials: In the order in which variations shall be shown.
        target: Accuracy in [0, 1] to compare costs at; None takes 97 % of the best variation's accuracy where the
            best is lowest, in full half points.
        thresholds: The smallest differences that matter.
        baseline: Variation to compare the others with; None takes the best fixed codec.
        oracle: Variation that shows what foresight gains; None takes the one whose policy is `oracle`.
    """
    names = tuple(dict.fromkeys(trial.variation for trial in trials))
    axes = dict.fromkeys(axis for trial in trials for axis in trial.axes)
    points: dict[tuple[tuple[str, Value], ...], list[TrialResult]] = {}
    for trial in trials:
        point = tuple(sorted((axis, trial.axes.get(axis, "none")) for axis in axes))  # runs of several studies
        points.setdefault(point, []).append(trial)
    ordered = sorted(points, key=lambda point: [_order(value) for _, value in point])
    grouped = [(point, _variations(points[point], names)) for point in ordered]
    goal = _target([variations for _, variations in grouped]) if target is None else target
    panels = tuple(
        Panel(dict(point), variations, goal, thresholds or Thresholds(), baseline, oracle)
        for point, variations in grouped
    )
    return Comparison(panels, names, goal, target is not None)


def _variations(trials: Sequence[TrialResult], names: Sequence[str]) -> tuple[Variation, ...]:
    mine = {name: [trial for trial in trials if trial.variation == name] for name in names}
    return tuple(
        Variation(name, tuple(sorted(found, key=lambda trial: trial.seed))) for name, found in mine.items() if found
    )


def _order(value: Value) -> tuple[int, float, str]:
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")


def _target(panels: Sequence[Sequence[Variation]]) -> float:
    """97 % of the accuracy that the best variation has at its best, in the panel where that is least."""
    best = [max((_median_best(variation) for variation in variations), default=-math.inf) for variations in panels]
    known = [accuracy for accuracy in best if math.isfinite(accuracy)]
    return math.floor(min(known) * 0.97 * 200) / 200 if known else 0.5


def _median_best(variation: Variation) -> float:
    bests = [list(accumulate((a for a in t.curve.accuracy if not math.isnan(a)), max))[-1:] for t in variation.trials]
    known = sorted(float(best[0]) for best in bests if best)
    return known[(len(known) - 1) // 2] if known else -math.inf
