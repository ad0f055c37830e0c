"""The pool whose hosts are Ray actors."""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.placement_group import placement_group, remove_placement_group

from tightwire.arrays import Ints
from tightwire.codecs.codec import Memory
from tightwire.config import Experiment
from tightwire.errors import TightwireError
from tightwire.federation.store import MB, Kept, MemoryStore, size
from tightwire.federation.tasks import Broadcast, ClientTask, Offer, ShareResult
from tightwire.learning.samples import FederatedData
from tightwire_actors.host import ClientHostImpl, spawn_client_host

Remembered: TypeAlias = "Kept | ray.ObjectRef[Memory]"

SMALL = 100_000
"""Bytes of arrays up to which the coordinator keeps a memory itself: Ray would keep it there too, without bound."""

ATTEMPTS = 4
"""Hosts that may die over one share before the run gives up: such a share kills whoever takes it."""


ROOM_SECONDS = 20.0
"""How long hosts wait for their CPUs before a person is told."""

HOST_DIED = (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,  # of a result, before it was fetched: its host's machine died
    OutOfMemoryError,  # Ray's memory monitor killed it
    RayActorError,
    WorkerCrashedError,
)


class ClusterError(TightwireError):
    """The cluster ended the run; it can be resumed from its last checkpoint."""


class HostsLostError(ClusterError):
    """A share of clients that no host survived."""


class HostStartError(ClusterError):
    """A client host that cannot be set up."""


class MachineLostError(ClusterError):
    """A machine of the cluster died with clients' memories that only it had."""

    def __init__(
        self, message: str = "a machine of the cluster died, and with it what clients remember, such as residuals"
    ) -> None:
        super().__init__(message)


class RayPool:
    """Deals each cohort out to client hosts, one call a host a round; see `tightwire.federation.pool.Pool`.

    A host that dies is replaced and its share redone, with the same bits, since a host keeps nothing that the share's
    result depends on but trained updates, which it can train again. Clients' memories of up to `SMALL` bytes are kept
    by the caller, and beyond ``hosts.memory_mb`` on its disk. Larger ones are Ray objects that the caller owns, in the
    object store of the machine that made them, which Ray spills to that machine's disk when it is full: they survive
    the host's process, and not its machine.
    """

    def __init__(
        self,
        config: Experiment,
        data: FederatedData,
        *,
        hosts: int,
        note: Callable[[str], None],
    ) -> None:
        self._config = config
        self._sizes: Ints = data.sizes
        self._data = ray.put(data)
        self._note = note
        self._limit = round(config.hosts.memory_mb * MB)
        self._store = MemoryStore(self._limit)
        self._room = placement_group([{"CPU": config.hosts.cpus}] * hosts)
        if not self._room.wait(ROOM_SECONDS):
            note("waiting for room on the cluster for the client hosts")
        self._hosts: list[ActorProxy[ClientHostImpl]] = [self._spawn(slot) for slot in range(hosts)]

    @property
    def hosts(self) -> int:
        """Client hosts alive now."""
        return len(self._hosts)

    def open(self, folder: Path) -> None:
        """See `Pool.open`; `folder` takes what the coordinator keeps itself."""
        self._store = MemoryStore(self._limit, folder)

    def offers(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Remembered]
    ) -> Iterator[tuple[Offer, ...]]:
        """See `Pool.offers`; one share a host.

        Raises:
            ClusterError: As `run`.
            TightwireError: Whatever a share raised.
        """
        for _, offers in self._share_out("offers", broadcast, tasks, memories):
            yield offers

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Remembered]
    ) -> Iterator[tuple[ShareResult, dict[int, Remembered]]]:
        """See `Pool.run`; one share a host.

        Raises:
            HostsLostError: Host after host died over the same share.
            HostStartError: A host's constructor raised.
            MachineLostError: Memories were lost with their machine.
            TightwireError: Whatever a share raised.
        """
        for flight, (result, sizes) in self._share_out("run", broadcast, tasks, memories):
            refs = {
                task.client: ref
                for task, ref in zip(flight.share, flight.memories, strict=True)
                if task.client in sizes
            }
            yield result, {client: self._adopt(ref, sizes[client]) for client, ref in refs.items()}

    def put(self, memory: Memory) -> Remembered:
        """See `Pool.put`."""
        return self._store.put(memory) if size(memory) <= SMALL else ray.put(memory)

    def get(self, handle: Remembered) -> Memory:
        """See `Pool.get`.

        Raises:
            MachineLostError: It was lost with its machine.
        """
        if isinstance(handle, Kept):
            return self._store.get(handle)
        try:
            return ray.get(handle)
        except ObjectLostError:
            raise MachineLostError from None

    def close(self) -> None:
        """See `Pool.close`."""
        for host in self._hosts:
            _kill(host)
        self._hosts = []
        self._store.close()
        remove_placement_group(self._room)

    def _adopt(self, ref: "ray.ObjectRef[Memory]", size: int) -> Remembered:
        """A host's memory as this pool keeps it."""
        return self._store.put(ray.get(ref)) if size <= SMALL else ref

    def _share_out(
        self, method: str, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Remembered]
    ) -> "Iterator[tuple[_Flight, Any]]":  # Any: what the method gives first
        payload = ray.put(broadcast)
        pending: dict[ray.ObjectRef[object], _Flight] = {}
        for slot, share in enumerate(deal(tasks, self._sizes, len(self._hosts), self._config.hosts.clients_per_host)):
            if share:
                self._launch(_Flight(method, slot, share, 1), payload, memories, pending)
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            flight = pending.pop(done)
            try:
                given = ray.get(done)
            except RayTaskError as error:
                raise _raised(error) from None
            except HOST_DIED as error:
                self._replace(flight, broadcast.round, error)
                again = _Flight(method, flight.slot, flight.share, flight.attempt + 1)
                self._launch(again, payload, memories, pending)
                continue
            yield flight, given

    def _spawn(self, slot: int) -> ActorProxy[ClientHostImpl]:
        return spawn_client_host(self._config, self._data, cpus=self._config.hosts.cpus, room=self._room, slot=slot)

    def _launch(
        self,
        flight: "_Flight",
        payload: "ray.ObjectRef[Broadcast]",
        memories: Mapping[int, Remembered],
        pending: dict["ray.ObjectRef[object]", "_Flight"],
    ) -> None:
        remembering = [task.client for task in flight.share if task.client in memories]
        handles = [memories[client] for client in remembering]
        known = [self._store.get(handle) if isinstance(handle, Kept) else handle for handle in handles]
        # Any: ray's types know neither `options` nor several returns
        method: Any = getattr(self._hosts[flight.slot], flight.method)
        if flight.method == "run":
            method = method.options(num_returns=1 + len(flight.share))
        given = method.remote(payload, flight.share, remembering, *known)
        first, *flight.memories = given if isinstance(given, list) else [given]
        pending[first] = flight

    def _replace(self, flight: "_Flight", round_: int, error: Exception) -> None:
        if isinstance(error, RayActorError) and error.actor_init_failed:
            reason = str(error).strip().splitlines()[-1]
            raise HostStartError(f"a client host cannot be set up: {reason.removeprefix('tightwire.errors.')}")
        clients = ", ".join(str(task.client) for task in flight.share[:5]) + (", ..." if len(flight.share) > 5 else "")
        if flight.attempt == ATTEMPTS:
            raise HostsLostError(
                f"round {round_}: {ATTEMPTS} client hosts died over the same {len(flight.share)} clients ({clients}); "
                "they may need more memory than the machine has: try fewer workers"
            )
        self._note(f"round {round_}: a client host died; its {len(flight.share)} clients are redone on a new one")
        _kill(self._hosts[flight.slot])
        self._hosts[flight.slot] = self._spawn(flight.slot)


