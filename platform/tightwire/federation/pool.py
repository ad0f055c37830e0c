"""Who carries out a round's work: the interface, and the pool that needs no Ray."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from tightwire.arrays import Flat
from tightwire.federation.client import ClientRunner
from tightwire.federation.tasks import Broadcast, ClientTask, ShareResult

Handle = TypeVar("Handle")
"""How a pool names a residual that it keeps for the server: the array itself, or a reference to it."""


class Pool(Protocol[Handle]):
    """Carries out the turns of a cohort. All pools give the same bits; `tests/contract` holds them to it."""

    @property
    def hosts(self) -> int:
        """Client hosts alive now."""
        ...

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], residuals: Mapping[int, Handle]
    ) -> Iterator[tuple[ShareResult, dict[int, Handle]]]:
        """Carry out all `tasks`, in shares, and yield each share's result as it comes, in any order.

        Args:
            broadcast: What every host needs.
            tasks: One for each client that takes part.
            residuals: What these clients' error feedback still owes; absent for newcomers.

        Yields:
            A share's result, and the new residuals of its clients. The server decides which of them to keep.
        """
        ...

    def put(self, residual: Flat) -> Handle:
        """Keep a residual, shape (parameters,), and name it."""
        ...

    def get(self, handle: Handle) -> Flat:
        """The residual behind a name."""
        ...

    def close(self) -> None:
        """Let go of all hosts."""
        ...


class InProcessPool:
    """Runs every turn in this process; for debugging, unit tests and small runs."""

    hosts = 1

    def __init__(self, runner: ClientRunner) -> None:
        self._runner = runner

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], residuals: Mapping[int, Flat]
    ) -> Iterator[tuple[ShareResult, dict[int, Flat]]]:
        """See `Pool.run`; all tasks are one share."""
        yield self._runner.run(broadcast, tasks, residuals)

    def put(self, residual: Flat) -> Flat:
        """See `Pool.put`."""
        return residual

    def get(self, handle: Flat) -> Flat:
        """See `Pool.get`."""
        return handle

    def close(self) -> None:
        """Nothing to let go of."""
