"""YAML files as plain mappings, and single keys of theirs: `--set training.lr=0.1`."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tightwire.errors import ConfigError

Tree = dict[str, Any]  # Any: whatever the file holds


def read(path: Path, kind: str) -> Tree:
    """The mapping that a file holds; empty for an empty file.

    Args:
        path: The file.
        kind: What it should be, such as ``"experiment"``.

    Raises:
        ConfigError: It cannot be read, is not YAML, or holds something else.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML {kind} file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; give the path of a YAML {kind} file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__} at its top; it should hold `key: value` lines")
    return tree


def override(text: str) -> tuple[tuple[str, ...], Any]:  # Any: as above
    """The keys and the value of `key.key=value`.

    Raises:
        ConfigError: It is nothing of the kind.
    """
    keys, equals, value = text.partition("=")
    path = tuple(keys.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: should be key=value, such as training.lr=0.1")
    try:
        return path, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value {value!r} is not valid YAML") from None


def assign(tree: Tree, path: Sequence[str], value: Any, *, text: str) -> None:  # Any: as above
    """Set one key, in place; another `name` starts its section anew.

    Args:
        tree: The experiment.
        path: Its keys, from the top.
        value: What to set it to.
        text: What to call it in an error.

    Raises:
        ConfigError: The path leads below a value that has no keys.
    """
    node = tree
    for name in path[:-1]:
        child = node.get(name)
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{text}: {name} is the value {child!r}, which has no keys below it")
        node = child
    if path[-1] == "name" and len(path) > 1 and node.get("name") != value:
        node.clear()
    node[path[-1]] = deepcopy(value)
