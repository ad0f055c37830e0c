"""The study file: YAML, read into a frozen, fully validated record.

A study varies one experiment. What it starts from is written whole into the record, so that a study's folder needs no
other file to be resumed.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, NonNegativeInt, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from tightwire import trees
from tightwire.errors import ConfigError
from tightwire.spec import Spec

Tree = dict[str, Any]
"""A part of an experiment file, as plain mappings."""
Path_ = tuple[str, ...]
"""Keys from the top of an experiment downwards."""

_OWN = {"seed": "`seeds` says which", "name": "every trial has its own"}
"""Keys of an experiment that a study settles itself."""


class Variation(Spec):
    """One variation of the experiment, by name."""

    name: str = Field(min_length=1, max_length=60)
    """What the report calls it."""
    set: Tree = Field(default_factory=dict)
    """What differs from the experiment; a section's keys replace the experiment's keys, and a section with another
    `name` starts anew. Keys may be dotted: `training.lr`."""

    @field_validator("name")
    @classmethod
    def _prints(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError("should be printable, without spaces around it")
        return name

    @field_validator("set")
    @classmethod
    def _is_free(cls, tree: Tree) -> Tree:
        return _free(tree)


class Report(Spec):
    """What the study's report says beside its figures."""

    title: str | None = None
    """Heading of the report; by default the study's name."""
    baseline: str | None = None
    """Variation that the others are compared with."""
    oracle: str | None = None
    """Variation that shows what foresight gains."""


class Study(Spec):
    """A question put to many runs: variations of one experiment, each with the same seeds."""

    name: str = Field(default="study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Name of the study's folder below `studies/`."""
    base: str | None = None
    """Experiment file to start from, its path relative to the study file."""
    experiment: Tree = Field(default_factory=dict)
    """Keys of the experiment, put over those of `base`."""
    set: Tree = Field(default_factory=dict)
    """Keys put over those of both, for all trials."""
    seeds: tuple[NonNegativeInt, ...] = (0, 1, 2)
    """How many seeds, counted from 0, or a list of them. Trials of one seed share all randomness."""
    variations: tuple[Variation, ...] = ()
    """The variations; none stands for the experiment as it is."""
    grid: dict[str, Any] = Field(default_factory=dict)
    """What to try all combinations of, for each of the variations: values by key, such as `training.lr: [0.05, 0.1]`;
    or an axis of any name with levels that each set a tree, such as `uplinks: {even: {...}, uneven: {...}}`."""
    target: float | None = Field(default=None, gt=0, le=1)
    """Test accuracy that bytes, time and energy are measured to."""
    report: Report = Report()

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: Any) -> Any:  # Any: whatever the file holds
        if isinstance(seeds, list | tuple):
            return seeds
        if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
            raise ValueError("should be how many, such as 5, or a list, such as [0, 1, 2]")
        return tuple(range(seeds))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("should name at least one seed")
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise ValueError(f"names seed {seed} twice; each once is enough, a run with the same seed is the same")
        return seeds

    @field_validator("experiment", "set")
    @classmethod
    def _is_free(cls, tree: Tree) -> Tree:
        return _free(tree)

    @field_validator("grid")
    @classmethod
    def _axes(cls, grid: dict[str, Any]) -> dict[str, Any]:
        for key, values in grid.items():
            if not values or not isinstance(values, list | dict):
                raise ValueError(f"{key} should be a list of values, or levels that each set a tree; got {values!r}")
            if isinstance(values, dict):
                for name, level in values.items():
                    if isinstance(name, bool) or not isinstance(name, str | int | float):
                        raise ValueError(f"{key} has the level {name!r}; name it by a word or a number")
                    if not isinstance(level, dict):
                        raise ValueError(
                            f"{key}.{name} should set a tree, such as {{training: {{lr: 0.1}}}}; got {level!r}"
                        )
                    _free(level)
                continue
            _free({key: values})
            for index, value in enumerate(values):
                if any(same(value, earlier) for earlier in values[:index]):
                    raise ValueError(f"{key} has the value {value!r} twice")
        return grid

    @model_validator(mode="after")
    def _names_differ(self) -> "Study":
        names = [variation.name for variation in self.variations]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"variations: {name!r} names two of them; give each its own name")
        return self


