"""What a study found, in words, and how sure it is: one paragraph, made from the numbers."""

import math
from collections.abc import Callable, Iterator, Sequence

from tightwire.studies.comparison import SECONDS, UP, Comparison, Cost, Panel, Variation
from tightwire.studies.statistics import FEWEST_PAIRS, VERDICTS, Paired, Verdict

MINUS = "\N{MINUS SIGN}"
MOST_NAMED = 5
"""Variations that get a clause each."""
MANY_SEEDS = 5
"""Seeds below which the paragraph says that they are few."""


_UNDECIDED = {
    "is undecided": ("exact",),
    "missed the target": ("at least",),
    "is undecided, for what it is compared with missed the target in some seeds": ("at most",),
    "cannot be compared, for both missed the target in some seeds": ("unknown",),
}
"""What is said of a comparison without verdict, by its bound."""

LEADS = ("Simulated time to", "Bytes up to", "Accuracy at the end")
"""How the sentences begin that say what was found; a comma follows what they are about."""


def findings(comparison: Comparison) -> tuple[str, ...]:
    """The paragraph on top of a report, sentence by sentence, plain text; the last one says how sure it is."""
    return tuple(sentence for sentence in _sentences(comparison) if sentence)


def says_nothing(paired: Paired) -> bool:
    """Whether a comparison has no figure worth showing: no pairs, or a bound that decides nothing."""
    return math.isnan(paired.difference.mean) or (paired.bound != "exact" and paired.verdict == "undecided")


