"""The coordinator: an actor that runs the rounds, so that the driver may leave."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.actor import ActorClass, ActorProxy

from tightwire.config import Experiment
from tightwire.federation.records import RoundRecord
from tightwire.simulation import Ended, Parts, Simulation
from tightwire.tracking.base import RunInfo, Tracker
from tightwire.tracking.folder import RunFolder
from tightwire_actors.pool import RayPool

NAMESPACE = "tightwire"

GRACE_SECONDS = 30.0
"""How long a detached coordinator stays after its run, for a driver that is still there to read the last news."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has happened since the driver last asked."""

    records: tuple[RoundRecord, ...]
    notes: tuple[str, ...]


class CoordinatorImpl:
    """Hosts a `Simulation` on a `RayPool`; answers the driver from a second thread while it runs."""

    def __init__(
        self,
        config: Experiment,
        info: RunInfo,
        tracker: Callable[[], Tracker],
        hosts: int,
        folder: Path,
        detached: bool,
    ) -> None:
        os.chdir(folder)
        self._config = config
        self._detached = detached
        self._info = info
        self._tracker = tracker
        self._hosts = hosts
        self._records: list[RoundRecord] = []
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @ray.method
    def run(self) -> Ended:
        """Run to the end, or until `stop`; errors are raised to the caller."""
        parts = Parts.load(self._config)
        pool = RayPool(self._config, parts.data, hosts=self._hosts, note=self.note)
        try:
            simulation = Simulation(parts, RunFolder(self._info.folder), pool, self._tracker(), self)
            return simulation.run(self._info, self._stopping.is_set)
        finally:
            pool.close()
            if self._detached:
                _end_later()

    @ray.method
    def progress(self) -> Progress:
        """What is new since the last call."""
        with self._lock:
            news = Progress(tuple(self._records), tuple(self._notes))
            self._records.clear()
            self._notes.clear()
        return news

    @ray.method
    def stop(self) -> None:
        """Ask for an end after the round under way; a checkpoint is saved."""
        self._stopping.set()

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        with self._lock:
            self._records.append(record)

    def note(self, text: str) -> None:
        """See `tightwire.simulation.Listener`."""
        with self._lock:
            self._notes.append(text)


def _end_later() -> None:
    """End this actor's process in a while; nobody else ends a detached actor whose driver has left."""
    me = ray.get_runtime_context().current_actor
    timer = threading.Timer(GRACE_SECONDS, ray.kill, (me,))
    timer.daemon = True
    timer.start()


Coordinator: ActorClass[CoordinatorImpl] = ray.remote(CoordinatorImpl)


def spawn_coordinator(
    config: Experiment, info: RunInfo, tracker: Callable[[], Tracker], *, hosts: int, detached: bool
) -> ActorProxy[CoordinatorImpl]:
    """Start a coordinator.

    Args:
        config: The experiment.
        info: What is known of the run; its folder must be reachable from the coordinator's machine, and so must the
            working folder, from which the paths of the experiment start.
        tracker: Makes the tracker, in the coordinator's process.
        hosts: Client hosts to start.
        detached: Whether it goes on when the driver leaves; it then has the name `tightwire:<run>` in the namespace
            `tightwire` until it is done.
    """
    options = Coordinator.options(num_cpus=0, max_concurrency=3)
    if detached:
        options = Coordinator.options(
            num_cpus=0,
            max_concurrency=3,
            lifetime="detached",
            name=f"tightwire:{info.name}",
            namespace=NAMESPACE,
        )
    return options.remote(config, info, tracker, hosts, Path.cwd(), detached)
