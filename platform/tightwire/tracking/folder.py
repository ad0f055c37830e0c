"""The folder of a run, `runs/NAME/`: what is in it, and writing it so that nothing is ever half there.

* `config.yaml`: the resolved config
* `rounds.parquet`, `ledger.parquet`, `decisions.parquet`: the rows of `federation.records`
* `model.safetensors`: the final model
* `plots/`: pictures
* `summary.json`: the run in figures
* `mlflow.json`: what the tracking server has of it
* `mlflow.jsonl`: the rounds as they were told to the tracker, with their wall times
* `checkpoint/`: belongs to the checkpoint code
"""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.numpy

from tightwire.arrays import AnyArray
from tightwire.errors import ConfigError, TrackingError
from tightwire.federation.tables import write_atomically

LATEST = "latest"
"""Name of the relative link to the run that was created last."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The places inside one run's folder."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "RunFolder":
        """Make a new folder for a run below `root`, and let `root/latest` point to it.

        Args:
            root: Usually `runs`; made if it does not exist.
            name: The wanted name; `name-2`, `name-3` and so on are taken where it exists.

        Raises:
            TrackingError: The name cannot be a folder's name, or the folder cannot be made.
        """
        if name in {"", ".", "..", LATEST} or Path(name).name != name:
            raise TrackingError(
                f"{name!r} cannot name a run's folder; use a plain name without slashes, and not {LATEST!r}"
            )
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = cls(_unique(root, name))
            folder.plots.mkdir()
            _point(root / LATEST, folder.path.name)
        except OSError as error:
            message = f"cannot make a folder for run {name!r} in {root}: {error.strerror}"
            raise TrackingError(message) from error
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


def _unique(root: Path, name: str) -> Path:
    for path in itertools.chain([root / name], (root / f"{name}-{n}" for n in itertools.count(2))):
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: the numbers do not end")


def _point(link: Path, target: str) -> None:
    """Let a relative link point to `target`, without a moment in which there is none."""
    temporary = link.with_name(f".{link.name}.{target}.{os.getpid()}.tmp")
    temporary.symlink_to(target, target_is_directory=True)
    try:
        temporary.replace(link)
    except OSError:
        temporary.unlink()
        raise
