"""What travels with a submitted experiment: the user's own files and modules, and this Tightwire."""

import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import ModuleType

from pydantic import BaseModel

import tightwire
import tightwire_actors
import tightwire_pipelines
from tightwire.config import Experiment
from tightwire.errors import ConfigError
from tightwire.learning.models import Custom
from tightwire.simulation import Parts
from tightwire_pipelines.imported import imported
from tightwire_pipelines.units import megabytes

EXPERIMENT = ".tightwire/experiment.yaml"
"""Where the resolved experiment is in the package."""

_PACKAGES = (tightwire, tightwire_actors, tightwire_pipelines)
_NOT_SENT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.nbi", "*.nbc")
_SAME_TIME = (1980, 1, 1, 0, 0, 0)


def collect(config: Experiment, include: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Check an experiment as a run of it in this folder would, and find the files of the user's that it needs.

    These are what relative paths in the experiment lead to; the Python modules that it imports, unless they are
    installed; and `include`. Absolute paths, and those that begin with ``~``, are places on the cluster's machines.

    Args:
        config: The experiment; its relative paths start at the working folder.
        include: More files and folders, below the working folder.

    Returns:
        Where each file is, by its name in the package; and what could not be checked here, a line each.

    Raises:
        ConfigError: The experiment is not sound, or a path leads out of the working folder.
        DataError: Its data is missing or damaged.
    """
    notes = []
    files: dict[str, Path] = {}
    elsewhere = []
    for key, path in _paths(config, ""):
        if path.is_absolute() or path.parts[:1] == ("~",):
            if not path.expanduser().exists():
                elsewhere.append(f"{key}: {path} is not here; it must be on the cluster's machines")
            continue
        files |= _below(path, key)
    before = set(sys.modules)
    if elsewhere:
        notes += elsewhere
        if isinstance(config.model, Custom):
            imported(config.model.function, ConfigError)
    else:
        Parts.load(config)
    named = {config.model.function.partition(":")[0].partition(".")[0]} if isinstance(config.model, Custom) else set()
    files |= _modules(name for name in list(sys.modules) if name not in before or name.partition(".")[0] in named)
    for path in include:
        if not path.exists():
            raise ConfigError(f"--include {path}: there is no such file or folder")
        files |= _below(path, "--include")
    return files, notes


def pack(files: Mapping[str, Path], experiment: str, archive: Path, limit: int) -> None:
    """Write a package; the same files give the same bytes.

    Args:
        files: Where each file is, by its name in the package.
        experiment: The resolved experiment, YAML.
        archive: The .zip to write.
        limit: Bytes that it may have.

    Raises:
        ConfigError: It has more.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr(zipfile.ZipInfo(EXPERIMENT, _SAME_TIME), experiment)
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _SAME_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            with files[name].open("rb") as source, package.open(info, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
            if archive.stat().st_size > limit:
                break
    if archive.stat().st_size > limit:
        largest = max(files, key=lambda name: files[name].stat().st_size)
        raise ConfigError(
            f"the files that this experiment needs are too much to send ({megabytes(sum_of(files))}, of it {largest} "
            f"with {megabytes(files[largest].stat().st_size)}; compressed, {megabytes(limit)} are allowed); put large "
            "data where all machines of the cluster can read it, and name it by its absolute path"
        )


def sum_of(files: Mapping[str, Path]) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in files.values())


def stage(folder: Path) -> list[Path]:
    """Put what Tightwire's wheel holds into a folder, from wherever it is installed, editable or not.

    Nothing is left out but its requirements: the cluster's machines have them, as they have Ray, and nothing is
    fetched when a job starts.

    Returns:
        The folders to send.
    """
    staged = [
        Path(shutil.copytree(package.__path__[0], folder / package.__name__, ignore=_NOT_SENT)) for package in _PACKAGES
    ]
    try:
        installed = metadata.distribution("tightwire")
    except metadata.PackageNotFoundError:
        return staged
    facts = folder / f"tightwire-{installed.version}.dist-info"
    facts.mkdir()
    for file in ("METADATA", "entry_points.txt"):
        (facts / file).write_text(installed.read_text(file) or "")
    return [*staged, facts]


def _paths(node: object, key: str) -> Iterator[tuple[str, Path]]:
    """All paths in an experiment, with their keys."""
    if isinstance(node, Path):
        yield key, node
    elif isinstance(node, BaseModel):
        for name in type(node).model_fields:
            yield from _paths(getattr(node, name), f"{key}.{name}" if key else name)
    elif isinstance(node, tuple | list):
        for child in node:
            yield from _paths(child, key)
    elif isinstance(node, dict):
        for name, child in node.items():
            yield from _paths(child, f"{key}.{name}")


def _below(path: Path, key: str) -> dict[str, Path]:
    """A file, or the files in a folder, under their names from the working folder."""
    here = Path.cwd()
    try:
        name = (here / path).resolve().relative_to(here.resolve())
    except ValueError:
        raise ConfigError(
            f"{key}: {path} leads out of the working folder {here}, whose files are sent; submit from a folder further "
            "up, or name a place on the cluster's machines by its absolute path"
        ) from None
    place = here / name
    if not place.is_dir():
        return {_posix(name): place} if place.exists() else {}  # what is missing is told by whoever needs it
    return {_posix(name / file.relative_to(place)): file for file in _sent(place)}


def _modules(names: Iterable[str]) -> dict[str, Path]:
    """The files of those modules that are the user's own: part of no installation."""
    files: dict[str, Path] = {}
    for name in names:
        file = _own(name, sys.modules.get(name))
        if file is None:
            continue
        parts = name.split(".")
        depth = len(parts) if file.stem == "__init__" else len(parts) - 1
        root = file.parents[depth] if depth < len(file.parents) else file.parent
        top = root / parts[0]
        if (top / "__init__.py").is_file():
            files |= {_posix(Path(parts[0]) / part.relative_to(top)): part for part in _sent(top)}
        else:
            files[_posix(file.relative_to(root))] = file
    return files


def _own(name: str, module: ModuleType | None) -> Path | None:
    """The file of a module that would be missing on a machine with the same installations."""
    origin = getattr(module, "__file__", None)
    ours = {"__main__", *(package.__name__ for package in _PACKAGES)}
    if origin is None or name.partition(".")[0] in ours:
        return None
    file = Path(origin).resolve()
    if {"site-packages", "dist-packages"} & set(file.parts) or not file.is_file():
        return None
    standard = [Path(sysconfig.get_path(which)).resolve() for which in ("stdlib", "platstdlib")]
    return None if any(file.is_relative_to(folder) for folder in standard) else file


def _sent(folder: Path) -> Iterator[Path]:
    """The files below a folder but hidden ones and what Python leaves behind."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".nbi", ".nbc"):
            yield path


def _posix(name: Path) -> str:
    return str(PurePosixPath(*name.parts))
