"""The folder of a run, `runs/NAME/`: what is in it, and writing it so that nothing is ever half there.

* `config.yaml`: the resolved config
* `rounds.parquet`, `ledger.parquet`, `decisions.parquet`: the rows of `federation.records`
* `model.safetensors`: the final model
* `plots/`: pictures
* `summary.json`: the run in figures
* `mlflow.json`: what the tracking server has of it
* `mlflow.jsonl`: the rounds as they were told to the tracker, with their wall times
* `checkpoint/`: belongs to the checkpoint code
* `.lock`: locked by the process that runs the rounds, for as long as it does
"""

import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy

from tightwire.arrays import AnyArray
from tightwire.errors import ConfigError
from tightwire.federation.tables import write_atomically

LATEST = "latest"
"""Name of the relative link to the run that was begun, or resumed, last."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The places inside one run's folder."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "RunFolder":
        """Make a new folder for a run below `root`.

        Args:
            root: Usually `runs`; made if it does not exist.
            name: The wanted name; `name-2`, `name-3` and so on are taken where it exists.

        Raises:
            ConfigError: The name cannot be a folder's name, or the folder cannot be made.
        """
        if name in {"", ".", "..", LATEST} or Path(name).name != name:
            raise ConfigError(
                f"{name!r} cannot name a run's folder; use a plain name without slashes, and not {LATEST!r}"
            )
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = cls(_unique(root, name))
            folder.plots.mkdir()
        except OSError as error:
            message = f"cannot make a folder for run {name!r} in {root}: {error.strerror}"
            raise ConfigError(message) from None
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of an earlier run; links such as `runs/latest` are followed.

        Raises:
            ConfigError: There is no run.
        """
        resolved = path.resolve()
        folder = cls(resolved)
        if not folder.config.is_file():
            raise ConfigError(f"{path} is no run's folder, it has no {folder.config.name}; give runs/NAME")
        return folder

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def rounds(self) -> Path:
        """Table of `RoundRecord`."""
        return self.path / "rounds.parquet"

    @property
    def ledger(self) -> Path:
        """Table of `LedgerRow`."""
        return self.path / "ledger.parquet"

    @property
    def decisions(self) -> Path:
        """Table of `DecisionRow`."""
        return self.path / "decisions.parquet"

    @property
    def model(self) -> Path:
        """The final model, safetensors."""
        return self.path / "model.safetensors"

    @property
    def plots(self) -> Path:
        """Folder of pictures."""
        return self.path / "plots"

    @property
    def summary(self) -> Path:
        """The run in figures, JSON."""
        return self.path / "summary.json"

    @property
    def mlflow(self) -> Path:
        """What the tracking server has of this run, JSON."""
        return self.path / "mlflow.json"

    @property
    def journal(self) -> Path:
        """The rounds as they were told to the tracker, one JSON object a line."""
        return self.path / "mlflow.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoint"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from running this run while the block lasts; a dead process keeps nobody.

        What processes that were killed have left half written is removed, but for what tells of MLflow, which may be
        being written right now without the lock.

        Raises:
            ConfigError: Another process is running it.
            OSError: The folder cannot be written, or its file system has no locks.
        """
        file = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{self.path} is being run by another process; wait for it or stop it"
                raise ConfigError(message) from None
            for left in self.path.glob(".*.tmp"):
                if not left.name.startswith(f".{self.mlflow.name}."):
                    left.unlink(missing_ok=True)
            yield
        finally:
            os.close(file)

    def discard(self) -> None:
        """Remove the folder of a run that was refused before its first round."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write_config(self, text: str) -> None:
        """Write the resolved config, given as YAML.

        Raises:
            OSError: The disk is full or the folder cannot be written; this holds for all that writes here.
        """
        write_atomically(self.config, text)

    def write_model(self, tensors: Mapping[str, AnyArray]) -> None:
        """Write the final model, a mapping of tensor names to arrays of any shape."""
        write_atomically(self.model, safetensors.numpy.save(dict(tensors)))

    def artifacts(self) -> list[Path]:
        """The files for a tracking server that are there, in a fixed order; pictures last."""
        files = [self.config, self.rounds, self.ledger, self.decisions, self.model, self.summary]
        return [file for file in files if file.is_file()] + sorted(self.plots.glob("*.png"))


def check_latest(root: Path) -> None:
    """See that `root/latest` can be made to point to a run.

    Raises:
        ConfigError: Something that is no link has that name.
    """
    link = root / LATEST
    if link.exists() and not link.is_symlink():
        raise ConfigError(f"{link} is in the way of the link to the latest run; rename or remove it")


def point_latest(root: Path, folder: RunFolder) -> None:
    """Let the relative link `root/latest` point to a run, which may lie anywhere; `root` is made where need be.

    Raises:
        OSError: The link cannot be made; an older one still stands.
    """
    root.mkdir(parents=True, exist_ok=True)
    link = root.resolve() / LATEST
    temporary = link.with_name(f".{LATEST}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder.path.resolve(), link.parent), target_is_directory=True)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink()
        raise


def _unique(root: Path, name: str) -> Path:
    for path in itertools.chain([root / name], (root / f"{name}-{n}" for n in itertools.count(2))):
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: the numbers do not end")
