"""Reading the files of trials and studies: tables by column, configs flat, and whatever else stands beside them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tightwire.arrays import AnyArray
from tightwire.errors import TrackingError
from tightwire.tracking.folder import RunFolder

ERROR = "error.txt"
"""In the folder of a trial that failed; its first line says why."""
TIER_ACCURACY = "tier_accuracy.json"
"""Beside a trial's tables: ``{"digest": of the run, "accuracy": {tier: share in [0, 1]}}``, where somebody measured
it."""


def columns(path: Path, names: str) -> dict[str, AnyArray]:
    """Columns of a parquet file as arrays of shape (rows,); strings as objects, nulls of numbers as NaN.

    Args:
        path: The file; it may have further columns.
        names: The columns that are wanted, with spaces between them.

    Raises:
        TrackingError: The file is missing, is not parquet, or lacks a column.
    """
    try:
        table = pq.read_table(path, columns=names.split())
    except (OSError, pa.ArrowException) as error:
        raise TrackingError(f"cannot read the table {path}: {' '.join(str(error).split())}") from None
    lacking = sorted(set(names.split()) - set(table.column_names))
    if lacking:
        raise TrackingError(f"the table {path} has no column {', '.join(lacking)}; it should be a run's {path.name}")
    return {name: table.column(name).to_numpy() for name in names.split()}


def config(folder: Path) -> dict[str, str]:
    """The config in a run's folder, flat: ``{"training.lr": "0.1", ...}``; keys of any version of it will do.

    Raises:
        TrackingError: It is missing or is not YAML.
    """
    path = folder / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrackingError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    return dict(_leaves(tree, ""))


def _leaves(node: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from _leaves(child, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, str(node)


def json_object(path: Path) -> dict[str, object]:
    """A JSON file that holds an object.

    Raises:
        TrackingError: It is missing or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrackingError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise TrackingError(f"{path} holds a {type(content).__name__}; it should hold an object")
    return content


def tier_accuracy(folder: Path, digest: str) -> dict[str, float]:
    """Accuracy by device tier, where it was measured of this very run; see `TIER_ACCURACY`."""
    path = folder / TIER_ACCURACY
    if not path.is_file():
        return {}
    measured = json_object(path)
    shares = measured.get("accuracy")
    if measured.get("digest") != digest or not isinstance(shares, dict):
        return {}
    return {str(tier): float(share) for tier, share in shares.items()}


def versions(run: RunFolder) -> dict[str, str]:
    """What a run was made with, by package; nothing where it was not recorded."""
    if not run.mlflow.is_file():
        return {}
    tags = json_object(run.mlflow).get("tags")
    if not isinstance(tags, dict):
        return {}
    return {
        key.removeprefix("version."): str(value)
        for key, value in tags.items()
        if key.startswith("version.") or key == "git_commit"
    }


def why(folder: Path) -> str:
    """Why a trial has no summary."""
    if not (folder / ERROR).is_file():
        return "has not finished"
    lines = (folder / ERROR).read_text(encoding="utf-8", errors="replace").splitlines()
    return f"failed: {lines[0]}" if lines else "failed"


def order(path: Path) -> list[str]:
    """The variations' names in the order of the study's file at `path`, and an empty one for all others.

    Without a file that can be read there is only the empty one.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [*(str(variation["name"]) for variation in tree["variations"]), ""]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return [""]
