"""`tightwire capture`: real updates of a run, saved for `tightwire codec plot` and `codec measure`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from tightwire import config as configs
from tightwire.arrays import Flat
from tightwire.errors import ConfigError, DataError
from tightwire.federation.pool import InProcessPool
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.federation.tables import write_atomically
from tightwire.learning.torch_state import single_thread
from tightwire.learning.training import Trained, train
from tightwire.simulation import Parts
from tightwire.wire.schema import Schema, TensorSpec


@dataclass
class _Recorder:
    """Trains as usual, and keeps the updates of some clients of some rounds."""

    rounds: frozenset[int]
    clients: int
    kept: dict[tuple[int, int], Flat] = field(default_factory=dict)
    """(round, client) -> update, before error feedback adds to it."""

    def __call__(self, *args: Any, round: int, **rest: Any) -> Iterator[Trained]:
        """See `tightwire.learning.training.train`."""
        for trained in train(*args, round=round, **rest):
            held = sum(kept_round == round for kept_round, _ in self.kept)
            if round in self.rounds and held < self.clients:
                self.kept[round, trained.client] = trained.update.copy()
            yield trained


def capture(
    file: Path, overrides: tuple[str, ...], rounds: tuple[int, ...], clients: int, out: Path, console: Console
) -> list[Path]:
    """Run an experiment in this process up to the last of `rounds`, and save updates of these rounds.

    Each is a float32 vector `round-R-client-C.npy`, with the tensors' names and shapes in a `.json` of the same name.

    Args:
        file: The experiment.
        overrides: As `tightwire run --set`.
        rounds: Which rounds, from 1; empty for 1 and 5, as far as there are so many.
        clients: How many clients' updates a round, the first that are trained.
        out: Where they go; made if it does not exist.
        console: Shows progress.

    Raises:
        ConfigError: A round is not one of the experiment's.
        DataError: The files cannot be written, or nobody trained in one of the rounds.
    """
    config = configs.load(file, overrides)
    rounds = rounds or tuple(number for number in (1, 5) if number <= config.rounds)
    for number in rounds:
        if not 1 <= number <= config.rounds:
            raise ConfigError(f"--round {number}: {file} has rounds 1 to {config.rounds}")
    _make_folder(out)
    parts = Parts.load(config)
    recorder = _Recorder(frozenset(rounds), clients)
    server = parts.server(InProcessPool(parts.runner(recorder)), evaluating=False)
    state: ServerState[Kept] = parts.start()
    with single_thread(), Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=max(rounds))
        while state.round <= max(rounds):
            state, _ = server.step(state)
            progress.advance(task)
    saved = []
    tensors = [{"name": tensor.name, "shape": tensor.shape} for tensor in parts.model.schema.tensors]
    try:
        for (round_, client), update in sorted(recorder.kept.items()):
            path = out / f"round-{round_}-client-{client}.npy"
            np.save(path, update)
            write_atomically(path.with_suffix(".json"), json.dumps({"tensors": tensors}).encode())
            saved.append(path)
    except OSError as error:
        raise DataError(f"--out {out}: updates cannot be written there: {error.strerror}") from None
    silent = sorted(set(rounds) - {round_ for round_, _ in recorder.kept})
    if silent:
        raise DataError(
            f"--round {silent[0]}: no client trained in it, so there is no update to save; "
            "`tightwire run` says why clients refuse"
        )
    return saved


def _make_folder(out: Path) -> None:
    """Before anything is trained, so that nothing is trained in vain."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {out}: updates cannot be written there: {error.strerror}") from None


def load_update(path: Path) -> tuple[Flat, Schema]:
    """A vector of floats from a `.npy`, and its tensors from the `.json` beside it; one tensor where there is none.

    Raises:
        DataError: One of them cannot be read, or they do not fit each other.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; give a .npy of floats") from None
    except (ValueError, EOFError):  # their texts advise to load pickles
        raise DataError(f"{path} is no .npy of floats, such as `tightwire capture` or numpy.save writes") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise DataError(f"{path} must hold one array of floats, got {getattr(values, 'dtype', 'an archive')}")
    if values.size == 0:
        raise DataError(f"{path} has the shape {values.shape}; it must hold one value at least")
    shape = values.shape
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    if not np.isfinite(flat).all():
        raise DataError(f"{path} holds a NaN, an infinity, or more than float32 can; all values must be finite")
    beside = path.with_suffix(".json")
    if not beside.exists():
        return flat, Schema((TensorSpec("update", shape),))
    try:
        tensors = json.loads(beside.read_text())["tensors"]
        schema = Schema(tuple(TensorSpec(tensor["name"], tuple(tensor["shape"])) for tensor in tensors))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{beside} does not describe tensors: {type(error).__name__}: {error}") from None
    if schema.size != flat.size:
        raise DataError(f"{beside} describes {schema.size} values, but {path} has {flat.size}")
    return flat, schema
