"""Checkpoints: everything the next round depends on, on disk, so that a run survives the death of every process.

A checkpoint is a manifest that names its files with their SHA-256. Files are written beside one another and never
changed, the manifest comes last and atomically, and what a client's codec remembers is written again only if the client
took part since the last checkpoint. Each checkpoint adds a part to each table; parts are merged as their number grows,
so that a long run has few. The last two checkpoints are kept. Nothing is pickled.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.numpy import load, save

from tightwire.arrays import AnyArray
from tightwire.errors import CheckpointError
from tightwire.federation.downlink import Public
from tightwire.federation.pool import Handle, Pool
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord
from tightwire.federation.server import RoundResult
from tightwire.federation.state import ClientRecord, ServerState
from tightwire.federation.store import dumped
from tightwire.federation.tables import join_tables_atomically, read_rows, write_atomically, write_rows_atomically
from tightwire.wire.ledger import Sections

KEPT = 2
"""Checkpoints kept: the newest, and the one before it in case the newest is damaged."""

FAN = 8
"""Parts of one level that become one part of the next level: n checkpoints leave O(log n) parts."""

_DOWNLINK = "downlink/"
"""Before the names of what the downlink's codec remembers."""

Row = TypeVar("Row", LedgerRow, DecisionRow, RoundRecord)


@dataclass(frozen=True, slots=True)
class Parts:
    """Names of the table parts, in order; together they hold the whole run up to a checkpoint."""

    ledger: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    rounds: tuple[str, ...] = ()