def points(difference: float) -> str:
    """A difference of accuracies in points, with its sign, such as ``+0.31``."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}".replace("-", MINUS)  # no minus nought


def percent(value: float) -> str:
    """A difference in percent, with its sign, such as ``+12 %``."""
    digits = 1 if abs(value) < 10 else 0
    return f"{round(value, digits) + 0.0:+.{digits}f} %".replace("-", MINUS)


def target_words(comparison: Comparison) -> str:
    """The target, such as ``90.5 %``."""
    return f"{100 * comparison.target:g} %"


def _sentences(comparison: Comparison) -> Iterator[str]:
    panels, seeds = comparison.panels, comparison.seeds
    if not panels:
        yield "There is nothing to compare."
        return
    yield _what(comparison)
    if len(comparison.names) == 1:
        yield _alone(panels[0])
        return
    for cost in (SECONDS, UP):
        yield from _costs(comparison, cost)
    yield from _accuracy(comparison)
    yield from _oracle(panels)
    yield _sureness(panels, len(seeds))


def _what(comparison: Comparison) -> str:
    panels, seeds = comparison.panels, comparison.seeds
    where = ""
    if comparison.axes:
        axes = [f"{key.split('.')[-1]} {_listed([str(x) for x in xs])}" for key, xs in comparison.axes.items()]
        where = f", each at {' and '.join(axes)}"
    runs = sum(len(variation.trials) for panel in panels for variation in panel.variations)
    return (
        f"{_count(len(comparison.names), 'variation')}{where}, with {_count(len(seeds), 'seed')} "
        f"({_count(runs, 'run')}); variations with the same seed saw the same data, devices and cohorts."
    )


def _alone(panel: Panel) -> str:
    variation = panel.variations[0]
    return f"There is only one, {variation.name}, and nothing to compare it with; it ends at {_accurate(variation)}."


def _costs(comparison: Comparison, cost: Cost) -> Iterator[str]:
    """What each policy saves to the target, and what of that is certain."""
    goal, panels = target_words(comparison), comparison.panels
    if all(_winner(panel, cost) is None for panel in panels):
        yield f"No variation reached {goal} in more than half of its seeds, so {cost.noun} to it cannot be compared."
        return
    told = _told(comparison, cost)
    if not told:
        return
    told.sort(key=lambda one: min((p.difference.mean for p in one[1] if p and p.verdict == "better"), default=math.inf))
    clauses = [f"{quoted(name)} {_cost_words(panels, family)}" for name, family in told[:MOST_NAMED]]
    if len(told) > MOST_NAMED:
        clauses.append(f"{len(told) - MOST_NAMED} more in the figures")
    yield f"{cost.label.capitalize()} to {goal}, against {_references(panels, cost)}: {'; '.join(clauses)}."


def _cost_words(panels: Sequence[Panel], family: Sequence[Paired | None]) -> str:
    kinds: list[str] = []
    told: tuple[tuple[Verdict, str, Callable[[Paired], str], str], ...] = (
        ("better", "saves", _saved, ""),
        ("worse", "costs", _more, " more"),
    )
    for verdict, verb, size, more in told:
        found = [_at(panel, f"{size(p)}{more}") for panel, p in _with(panels, family, verdict)]
        kinds += [f"{verb} {', '.join(found)}"] if found else []
    undecided = list(_with(panels, family, "undecided"))
    for words, bounds in _UNDECIDED.items():
        there = [(panel, paired) for panel, paired in undecided if paired.bound in bounds]
        if there:
            where = ""
            if len(panels) > 1:
                where = " everywhere" if len(there) == len(panels) else f" at {_place([panel for panel, _ in there])}"
            missed = "exact" not in bounds
            kinds.append(f"{words}{where}" if missed or len(panels) > 1 else f"{words} ({_shown(there[0][1])})")
    return "; ".join(kinds) or "was not run with the same seeds"


def _accuracy(comparison: Comparison) -> Iterator[str]:
    """Who ends better and worse; variations that fare alike share a clause."""
    panels = comparison.panels
    if all(math.isnan(variation.accuracy.mean) for panel in panels for variation in panel.variations):
        yield "No run was ever evaluated."
        return
    alike: dict[str, list[str]] = {}
    for name, family in _told(comparison, None, everybody=True):
        verdicts = [p.verdict for p in family if p is not None]
        pattern = ", ".join(
            f"{verdict} {_places(panels, family, verdict)}".strip() for verdict in VERDICTS if verdict in verdicts
        )
        found = [p.difference.mean for p in family if p is not None and p.verdict != "undecided"]
        sizes = list(dict.fromkeys(points(size) for size in (min(found), max(found)))) if found else []
        size = f" ({' to '.join(sizes)} points)" if sizes else ""
        alike.setdefault(pattern, []).append(quoted(name) + size)
    clauses = [f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {pattern}" for pattern, names in alike.items()]
    yield f"Accuracy at the end, against {_references(panels, None)}: {'; '.join(clauses)}."


def _told(
    comparison: Comparison, cost: Cost | None, *, everybody: bool = False
) -> list[tuple[str, list[Paired | None]]]:
    """Each variation worth a clause, and its comparison with the reference in each panel that has both.

    The oracle is none of them, for it is a bound and no choice; nor are, unless `everybody` is, other fixed codecs
    where there are policies.
    """
    panels = comparison.panels
    families = [panel.against(panel.reference(cost), cost) for panel in panels]
    policies = {v.name: v.policy for panel in panels for v in panel.variations}
    oracles = {panel.oracle.name for panel in panels if panel.oracle is not None}
    names = [name for name in comparison.names if name not in oracles and any(name in family for family in families)]
    adaptive = [name for name in names if policies[name] != "fixed"]
    return [(name, [f.get(name) for f in families]) for name in (names if everybody else adaptive or names)]


def _with(panels: Sequence[Panel], family: Sequence[Paired | None], verdict: Verdict) -> Iterator[tuple[Panel, Paired]]:
    for panel, paired in zip(panels, family, strict=True):
        if paired is not None and paired.verdict == verdict:
            yield panel, paired


def _at(panel: Panel, words: str) -> str:
    return f"{words} at {panel.label}" if panel.label else words


def _places(panels: Sequence[Panel], family: Sequence[Paired | None], verdict: Verdict) -> str:
    """Where a verdict holds; nothing where there is but one place."""
    there = [panel for panel, _ in _with(panels, family, verdict)]
    if len(there) == len(panels):
        return "" if len(panels) == 1 else "everywhere"
    return f"at {_place(there)}"


def _place(panels: Sequence[Panel]) -> str:
    """Points of the grid, such as ``spread = 1, 2 and 4``."""
    if len(panels[0].axes) != 1:
        return _listed([panel.label for panel in panels])
    (key,) = panels[0].axes
    return f"{key.split('.')[-1]} = {_listed([str(panel.axes[key]) for panel in panels])}"


def _references(panels: Sequence[Panel], cost: Cost | None) -> str:
    by_name: dict[str, list[Panel]] = {}
    for panel in panels:
        by_name.setdefault(panel.reference(cost).name, []).append(panel)
    first = panels[0].reference(cost)
    role = (
        "the baseline"
        if panels[0].baseline == first.name
        else "the best fixed codec"
        if first.policy == "fixed"
        else ""
    )
    if len(by_name) == 1:
        accuracy = f", {_accurate(first)}" if cost is None and len(panels) == 1 else ""
        return f"{role} ({quoted(first.name)}{accuracy})" if role else quoted(first.name)
    places = [f"{quoted(name)} at {_place(there)}" for name, there in by_name.items()]
    return f"{role} ({', '.join(places)})".strip()


def _oracle(panels: Sequence[Panel]) -> Iterator[str]:
    """What is there to be gained at all."""
    clauses = []
    for panel in panels:
        oracle, best = panel.oracle, panel.best_fixed(SECONDS)
        if oracle is None or best is None or oracle.name == best.name:
            continue
        paired = panel.against(best, SECONDS)[oracle.name]
        if paired.bound == "exact" and not math.isnan(paired.difference.mean):
            clauses.append(_at(panel, _shown(paired)))
    if clauses:
        yield (
            "The oracle, which sees the links' future and takes the least error that meets the deadline, differs in "
            f"time from the best fixed codec by {', '.join(clauses)}."
        )


def _sureness(panels: Sequence[Panel], seeds: int) -> str:
    thresholds = panels[0].thresholds
    rule = (
        "Better, worse, saves and costs are said where the 95 % interval of the differences, seed by seed, excludes "
        "zero, also after Holm's correction for many comparisons, and the difference is at least "
        f"{100 * thresholds.accuracy:g} points or {thresholds.cost:g} %; where some runs missed the target, costs are "
        "bounds, and the sign test, which takes six seeds and more where many are compared, stands in for the "
        "interval. Undecided does not mean equal. The best fixed codec is chosen in hindsight, from the same seeds, "
        "which favours it."
    )
    if seeds == 1:
        return (
            "There is one seed: no intervals, and nothing here is certain; run more seeds before believing any of it."
        )
    if seeds < FEWEST_PAIRS:
        return f"Two seeds are too few for any verdict; give at least {FEWEST_PAIRS}. {rule}"
    if seeds < MANY_SEEDS:
        return f"{seeds} seeds are few, and intervals are wide. {rule}"
    return rule


def _winner(panel: Panel, cost: Cost) -> Variation | None:
    """The variation with the least median cost to the target."""
    medians = [(variation.to_target(cost, panel.target).median, variation) for variation in panel.variations]
    known = [(median, variation) for median, variation in medians if median is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def _saved(paired: Paired) -> str:
    found = paired.difference
    bound = "" if paired.bound == "exact" else "at least "
    within = "" if paired.bound != "exact" else f" [{-found.high:.0f}, {-found.low:.0f}]"
    return f"{bound}{-found.mean:.0f} %{within}".replace("-", MINUS)


def _more(paired: Paired) -> str:
    found = paired.difference
    bound = "" if paired.bound == "exact" else "at least "
    within = "" if paired.bound != "exact" else f" [{found.low:.0f}, {found.high:.0f}]"
    return f"{bound}{found.mean:.0f} %{within}".replace("-", MINUS)


def _shown(paired: Paired) -> str:
    """A difference in percent with its interval, without its verdict."""
    found = paired.difference
    if says_nothing(paired):
        return "no seed in common" if paired.bound == "exact" else "the target was missed"
    bound = "" if paired.bound == "exact" else f"{paired.bound} "
    within = "" if math.isnan(found.low) else f" [{_bare(found.low)}, {_bare(found.high)}]"
    return f"{bound}{percent(found.mean)}{within}"


def _bare(value: float) -> str:
    return percent(value).removesuffix(" %")


def quoted(name: str) -> str:
    """A variation's name as it stands in a sentence."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}" if " " in name else name


def _accurate(variation: Variation) -> str:
    found = variation.accuracy
    if math.isnan(found.mean):
        return "no evaluated round"
    within = "" if math.isnan(found.low) else f" \N{PLUS-MINUS SIGN} {100 * found.half:.2f}"
    return f"{100 * found.mean:.2f}{within} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
