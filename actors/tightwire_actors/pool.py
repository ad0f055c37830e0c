"""The pool whose hosts are Ray actors."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import RayActorError

from tightwire.arrays import Flat, Ints
from tightwire.config import Experiment
from tightwire.errors import TightwireError
from tightwire.federation.tasks import Broadcast, ClientTask, ShareResult
from tightwire.learning.samples import FederatedData
from tightwire_actors.host import ClientHostImpl, spawn_client_host

Residual: TypeAlias = "ray.ObjectRef[Flat]"

ATTEMPTS = 4
"""Hosts that may die over one share before the run gives up: such a share kills whoever takes it."""


class HostsLostError(TightwireError):
    """A share of clients that no host survived."""


class RayPool:
    """Deals each cohort out to client hosts, one call a host a round; see `tightwire.federation.pool.Pool`.

    A host that dies is replaced and its share redone, with the same bits, since a host keeps nothing that the share's
    result depends on. Residuals are objects of the caller's in the object store: never in its own memory, and not lost
    with the host that made them.
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
        self._hosts: list[ActorProxy[ClientHostImpl]] = [self._spawn() for _ in range(hosts)]

    @property
    def hosts(self) -> int:
        """Client hosts alive now."""
        return len(self._hosts)

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], residuals: Mapping[int, Residual]
    ) -> Iterator[tuple[ShareResult, dict[int, Residual]]]:
        """See `Pool.run`; one share a host."""
        payload = ray.put(broadcast)
        pending: dict[ray.ObjectRef[object], _Flight] = {}
        for slot, share in enumerate(deal(tasks, self._sizes, len(self._hosts))):
            if share:
                self._launch(_Flight(slot, share, 1), payload, residuals, pending)
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            flight = pending.pop(done)
            try:
                result, fresh = ray.get(done)
            except RayActorError:
                self._replace(flight, broadcast.round)
                again = _Flight(flight.slot, flight.share, flight.attempt + 1)
                self._launch(again, payload, residuals, pending)
                continue
            yield (
                result,
                {
                    task.client: ref
                    for task, ref in zip(flight.share, flight.residuals, strict=True)
                    if task.client in fresh
                },
            )

    def put(self, residual: Flat) -> Residual:
        """See `Pool.put`."""
        return ray.put(residual)

    def get(self, handle: Residual) -> Flat:
        """See `Pool.get`."""
        return ray.get(handle)

    def close(self) -> None:
        """See `Pool.close`."""
        for host in self._hosts:
            ray.kill(cast("ActorHandle[ClientHostImpl]", host))
        self._hosts = []

    def _spawn(self) -> ActorProxy[ClientHostImpl]:
        return spawn_client_host(self._config, self._data, cpus=self._config.hosts.cpus)

    def _launch(
        self,
        flight: "_Flight",
        payload: "ray.ObjectRef[Broadcast]",
        residuals: Mapping[int, Residual],
        pending: dict["ray.ObjectRef[object]", "_Flight"],
    ) -> None:
        owing = [task.client for task in flight.share if task.client in residuals]
        method: Any = self._hosts[flight.slot].run  # Any: ray's types know neither `options` nor several returns
        call = method.options(num_returns=1 + len(flight.share))
        first, *rest = call.remote(payload, flight.share, owing, *(residuals[client] for client in owing))
        flight.residuals = rest
        pending[first] = flight

    def _replace(self, flight: "_Flight", round_: int) -> None:
        clients = ", ".join(str(task.client) for task in flight.share[:5]) + (", ..." if len(flight.share) > 5 else "")
        if flight.attempt == ATTEMPTS:
            raise HostsLostError(
                f"round {round_}: {ATTEMPTS} client hosts died over the same {len(flight.share)} clients ({clients}); "
                "they may need more memory than the machine has: try fewer workers"
            )
        self._note(f"round {round_}: a client host died; its {len(flight.share)} clients are redone on a new one")
        self._hosts[flight.slot] = self._spawn()


class _Flight:
    """A share on its way."""

    __slots__ = ("attempt", "residuals", "share", "slot")

    def __init__(self, slot: int, share: Sequence[ClientTask], attempt: int) -> None:
        self.slot = slot
        self.share = share
        self.attempt = attempt
        self.residuals: list[Residual] = []


def deal(tasks: Sequence[ClientTask], sizes: Ints, hosts: int) -> list[list[ClientTask]]:
    """Split a cohort into one share a host, the largest clients first, each to the host with the fewest samples yet."""
    loads = [(0, slot) for slot in range(hosts)]
    shares: list[list[ClientTask]] = [[] for _ in range(hosts)]
    for task in sorted(tasks, key=lambda task: (-int(sizes[task.client]), task.client)):
        load, slot = heapq.heappop(loads)
        shares[slot].append(task)
        heapq.heappush(loads, (load + int(sizes[task.client]), slot))
    return shares
