"""The pool whose hosts are Ray actors."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import ray
from ray.exceptions import ObjectLostError, RayTaskError

from tightwire.arrays import Ints
from tightwire.codecs.codec import Memory
from tightwire.config import Experiment
from tightwire.federation.store import MB, Kept, MemoryStore, size
from tightwire.federation.tasks import Broadcast, ClientTask, Offer, ShareResult
from tightwire.learning.samples import FederatedData
from tightwire_actors.failures import (
    HOST_DIED,
    STORE_FULL,
    HostsLostError,
    MachineLostError,
    NoRoomError,
    StoreFullError,
    raised,
)
from tightwire_actors.flights import Flight, Flights
from tightwire_actors.roster import Host, Roster
from tightwire_actors.shares import Share, shares

T = TypeVar("T")
Remembered: TypeAlias = "Kept | ray.ObjectRef[Memory]"

SMALL = 100_000
"""Bytes of arrays up to which the coordinator keeps a memory itself: Ray would keep it there too, without bound."""

ATTEMPTS = 4
"""Hosts that may die over one share before the run gives up: such a share kills whoever takes it."""

LOST_RACES = 3
"""Races in a row that a host may lose before another takes its place; twice as many for the next there, and so on."""

START_SECONDS = 30.0
"""How long the first round waits for hosts that have a place and are starting, once there are enough."""

ROOM_SECONDS = 20.0
"""How long hosts wait for room before a person is told; told again after twice as long, and so on."""

POLL_SECONDS = 0.5
"""While nobody can work, how often to look whether the run is to stop."""


class RayPool:
    """Deals each cohort out to client hosts, one call a host a round; see `tightwire.federation.pool.Pool`.

    Hosts come and go. A cohort is dealt to those that are idle when its round begins. The share of one that dies goes
    to whoever is idle next, with the same bits, since a host keeps nothing that the share's result depends on but
    trained updates, which can be trained again. A share that takes much longer than the others is given to an idle host
    as well, and whoever ends first wins.

    Clients' memories of up to `SMALL` bytes are kept by the caller, and beyond ``hosts.memory_mb`` on its disk. Larger
    ones are Ray objects that the caller owns, in the object store of the machine that made them, which Ray spills to
    that machine's disk when it is full: they survive the host's process, and not its machine.

    Args:
        config: The experiment.
        data: What the clients learn from.
        hosts: The most hosts; as many are needed to begin with, unless ``hosts.workers`` is a range.
        note: Told, in one line, what a person should know.
        stopping: Asked while the pool waits for room on the cluster; True ends the wait.
    """

    def __init__(
        self,
        config: Experiment,
        data: FederatedData,
        *,
        hosts: int,
        note: Callable[[str], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._sizes: Ints = data.sizes
        self._note = note
        self._stopping = stopping
        self._limit = round(config.hosts.memory_mb * MB)
        self._store = MemoryStore(self._limit)
        workers = config.hosts.workers
        least = hosts if workers is None else min(workers.min, hosts)
        self._roster = Roster(config, _put(data), least=least, most=hosts, note=note)
        self._flights = Flights()
        self._opened = False

    @property
    def hosts(self) -> int:
        """Client hosts alive now."""
        return len(self._roster.hosts)

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
            NoRoomError: The run was asked to stop while it waited for room.
            StoreFullError: A machine has no room for a share's results.
            TightwireError: Whatever a share raised.
        """
        for flight, (result, sizes) in self._share_out("run", broadcast, tasks, memories):
            refs = {
                task.client: ref
                for task, ref in zip(flight.share.tasks, flight.memories, strict=True)
                if task.client in sizes
            }
            yield result, {client: self._adopt(ref, sizes[client]) for client, ref in refs.items()}

    def put(self, memory: Memory) -> Remembered:
        """See `Pool.put`."""
        return self._store.put(memory) if size(memory) <= SMALL else _put(memory)

    def get(self, handle: Remembered) -> Memory:
        """See `Pool.get`.

        Raises:
            MachineLostError: It was lost with its machine.
        """
        return self._store.get(handle) if isinstance(handle, Kept) else _fetch(handle)

    def close(self) -> None:
        """See `Pool.close`."""
        self._roster.close()
        self._store.close()

    def _adopt(self, ref: "ray.ObjectRef[Memory]", size: int) -> Remembered:
        """A host's memory as this pool keeps it."""
        return self._store.put(_fetch(ref)) if size <= SMALL else ref

    def _share_out(
        self, method: str, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Remembered]
    ) -> Iterator[tuple[Flight, Any]]:  # Any: what the method gives first
        if not tasks:
            return
        self._gather()
        waiting = deque(shares(tasks, self._sizes, len(self._roster.idle), self._config.hosts.clients_per_host))
        left = len(waiting)
        payload = _put(broadcast)
        try:
            while left:
                for host in self._roster.idle:
                    share = waiting.popleft() if waiting else self._slow(broadcast.round)
                    if share is None:
                        break
                    self._launch(method, host, share, payload, memories)
                if not self._flights.at_work:
                    self._gather()
                    continue
                event = self._next(self._flights.until_slow() if self._roster.idle else None)
                flight = None if event is None else self._take(event)
                if flight is None:
                    continue
                try:
                    given = ray.get(flight.first)
                except RayTaskError as error:
                    raise raised(error) from None
                except HOST_DIED:
                    self._lose(flight, broadcast.round, waiting)
                    continue
                left -= 1
                self._flights.won(flight)
                yield flight, given
        finally:
            self._flights.give_up()

    def _gather(self) -> None:
        """Wait until hosts are idle, at first as many as the run needs.

        Raises:
            NoRoomError: The run is to stop.
        """
        while (event := self._next(0.0)) is not None:
            self._take(event)
        began = told = time.monotonic()
        pause = ROOM_SECONDS
        while True:
            self._replace_the_slow()
            now = time.monotonic()
            expected = self._flights.aborted or not (self._opened or self._roster.settled)
            if self._roster.enough and self._roster.idle and (not expected or now - began > START_SECONDS):
                break
            if self._stopping():
                raise NoRoomError(f"stopped while it waited for room on the cluster: {self._roster.wanting()}")
            if not self._roster.enough and now - told > pause:
                self._note(f"waiting for room on the cluster: {self._roster.wanting()}")
                told, pause = now, 2 * pause
            if (event := self._next(POLL_SECONDS)) is not None:
                self._take(event)
        if not self._opened:
            self._opened = True
            self._roster.open()

    def _next(self, timeout: float | None) -> "ray.ObjectRef[object] | None":
        """The next thing to happen, or None when nothing has for `timeout` seconds."""
        events = [*self._flights.events, *self._roster.events]
        if not events:
            time.sleep(timeout or 0.0)
            return None
        happened, _ = ray.wait(events, timeout=timeout)
        return happened[0] if happened else None

    def _take(self, event: "ray.ObjectRef[object]") -> Flight | None:
        """Note what has happened; returns a flight that is back and whose share is still wanted."""
        if self._roster.hear(event):
            return None
        flight = self._flights.back(event)
        if flight.over is None:
            return flight
        try:
            ray.get(event)
        except RayTaskError:
            pass  # of a round that was given up
        except HOST_DIED:
            self._roster.bury(flight.host)
        return None

    def _launch(
        self,
        method: str,
        host: Host,
        share: Share,
        payload: "ray.ObjectRef[Broadcast]",
        memories: Mapping[int, Remembered],
    ) -> None:
        remembering = [task.client for task in share.tasks if task.client in memories]
        handles = [memories[client] for client in remembering]
        known = [self._store.get(handle) if isinstance(handle, Kept) else handle for handle in handles]
        call: Any = getattr(host.actor, method)  # Any: ray's types know neither `options` nor several returns
        if method == "run":
            call = call.options(num_returns=1 + len(share.tasks))
        given = call.remote(payload, share.tasks, remembering, *known)
        first, *fresh = given if isinstance(given, list) else [given]
        self._flights.begin(Flight(method, host, share, first, fresh))

    def _lose(self, flight: Flight, round_: int, waiting: deque[Share]) -> None:
        """A host has died at work; its share is for whoever is idle next."""
        self._roster.bury(flight.host)
        share, tasks = flight.share, flight.share.tasks
        share.deaths += 1
        if share.deaths == ATTEMPTS:
            clients = ", ".join(str(task.client) for task in tasks[:5]) + (", ..." if len(tasks) > 5 else "")
            raise HostsLostError(
                f"round {round_}: {ATTEMPTS} client hosts died over the same {len(tasks)} clients ({clients}); "
                "they may need more memory than the machine has: try fewer workers"
            )
        self._note(f"round {round_}: a client host died; its {len(tasks)} clients are redone, {self.hosts} hosts left")
        if not share.runs:
            waiting.append(share)

    def _slow(self, round_: int) -> Share | None:
        """A share that takes too long where it is, for an idle host to try."""
        share = self._flights.slow()
        if share is not None:
            self._note(
                f"round {round_}: a client host is slow; its {len(share.tasks)} clients are given to another, too"
            )
        return share

    def _replace_the_slow(self) -> None:
        """Replace hosts that stand still, or that lost race after race."""
        stuck = self._flights.stuck()
        for host in list(self._roster.hosts):
            if host in stuck or host.lost_races >= LOST_RACES * 2**host.seat.renewed:
                self._note("a client host that was too slow again and again is replaced")
                self._flights.forget(host)
                self._roster.renew(host)


def _put(value: T) -> "ray.ObjectRef[T]":
    try:
        return ray.put(value)
    except STORE_FULL:
        raise StoreFullError from None


def _fetch(ref: "ray.ObjectRef[Memory]") -> Memory:
    try:
        return ray.get(ref)
    except ObjectLostError:
        raise MachineLostError from None