def load(path: Path, overrides: Sequence[str] = (), seeds: int | None = None) -> Study:
    """Read a study file, and the experiment file that it starts from.

    Args:
        path: The YAML file.
        overrides: `key.key=value` each, put over the experiment of all trials.
        seeds: How many seeds, in place of what the file says.

    Returns:
        The study with all that its trials start from in `experiment`; `base` and `set` are empty.

    Raises:
        ConfigError: A file cannot be read, is not YAML or does not describe a study, or an override is about a key that
            a variation sets itself.
    """
    tree = trees.read(path, "study")
    if seeds is not None:
        tree["seeds"] = seeds
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None
    experiment = {} if study.base is None else _base(path, study.base)
    for layer in (study.experiment, study.set):
        apply(experiment, layer)
    for text in overrides:
        keys, value = _override(text)
        _not_varied(study, text, keys)
        trees.assign(experiment, keys, value, text=f"--set {text}")
    return study.model_copy(update={"base": None, "set": {}, "experiment": experiment})


def dump(study: Study) -> str:
    """The study as YAML that `load` reads back to an equal record."""
    return yaml.safe_dump(
        study.model_dump(mode="json", exclude_defaults=True), sort_keys=False, default_flow_style=None, width=110
    )


def assignments(change: Mapping[str, Any]) -> Iterator[tuple[Path_, Any]]:
    """What a tree sets, key by key: sections are taken apart, what lies deeper is one value, as with `--set`."""
    for key, value in change.items():
        path = tuple(key.split("."))
        if len(path) == 1 and isinstance(value, dict):
            yield from (((key, name), value[name]) for name in sorted(value, key=lambda name: name != "name"))
        else:
            yield path, value


def apply(tree: Tree, change: Mapping[str, Any]) -> None:
    """Put a change over an experiment given as plain mappings, in place; see `Variation.set`.

    Raises:
        ConfigError: A key leads below a value that has no keys.
    """
    for key, value in change.items():
        if value == {}:
            tree.setdefault(key, {})
    for path, value in assignments(change):
        trees.assign(tree, path, value, text=".".join(path))


def same(one: object, other: object) -> bool:
    """Whether two values of a YAML file are the same; 1, 1.0 and true are not."""
    return yaml.safe_dump(one) == yaml.safe_dump(other)


def _base(path: Path, base: str) -> Tree:
    tree = trees.read(path.parent / base, "experiment")
    tree.pop("name", None)
    tree.pop("seed", None)
    return tree


def _free(tree: Tree) -> Tree:
    for key in tree:
        if not all(str(key).split(".")):
            raise ValueError(f"{key!r} is not a key, such as training.lr")
        if key in _OWN:
            raise ValueError(f"{key}: a study settles this itself, {_OWN[key]}; leave it out")
    return tree


def _override(text: str) -> tuple[Path_, Any]:
    path, value = trees.override(text)
    key = ".".join(path)
    if key in _OWN:
        raise ConfigError(f"--set {text}: a study settles {key} itself, {_OWN[key]}; leave it out")
    return path, value


def _not_varied(study: Study, text: str, keys: Path_) -> None:
    """Refuse an override that a variation, or the grid, would undo."""
    varied = [(f"variation {x.name!r}", path) for x in study.variations for path, _ in assignments(x.set)]
    for key, values in study.grid.items():
        levels = values.values() if isinstance(values, dict) else [{key: value} for value in values]
        varied += [("the grid", path) for level in levels for path, _ in assignments(level)]
    for where, path in varied:
        scope = path[:-1] if path[-1] == "name" else path  # a name starts its section anew
        shorter = min(len(scope), len(keys))
        if scope[:shorter] == keys[:shorter]:
            raise ConfigError(f"--set {text}: {where} sets {'.'.join(path)} itself; change it in the study file")


def _explain(error: ValidationError) -> str:
    problems = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a slip explains a lack
    return _line(problems[0]) + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _line(problem: ErrorDetails) -> str:
    loc = problem["loc"]
    where = ".".join(str(part) for part in loc)
    if problem["type"] == "extra_forbidden":
        parts: dict[int | str, type[Spec]] = {"variations": Variation, "report": Report}
        owner = parts.get(loc[0], Study) if len(loc) > 1 else Study
        known = sorted(owner.model_fields)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key (received {problem['input']!r}); {hint}"
    if problem["type"] == "missing":
        return f"{where}: is missing and has no default"
    message = problem["msg"].removeprefix("Value error, ")
    received = "" if isinstance(problem["input"], dict | Study) else f" (received {problem['input']!r})"
    return f"{where}: {message}{received}" if where else message
