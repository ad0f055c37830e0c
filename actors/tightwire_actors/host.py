"""The client host: an actor that carries out shares of virtual clients' turns."""

from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorClass, ActorProxy
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tightwire.codecs.codec import Memory
from tightwire.config import Experiment
from tightwire.federation.store import size
from tightwire.federation.tasks import Broadcast, ClientTask, Offer
from tightwire.learning.samples import FederatedData
from tightwire.learning.torch_state import single_thread
from tightwire.simulation import Parts


class ClientHostImpl:
    """Hosts a `ClientRunner`; keeps no client's state, so that another host can take over any share at any time."""

    def __init__(self, config: Experiment, data: FederatedData) -> None:
        self._runner = Parts.of(config, data).runner()

    @ray.method
    def node(self) -> str:
        """The id of this host's machine; answered once the host can work."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method
    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], remembering: Sequence[int], *memories: Memory
    ) -> list[Any]:
        """Carry out one share.

        Args:
            broadcast: What every host needs; arrives through the object store.
            tasks: The share.
            remembering: The clients that `memories` belong to, in their order.
            memories: What their codecs and error feedback remember.

        Returns:
            1 + len(tasks) objects, each a return value of its own: the share's result with the bytes of each client's
            new memory, of those that have one, then that memory, or None, for each task. They belong to the caller and
            outlive this host's process; large ones do not outlive its machine.
        """
        with single_thread():
            known = dict(zip(remembering, memories, strict=True))
            result, fresh = self._runner.run(broadcast, tasks, known, lambda memory: memory)
        sizes = {client: size(memory) for client, memory in fresh.items()}
        return [(result, sizes), *(fresh.get(task.client) for task in tasks)]

    @ray.method
    def offers(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], remembering: Sequence[int], *memories: Memory
    ) -> tuple[Offer, ...]:
        """Have one share train and say its ranges; arguments as those of `run`."""
        with single_thread():
            return self._runner.offers(broadcast, tasks, dict(zip(remembering, memories, strict=True)))


ClientHost: ActorClass[ClientHostImpl] = ray.remote(ClientHostImpl)


def spawn_client_host(
    config: Experiment, data: "ray.ObjectRef[FederatedData]", *, room: PlacementGroup, slot: int
) -> ActorProxy[ClientHostImpl]:
    """Start a client host on what `config.hosts` reserves, which is bundle `slot` of `room`.

    Ray does not restart it, `Roster` does.
    """
    place = PlacementGroupSchedulingStrategy(placement_group=room, placement_group_bundle_index=slot)
    reserved = config.hosts
    return ClientHost.options(
        num_cpus=reserved.cpus,
        num_gpus=reserved.gpus,
        resources=dict(reserved.resources),
        max_restarts=0,
        enable_task_events=False,  # or Ray's head would keep a record of each share, up to 100,000
        scheduling_strategy=place,
    ).remote(config, data)
