"""The client hosts of a run: asks the cluster for places, has a host in each, and knows who is there.

A place is a bundle of a placement group, so that what a host reserves is reserved for good and no two runs are given
the same CPU. The hosts that a run cannot begin without are asked for together: two runs that each got half of what they
need would wait for each other for ever. More are asked for one by one, each once the one before was granted, so that
runs that share a cluster grow in turns. Places of machines that leave are found again by Ray as soon as there is room.
"""

from collections.abc import Callable
from typing import Any, cast

import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import RayActorError, RuntimeEnvSetupError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from tightwire.config import Experiment
from tightwire.learning.samples import FederatedData
from tightwire_actors.failures import START_FAILED, HostStartError
from tightwire_actors.host import ClientHostImpl, spawn_client_host

FAILED_STARTS = 10
"""Hosts in a row that may die while they start, before their place is given up."""


class Seat:
    """A place for one host."""

    __slots__ = ("failed_starts", "group", "renewed", "slot")

    def __init__(self, group: PlacementGroup, slot: int) -> None:
        self.group = group
        self.slot = slot
        self.failed_starts = 0
        """Hosts in a row that died here while they started."""
        self.renewed = 0
        """Hosts that were replaced here because they were slow."""


class Host:
    """A client host and what the pool knows of it."""

    __slots__ = ("actor", "busy", "lost_races", "node", "seat")

    def __init__(self, actor: ActorProxy[ClientHostImpl], seat: Seat) -> None:
        self.actor = actor
        self.seat = seat
        self.node = ""
        """Id of its machine."""
        self.busy = False
        self.lost_races = 0
        """Since it last ended a share first."""


class Roster:
    """Who is there. Whoever has it waits for its `events`, and tells it of each with `hear`."""

    def __init__(
        self,
        config: Experiment,
        data: "ray.ObjectRef[FederatedData]",
        *,
        least: int,
        most: int,
        note: Callable[[str], None],
    ) -> None:
        self._config = config
        self._data = data
        self._least = least
        self._most = most
        self._note = note
        self._groups: list[PlacementGroup] = []
        self._asked: dict[ray.ObjectRef[PlacementGroup], PlacementGroup] = {}
        self._starting: dict[ray.ObjectRef[str], Host] = {}
        self._seats = 0
        self._opened = False
        self.hosts: list[Host] = []
        """Those that can work, in the order in which they came."""
        self._ask(least)

    @property
    def events(self) -> list["ray.ObjectRef[Any]"]:  # Any: each kind gives something else
        """What may be waited for."""
        return [*self._asked, *self._starting]

    @property
    def idle(self) -> list[Host]:
        """Hosts that have nothing to do."""
        return [host for host in self.hosts if not host.busy]

    @property
    def settled(self) -> bool:
        """Whether nobody is on the way but who waits for room."""
        return not self._starting

    @property
    def enough(self) -> bool:
        """Whether work can be handed out: at first to no fewer than the run needs, later to whoever is left."""
        return len(self.hosts) >= (1 if self._opened else self._least)

    def open(self) -> None:
        """The work begins; from now on every host that comes is worth a word."""
        self._opened = True

    def wanting(self) -> str:
        """What the run waits for, in words."""
        what = ", ".join(f"{amount:g} {name}" for name, amount in self._config.hosts.reserved.items())
        least = 1 if self._opened else self._least
        free = ray.available_resources()  # type: ignore[no-untyped-call]  # ray leaves it untyped
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]  # likewise
        room = ", ".join(
            f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}" for name in self._config.hosts.reserved
        )
        return f"{least} host{'s' * (least > 1)} of {what} wanted, {len(self.hosts)} there, free now: {room}"

    def hear(self, event: "ray.ObjectRef[Any]") -> bool:  # Any: as above
        """Something has happened; False if it is no event of this roster.

        Raises:
            HostStartError: A host cannot be set up, and there is no other.
        """
        group = self._asked.pop(event, None)
        if group is not None:
            for slot in range(group.bundle_count):
                self._start(Seat(group, slot))
            if self._seats < self._most:
                self._ask(1)
            return True
        host = self._starting.pop(event, None)
        if host is None:
            return False
        try:
            host.node = str(ray.get(event))
        except START_FAILED as error:
            self._stillborn(host, error)
            return True
        host.seat.failed_starts = 0
        self.hosts.append(host)
        if self._opened:
            self._note(f"a client host joined: {len(self.hosts)} now")
        return True

    def bury(self, host: Host) -> bool:
        """A host has died: let another start in its place, and those idle on its machine as well if that is gone.

        Returns:
            Whether the machine is gone.
        """
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]  # ray's
        gone = [other for other in self.hosts if not other.busy and other is not host and other.node not in alive]
        for dead in (host, *gone):
            self._restart(dead)
        return host.node not in alive

    def renew(self, host: Host) -> None:
        """Let another host start in the place of one that is too slow."""
        host.seat.renewed += 1
        self._restart(host)

    def close(self) -> None:
        """End all hosts, and give the places back."""
        for host in (*self.hosts, *self._starting.values()):
            _kill(host)
        for group in self._groups:
            remove_placement_group(group)
        self.hosts, self._groups = [], []
        self._starting, self._asked = {}, {}

    def _ask(self, seats: int) -> None:
        placement = self._config.hosts.placement.upper()
        group = placement_group([self._config.hosts.reserved] * seats, strategy=placement)
        self._seats += seats
        self._groups.append(group)
        self._asked[group.ready()] = group

    def _start(self, seat: Seat) -> None:
        actor = spawn_client_host(self._config, self._data, room=seat.group, slot=seat.slot)
        self._starting[actor.node.remote()] = Host(actor, seat)

    def _restart(self, host: Host) -> None:
        if host in self.hosts:
            self.hosts.remove(host)
            _kill(host)
            self._start(host.seat)

    def _stillborn(self, host: Host, error: Exception) -> None:
        """A host died before it could work."""
        if isinstance(error, RuntimeEnvSetupError) or (isinstance(error, RayActorError) and error.actor_init_failed):
            reason = f"a client host cannot be set up: {str(error).strip().splitlines()[-1]}"
            reason = reason.replace("tightwire.errors.", "", 1)
            if not self._opened:  # what is wrong with the first is wrong with all
                raise HostStartError(reason)
        else:
            _kill(host)
            host.seat.failed_starts += 1
            if host.seat.failed_starts < FAILED_STARTS:
                self._start(host.seat)
                return
            reason = (
                f"{FAILED_STARTS} client hosts in a row died while they started in one place; "
                "its machine may be short of memory, then try fewer workers"
            )
        if len(self.hosts) + len(self._starting) < (1 if self._opened else self._least):
            raise HostStartError(reason)
        self._note(f"{reason}; going on without it")


def _kill(host: Host) -> None:
    ray.kill(cast("ActorHandle[ClientHostImpl]", host.actor))
