"""Where clients' codec memories are kept from round to round: in RAM up to a bound, and beyond it in files.

A memory lives as long as somebody holds its handle. Memories are never changed, so one that has been written once
need not be written again. Those used least recently go to disk first.
"""

import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tightwire.codecs.codec import Memory
from tightwire.errors import TightwireError

MB = 1_000_000
MEMORY = 1024 * MB
"""Bytes of memories kept in RAM where nobody says otherwise."""


class SpillError(TightwireError):
    """A client's memory that could not be written to, or read from, the disk."""


class Kept:
    """The handle of one client's memory in a `MemoryStore`."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number


def size(memory: Memory) -> int:
    """Bytes that its arrays take."""
    return sum(array.nbytes for array in memory.values())


def dumped(memory: Memory) -> bytes:
    """A memory as a safetensors file, which takes arrays for C-contiguous without asking."""
    return save({name: np.asarray(array, order="C") for name, array in memory.items()})


class MemoryStore:
    """Memories by handle. Not for use by several threads at once."""

    def __init__(self, limit: int = MEMORY, parent: Path | None = None) -> None:
        """Open a store; nothing is written before RAM runs out.

        Args:
            limit: Bytes of arrays in RAM.
            parent: Folder below which the store makes one of its own when it needs it; None for the system's folder of
                temporary files.
        """
        self._limit = limit
        self._parent = parent
        self._folder: Path | None = None
        self._held: OrderedDict[int, Memory] = OrderedDict()  # the least recently used first
        self._bytes = 0
        self._files: set[int] = set()
        self._next = 0

    def put(self, memory: Memory) -> Kept:
        """Keep a memory, whose arrays must not be changed from now on.

        Raises:
            SpillError: RAM is full and the disk as well.
        """
        kept = Kept(self._next)
        self._next += 1
        weakref.finalize(kept, _drop, weakref.ref(self), kept.number).atexit = False
        self._hold(kept.number, memory)
        return kept

    def get(self, kept: Kept) -> Memory:
        """The memory behind a handle.

        Raises:
            SpillError: Its file is gone or damaged.
        """
        memory = self._held.get(kept.number)
        if memory is not None:
            self._held.move_to_end(kept.number)
            return memory
        path = self._path(kept.number)
        try:
            memory = load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise SpillError(
                f"{path}: a client's memory, spilled to disk, cannot be read ({error}); "
                "resume the run from its last checkpoint"
            ) from error
        self._hold(kept.number, memory)
        return memory

    @property
    def in_memory(self) -> int:
        """Bytes of arrays in RAM now."""
        return self._bytes

    @property
    def on_disk(self) -> int:
        """Memories that have a file now."""
        return len(self._files)

    def close(self) -> None:
        """Forget everything and remove all files."""
        self._held.clear()
        self._files.clear()
        self._bytes = 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _hold(self, number: int, memory: Memory) -> None:
        self._held[number] = memory
        self._bytes += size(memory)
        while self._bytes > self._limit:
            oldest = next(iter(self._held))
            if oldest not in self._files:
                self._write(oldest)
            spilled = self._held.pop(oldest, None)  # its handle may have been collected while it was written
            if spilled is None:
                self._forget(oldest)
            else:
                self._bytes -= size(spilled)

    def _write(self, number: int) -> None:
        try:
            if self._folder is None:
                if self._parent is not None:
                    self._parent.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix="tightwire-memories-", dir=self._parent))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            self._path(number).write_bytes(dumped(self._held[number]))
        except OSError as error:
            where = self._folder or self._parent or tempfile.gettempdir()
            if self._folder is not None:
                with suppress(OSError):
                    self._path(number).unlink()
            raise SpillError(
                f"{where}: clients' memories do not fit in hosts.memory_mb and could not be written "
                f"({error.strerror}); free some space or raise hosts.memory_mb, "
                "then resume the run from its last checkpoint"
            ) from error
        self._files.add(number)

    def _path(self, number: int) -> Path:
        return (self._folder or Path()) / f"{number}.safetensors"

    def _forget(self, number: int) -> None:
        memory = self._held.pop(number, None)
        if memory is not None:
            self._bytes -= size(memory)
        if number in self._files:
            self._files.remove(number)
            with suppress(OSError):
                self._path(number).unlink()


class Loaded(Mapping[int, Memory]):
    """Memories of clients by their handles, each loaded when it is asked for."""

    def __init__(self, store: MemoryStore, handles: Mapping[int, Kept]) -> None:
        self._store = store
        self._handles = handles

    def __getitem__(self, client: int) -> Memory:
        return self._store.get(self._handles[client])

    def __iter__(self) -> Iterator[int]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)


def _drop(store: "weakref.ref[MemoryStore]", number: int) -> None:
    """Called when nobody holds a handle any more."""
    alive = store()
    if alive is not None:
        alive._forget(number)
