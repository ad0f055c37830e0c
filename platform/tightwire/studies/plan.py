"""From a study to its trials: every combination of variation, grid and seed, each a whole experiment.

Common random numbers: all trials of a seed share their experiment's seed. Everything drawn in a run is keyed by (seed,
purpose, round, client), so they have the same partition, cohorts, links and drop-outs, as far as they have the same
clients; what differs between them is what the variations made different.
"""

import difflib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tightwire import config as configs
from tightwire.config import Experiment, Tracking
from tightwire.errors import ConfigError
from tightwire.studies.naming import Value, of_world
from tightwire.studies.spec import Study, Tree, apply

PLAIN = "as it is"
"""Name of the only variation of a study that names none."""
_SLUG = 64
"""Characters in the name of a trial's folder before its seed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a study."""

    name: str
    """Name of its folder."""
    variation: str
    axes: Mapping[str, Value]
    """Its point of the grid."""
    seed: int
    config: Experiment

    @property
    def label(self) -> str:
        """What people call all trials that differ from this one in the seed alone."""
        return _label(self.variation, self.axes)


@dataclass(frozen=True, slots=True)
class Plan:
    """All trials of a study: everything with the first seed, then everything with the next."""

    trials: tuple[Trial, ...]
    tracking: Tracking
    """Where the study is recorded; its trials themselves are recorded nowhere."""


@dataclass(frozen=True, slots=True)
class _Variant:
    variation: str
    axes: Mapping[str, Value]
    changes: tuple[Tree, ...]

    @property
    def label(self) -> str:
        return _label(self.variation, self.axes)


def plan(study: Study) -> Plan:
    """Resolve and check every trial.

    Args:
        study: As `tightwire.studies.spec.load` gives it.

    Raises:
        ConfigError: A trial's experiment is not one, two variations have one name, or the report's baseline or oracle
            is none of them.
    """
    variants = list(_variants(study))
    labels = [variant.label for variant in variants]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"variations and grid: two variations come out as {label!r}; name them apart")
    names = list(dict.fromkeys(variant.variation for variant in variants))
    for role in ("baseline", "oracle"):
        chosen = getattr(study.report, role)
        if chosen is not None and chosen not in names:
            near = difflib.get_close_matches(chosen, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(map(repr, names))}"
            raise ConfigError(f"report.{role}: {chosen!r} is none of the variations; {hint}")
    trials = []
    tracking = None
    for seed in study.seeds:
        for variant, slug in zip(variants, _slugs(labels), strict=True):
            config = _resolve(study, variant, seed)
            tracking = tracking or config.tracking
            nowhere = config.tracking.model_copy(update={"to": "nowhere"})
            name = f"{slug}-s{seed}"
            config = config.model_copy(update={"name": name, "tracking": nowhere})
            trials.append(Trial(name, variant.variation, variant.axes, seed, config))
    assert tracking is not None, "a study has a seed and a variation"  # noqa: S101 - for the type checker
    return Plan(tuple(trials), tracking)


def _resolve(study: Study, variant: _Variant, seed: int) -> Experiment:
    try:
        tree = deepcopy(study.experiment)
        for change in variant.changes:
            apply(tree, change)
        return configs.parse({**tree, "seed": seed})
    except ConfigError as error:
        where = "experiment" if variant.label == PLAIN else f"variation {variant.label!r}"
        raise ConfigError(f"{where}: {error}") from None


def _variants(study: Study) -> Iterator[_Variant]:
    axes = [_Axis.of(key, study.grid) for key in study.grid]
    named = [(variation.name, variation.set) for variation in study.variations] or [("", {})]
    for name, change in named:
        for point in itertools.product(*(axis.levels for axis in axes)):
            words, values = [name] if name else [], {}
            for axis, level in zip(axes, point, strict=True):
                if axis.world:
                    values[axis.name] = level.value
                else:
                    words.append(f"{axis.name}={_word(level.value)}")
            yield _Variant(", ".join(words) or PLAIN, values, (change, *(level.change for level in point)))


@dataclass(frozen=True, slots=True)
class _Level:
    value: Value
    change: Tree


@dataclass(frozen=True, slots=True)
class _Axis:
    """One key of the grid."""

    name: str
    world: bool
    """Whether it says what the world is like; else it says how the world is met, and is part of the variation."""
    levels: tuple[_Level, ...]

    @classmethod
    def of(cls, key: str, grid: Mapping[str, Any]) -> "_Axis":
        values = grid[key]
        if isinstance(values, dict):
            return cls(key, True, tuple(_Level(level, tree) for level, tree in values.items()))
        short = [_short(other) for other in grid]
        name = _short(key) if short.count(_short(key)) == 1 else key
        words = [_plain(value) for value in values]
        words = [
            word if words.count(word) == 1 else json.dumps(value) for word, value in zip(words, values, strict=True)
        ]
        levels = tuple(_Level(word, {key: value}) for word, value in zip(words, values, strict=True))
        return cls(name, of_world(key), levels)


def _label(variation: str, axes: Mapping[str, Value]) -> str:
    return ", ".join([variation, *(f"{axis}={_word(value)}" for axis, value in axes.items())])


def _short(key: str) -> str:
    """`training.lr` is `lr`, and `policy.name` is `policy`."""
    *_, section, last = ("", *key.split("."))
    return section if last == "name" and section else last


def _plain(value: Any) -> Value:  # Any: whatever the file holds
    """A value of the grid as an axis can have it: numbers stay numbers."""
    return value if isinstance(value, bool | int | float) else _word(value)


def _word(value: Any) -> str:  # Any: whatever the file holds
    if isinstance(value, str):
        return re.sub(r"\s*\|\s*", "|", value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        rest = [f"{key}={_word(x)}" for key, x in value.items() if key != "name"]
        return str(value["name"]) + (f"({', '.join(rest)})" if rest else "")
    return json.dumps(value, separators=(",", ":"))


def _slugs(labels: Sequence[str]) -> list[str]:
    """Beginnings of folders' names; different ones for different labels, even where capitals do not count."""
    slugs: list[str] = []
    for label in labels:
        slug = re.sub(r"[^A-Za-z0-9._]+", "-", label)[:_SLUG].strip("-._") or "variation"
        unique, number = slug, 2
        while unique.lower() in {taken.lower() for taken in slugs}:
            unique, number = f"{slug}-{number}", number + 1
        slugs.append(unique)
    return slugs