class _Flight:
    """A share on its way."""

    __slots__ = ("attempt", "memories", "method", "share", "slot")

    def __init__(self, method: str, slot: int, share: Sequence[ClientTask], attempt: int) -> None:
        self.method = method
        self.slot = slot
        self.share = share
        self.attempt = attempt
        self.memories: list[ray.ObjectRef[Memory]] = []


def _kill(host: ActorProxy[ClientHostImpl]) -> None:
    ray.kill(cast("ActorHandle[ClientHostImpl]", host))


def _raised(error: RayTaskError) -> Exception:
    """What a share raised, as the host raised it; Ray hands a lost argument to the share, which then raises it."""
    cause: Exception = error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if isinstance(cause, ObjectLostError):
        return MachineLostError()
    return cause if isinstance(cause, TightwireError) else error


def deal(tasks: Sequence[ClientTask], sizes: Ints, hosts: int, capacity: int | None = None) -> list[list[ClientTask]]:
    """Split a cohort into one share a host, the largest clients first, each to the host with the fewest samples yet.

    Args:
        tasks: The cohort.
        sizes: Samples of each client, shape (clients,).
        hosts: Number of shares.
        capacity: At most so many clients in a share, if that is room enough for the cohort; else as few as can be.
    """
    if capacity is not None:
        capacity = max(capacity, math.ceil(len(tasks) / hosts))
    loads = [(0, slot) for slot in range(hosts)]
    shares: list[list[ClientTask]] = [[] for _ in range(hosts)]
    for task in sorted(tasks, key=lambda task: (-int(sizes[task.client]), task.client)):
        load, slot = heapq.heappop(loads)
        shares[slot].append(task)
        if capacity is None or len(shares[slot]) < capacity:
            heapq.heappush(loads, (load + int(sizes[task.client]), slot))
    return shares