class Checkpoints:
    """The checkpoint folder of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[str, str] = {}
        self._memories: dict[int, str] = {}
        self._parts = Parts()
        self._damaged: set[Path] = set()

    def save(self, state: ServerState[Handle], fresh: Sequence[RoundResult], pool: Pool[Handle]) -> None:
        """Write a checkpoint of `state`; `fresh` are the rounds closed since the last one.

        Raises:
            CheckpointError: It could not be written, for want of space for example. The checkpoints before it stand.
        """
        written: list[Path] = []
        try:
            self._save(state, fresh, pool, written)
        except OSError as error:
            for path in written:  # a full disk should not stay full of what no checkpoint names
                with suppress(OSError):
                    path.unlink()
            before = "; the checkpoint before it stands" if self._manifests() else ""
            raise CheckpointError(
                f"{self._folder}: the checkpoint after round {state.round - 1} could not be written "
                f"({error.strerror}); free some space{before}"
            ) from error

    def _save(
        self, state: ServerState[Handle], fresh: Sequence[RoundResult], pool: Pool[Handle], written: list[Path]
    ) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{state.round - 1:06d}"
        hashes, memories = dict(self._hashes), dict(self._memories)

        def write(name: str, content: bytes) -> str:
            write_atomically(self._folder / name, content)
            written.append(self._folder / name)
            hashes[name] = hashlib.sha256(content).hexdigest()
            return name

        def grown(before: tuple[str, ...], kind: str, rows: Sequence[Row], row: type[Row]) -> tuple[str, ...]:
            name = f"{kind}-{stamp}.parquet"
            write_rows_atomically(self._folder / name, rows, row)
            parts = [*before, take(name)]
            while len(parts) >= FAN and len(levels := {_level(part) for part in parts[-FAN:]}) == 1:
                name = f"{kind}-{stamp}-{levels.pop() + 1}.parquet"
                join_tables_atomically(self._folder / name, [self._read(part, hashes) for part in parts[-FAN:]])
                parts[-FAN:] = [take(name)]
            return tuple(parts)

        def take(name: str) -> str:
            written.append(self._folder / name)
            hashes[name] = hashlib.sha256((self._folder / name).read_bytes()).hexdigest()
            return name

        arrays: dict[str, AnyArray] = {"model": state.model}
        if state.public is not None:
            arrays["public"] = state.public.model
            arrays.update((f"{_DOWNLINK}{name}", array) for name, array in state.public.memory.items())
        if state.shifts is not None:
            arrays["shifts"] = state.shifts
        model = write(f"model-{stamp}.safetensors", save(arrays))
        touched = {row.client for result in fresh for row in result.ledger}
        memories = {client: name for client, name in memories.items() if client in state.memories}
        for client in sorted(touched & state.memories.keys()):
            content = dumped(pool.get(state.memories[client]))
            memories[client] = write(f"memory-{client}-{stamp}.safetensors", content)
        parts = Parts(
            grown(self._parts.ledger, "ledger", [row for result in fresh for row in result.ledger], LedgerRow),
            grown(self._parts.decisions, "decisions", [row for x in fresh for row in x.decisions], DecisionRow),
            grown(self._parts.rounds, "rounds", [result.record for result in fresh], RoundRecord),
        )
        used = {model, *memories.values(), *parts.ledger, *parts.decisions, *parts.rounds}
        hashes = {name: sha for name, sha in hashes.items() if name in used}
        manifest = {
            "round": state.round,
            "clock": state.clock,
            "clock_fp32": state.clock_fp32,
            "chain": state.chain,
            "shared": dict(state.shared),
            "norms": list(state.norms),
            "model": model,
            "public": None if state.public is None else state.public.version,
            "recent": [] if state.public is None else [asdict(sections) for sections in state.public.recent],
            "clients": {str(client): asdict(record) for client, record in state.clients.items()},
            "memories": {str(client): name for client, name in memories.items()},
            "parts": asdict(parts),
            "files": hashes,
        }
        body = json.dumps(manifest)
        sealed = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body})
        write_atomically(self._folder / f"manifest-{stamp}.json", sealed.encode())
        self._damaged.discard(self._folder / f"manifest-{stamp}.json")
        self._hashes, self._memories, self._parts = hashes, memories, parts
        self._forget_old()

    def load(self, pool: Pool[Handle], warn: Callable[[str], None]) -> ServerState[Handle] | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Args:
            pool: Takes in what the clients' codecs remember.
            warn: Told, in one line, of each checkpoint that had to be passed over.

        Raises:
            CheckpointError: There are checkpoints, and all are damaged.
        """
        manifests = self._manifests()
        for path in manifests:
            try:
                return self._load(path, pool)
            except (CheckpointError, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                warn(f"{path}: damaged and passed over ({error})")
                self._damaged.add(path)
        if manifests:
            raise CheckpointError(
                f"{self._folder}: none of the {len(manifests)} checkpoints is whole; start the run anew"
            )
        return None

    def _load(self, path: Path, pool: Pool[Handle]) -> ServerState[Handle]:
        sealed = json.loads(path.read_bytes())
        if hashlib.sha256(sealed["body"].encode()).hexdigest() != sealed["sha256"]:
            raise CheckpointError("the manifest's checksum does not match")
        manifest = json.loads(sealed["body"])
        hashes: dict[str, str] = manifest["files"]
        for name in hashes:
            self._read(name, hashes)
        arrays = load(self._read(manifest["model"], hashes))
        memories = {int(client): name for client, name in manifest["memories"].items()}
        version = manifest["public"]
        downlink = {name.removeprefix(_DOWNLINK): x for name, x in arrays.items() if name.startswith(_DOWNLINK)}
        recent = tuple(Sections(**sections) for sections in manifest["recent"])
        state = ServerState(
            round=manifest["round"],
            model=arrays["model"],
            public=None if version is None else Public(arrays["public"], version, recent, downlink),
            clock=manifest["clock"],
            clock_fp32=manifest["clock_fp32"],
            clients={int(client): ClientRecord(**record) for client, record in manifest["clients"].items()},
            memories={c: pool.put(load(self._read(name, hashes))) for c, name in memories.items()},
            shifts=arrays.get("shifts"),
            chain=manifest["chain"],
            shared=manifest["shared"],
            norms=tuple(manifest.get("norms", ())),
        )
        self._hashes, self._memories = hashes, memories
        self._parts = Parts(**{kind: tuple(names) for kind, names in manifest["parts"].items()})
        return state

    def rows(self, kind: str, row: type[Row]) -> Iterator[Row]:
        """All rows of one table up to the newest checkpoint; `kind` is ``ledger``, ``decisions`` or ``rounds``."""
        for name in getattr(self._parts, kind):
            yield from read_rows(self._folder / name, row)

    def _read(self, name: str, hashes: dict[str, str]) -> bytes:
        try:
            content = (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise CheckpointError(f"{name} is gone") from None
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise CheckpointError(f"{name} does not have the checksum that it was written with")
        return content

    def _manifests(self) -> list[Path]:
        return sorted(self._folder.glob("manifest-*.json"), reverse=True)

    def _forget_old(self) -> None:
        """Remove what no kept checkpoint needs; a file that will not go is no reason to stop."""
        kept: set[str] = set()
        for path in [path for path in self._manifests() if path not in self._damaged][:KEPT]:
            kept.add(path.name)
            with suppress(OSError, ValueError, KeyError):
                kept.update(json.loads(json.loads(path.read_bytes())["body"])["files"])
        for path in self._folder.iterdir():
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink()


def _level(part: str) -> int:
    """How often the rows of a part have been merged; its name says it."""
    _, _, *level = Path(part).stem.split("-")
    return int(level[0]) if level else 0
