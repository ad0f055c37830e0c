"""What a study's report is made of, in order: sections of charts, for each point of the grid and each choice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tightwire.studies.comparison import COSTS, JOULES, SECONDS, TOTAL, UP, Comparison, Cost, Panel
from tightwire.studies.naming import Value
from tightwire.studies.outcomes import ALL_TIERS
from tightwire_pipelines import report_content as charts
from tightwire_pipelines.report_charts import Chart

BEST_FIXED = "the best fixed codec"


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its charts side by side, for each panel and choice."""

    key: str
    title: str
    text: str
    charts: Mapping[tuple[int, str], tuple[Chart, ...]]
    """By the panel's number and the choice; the panel is -1 where the section is about all of them."""
    choices: tuple[str, ...] = ("",)
    """What the reader may choose from; one that is empty is no choice."""
    asks: str = ""
    """What is chosen, such as ``tier``."""


def sections(comparison: Comparison) -> Iterator[Section]:
    """All sections of charts."""
    panels = comparison.panels
    if comparison.axes and len(comparison.names) > 1:
        yield headline(comparison)
    yield _each(
        "pareto",
        "What accuracy costs",
        "Best accuracy so far against what was spent for it: mean over seeds, with 95 % bands. The thick grey line is "
        "the Pareto front: the best that any variation had for that much. A marker is where a variation's runs end.",
        panels,
        lambda panel: [charts.pareto(panel, cost) for cost in COSTS],
    )
    yield _each(
        "target",
        "To the target",
        "What was spent when test accuracy was first at the target, not interpolated. Ticks are seeds, the marker is "
        "their median; seeds that never got there count as dearer than all others, and where half or more did not, "
        "there is no median.",
        panels,
        lambda panel: [charts.to_target(panel, cost) for cost in (SECONDS, UP, TOTAL, JOULES)],
    )
    if len(comparison.names) > 1:
        yield _differences(comparison)
        yield _each(
            "regret",
            "Regret",
            "How much worse a variation is than the best fixed codec, chosen in hindsight (upper marker, first "
            "number), and than the oracle, which sees the links' future (diamond, second number). Negative is better.",
            panels,
            lambda panel: [charts.regret(panel, cost) for cost in (SECONDS, UP, None)],
        )
        yield _each(
            "hypervolume",
            "Hypervolume",
            "The whole curve in one number: the share that it dominates of the box from least to most spent.",
            panels,
            lambda panel: [charts.hypervolume(panel, cost) for cost in COSTS],
        )
    yield _each(
        "tiers",
        "Who paid",
        "What each device tier sent and got. Points are means over seeds, with 95 % intervals.",
        panels,
        lambda panel: [charts.who_paid(panel, what) for what in ("bits", "bytes", "participation", "accuracy")],
    )
    yield _decisions(comparison)


def headline(comparison: Comparison) -> Section:
    """What is saved along the grid's main axis, at each point of the others."""
    axes = comparison.axes
    main = max(axes, key=lambda key: (_numeric(axes[key]), len(axes[key])))
    rest = [{key: value for key, value in panel.axes.items() if key != main} for panel in comparison.panels]
    found: dict[tuple[int, str], tuple[Chart, ...]] = {}
    choices = tuple(dict.fromkeys(_words(point) for point in rest))
    policies = {variation.name: variation.policy for panel in comparison.panels for variation in panel.variations}
    names = [name for name in comparison.names if policies[name] != "fixed"] or list(comparison.names)
    for choice in choices:
        panels = [panel for panel, point in zip(comparison.panels, rest, strict=True) if _words(point) == choice]
        found[-1, choice] = tuple(charts.savings(panels, names, main, cost) for cost in (SECONDS, UP))
    name = main.split(".")[-1]
    named = next((p.baseline for p in comparison.panels if p.baseline is not None and p.find(p.baseline)), None)
    reference = "the best that is fixed there" if named is None else f"the baseline, {named}"
    text = (
        f"What each policy saves to the target at each {name}, against {reference}, seed by seed. "
        "Above zero it is cheaper."
    )
    return Section("headline", f"Saving against {name}", text, found, choices, "at")


def _differences(comparison: Comparison) -> Section:
    first = comparison.panels[0]
    default = first.baseline if first.baseline and first.find(first.baseline) else None
    usual = default or (BEST_FIXED if first.best_fixed(None) else comparison.names[0])
    choices = tuple(dict.fromkeys([usual, *comparison.names]))
    found: dict[tuple[int, str], tuple[Chart, ...]] = {}
    costs: tuple[Cost | None, ...] = (None, SECONDS, UP, TOTAL, JOULES)
    for number, panel in enumerate(comparison.panels):
        for choice in choices:
            pairs = [(cost, panel.best_fixed(cost) if choice == BEST_FIXED else panel.find(choice)) for cost in costs]
            found[number, choice] = tuple(
                charts.differences(panel, cost, other) for cost, other in pairs if other is not None
            )
    matters = first.thresholds
    text = (
        "Differences between runs of the same seed, with 95 % t-intervals. Better or worse is said where the interval "
        "excludes zero, the p value after Holm's correction over the chart's comparisons is at most 0.05, and the "
        f"difference is at least {100 * matters.accuracy:g} points or {matters.cost:g} %. A hollow marker is a bound: "
        "some seeds of one side never reached the target, and count with all that they spent. The p values are shown "
        "when a point is pointed at."
    )
    return Section("differences", "Differences", text, found, choices, "against")


def _decisions(comparison: Comparison) -> Section:
    trials = [trial for panel in comparison.panels for variation in panel.variations for trial in variation.trials]
    tiers = tuple(dict.fromkeys([ALL_TIERS, *sorted({tier for trial in trials for tier in trial.choices})]))
    skips = any((choices.skipped > 0).any() for trial in trials for choices in trial.choices.values())
    whats: list[Literal["bits", "density", "bytes", "skipped"]] = ["bits", "density", "bytes"]
    whats += ["skipped"] if skips else []
    found: dict[tuple[int, str], tuple[Chart, ...]] = {
        (number, tier): tuple(charts.decisions(panel, what, tier) for what in whats)
        for number, panel in enumerate(comparison.panels)
        for tier in tiers
    }
    text = "What was chosen round by round: means over the round's uploads and the seeds, smoothed over a few rounds."
    return Section("decisions", "Decisions over time", text, found, tiers, "tier")


def _each(
    key: str, title: str, text: str, panels: Sequence[Panel], build: Callable[[Panel], Sequence[Chart]]
) -> Section:
    return Section(key, title, text, {(number, ""): tuple(build(panel)) for number, panel in enumerate(panels)})


def _numeric(values: Sequence[Value]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _words(point: Mapping[str, Value]) -> str:
    return ", ".join(f"{key.split('.')[-1]} = {value}" for key, value in point.items())
