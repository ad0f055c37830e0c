"""Who carries out a round's work: the interface, and the pool that needs no Ray."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from tightwire.codecs.codec import Memory
from tightwire.federation.client import ClientRunner
from tightwire.federation.store import Kept, Loaded, MemoryStore
from tightwire.federation.tasks import Broadcast, ClientTask, Offer, ShareResult

Handle = TypeVar("Handle")
"""How a pool names one client's memory that it keeps for the server. It is kept for as long as the handle is."""


class Pool(Protocol[Handle]):
    """Carries out the turns of a cohort. All pools give the same bits; `tests/contract` holds them to it.

    Whatever takes a handle may raise `tightwire.errors.MemoriesLostError`; the pool itself is fit for use after it.
    """

    @property
    def hosts(self) -> int:
        """Client hosts alive now."""
        ...

    def open(self, folder: Path) -> None:
        """A run begins; what does not fit in memory may be kept below `folder`, which is made when it is needed."""
        ...

    def offers(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Handle]
    ) -> Iterator[tuple[Offer, ...]]:
        """Have all clients train and say their ranges, for the agreement that `run` wants where the codec is joint.

        Args:
            broadcast: What every host needs.
            tasks: As `run`.
            memories: As `run`.

        Yields:
            A share's offers, in any order.
        """
        ...

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Handle]
    ) -> Iterator[tuple[ShareResult, dict[int, Handle]]]:
        """Carry out all `tasks`, in shares, and yield each share's result as it comes, in any order.

        Args:
            broadcast: What every host needs.
            tasks: One for each client that takes part.
            memories: What these clients' codecs and error feedback remember; absent for those who remember nothing.

        Yields:
            A share's result, and the new memories of its clients. The server decides which of them to keep.
        """
        ...

    def put(self, memory: Memory) -> Handle:
        """Keep a memory, and name it."""
        ...

    def get(self, handle: Handle) -> Memory:
        """The memory behind a name."""
        ...

    def close(self) -> None:
        """Let go of all hosts and memories."""
        ...


class InProcessPool:
    """Runs every turn in this process; for debugging, unit tests and small runs."""

    hosts = 1

    def __init__(self, runner: ClientRunner) -> None:
        self._runner = runner
        self._store = MemoryStore(runner.memory_limit)

    def open(self, folder: Path) -> None:
        """See `Pool.open`."""
        self._store = MemoryStore(self._runner.memory_limit, folder)

    def offers(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Kept]
    ) -> Iterator[tuple[Offer, ...]]:
        """See `Pool.offers`; all tasks are one share."""
        yield self._runner.offers(broadcast, tasks, Loaded(self._store, memories))

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Kept]
    ) -> Iterator[tuple[ShareResult, dict[int, Kept]]]:
        """See `Pool.run`; all tasks are one share."""
        yield self._runner.run(broadcast, tasks, Loaded(self._store, memories), self._store.put)

    def put(self, memory: Memory) -> Kept:
        """See `Pool.put`."""
        return self._store.put(memory)

    def get(self, handle: Kept) -> Memory:
        """See `Pool.get`."""
        return self._store.get(handle)

    def close(self) -> None:
        """See `Pool.close`."""
        self._store.close()
