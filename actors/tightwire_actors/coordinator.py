"""The coordinator: an actor that runs the rounds, so that the driver may leave."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import ray
from ray.actor import ActorClass, ActorHandle, ActorProxy
from ray.exceptions import ActorUnavailableError, GetTimeoutError, OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tightwire.config import Experiment
from tightwire.errors import ConfigError
from tightwire.federation.records import Ended, RoundRecord
from tightwire.simulation import Parts, Simulation
from tightwire.tracking.base import RunInfo, Tracker
from tightwire.tracking.folder import RunFolder
from tightwire_actors.pool import RayPool

NAMESPACE = "tightwire"

GRACE_SECONDS = 30.0
"""How long a detached coordinator stays after its run, for a driver that is still there to read the last news."""

ANSWER_SECONDS = 10.0
"""How long an earlier coordinator has to say whether its run is over."""

KEPT = 1000
"""Records, and notes, kept for a driver that does not ask; a detached coordinator's may never come back."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has happened since the driver last asked."""

    restored: tuple[RoundRecord, ...] | None
    """The rounds that the run began with; None before it has begun, and once it has been told."""
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
        self._folder = folder
        self._over = False
        self._config = config
        self._detached = detached
        self._info = info
        self._tracker = tracker
        self._hosts = hosts
        self._restored: tuple[RoundRecord, ...] | None = None
        self._records: deque[RoundRecord] = deque(maxlen=KEPT)
        self._notes: deque[str] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @ray.method
    def run(self) -> Ended:
        """Run to the end, or until `stop`; errors are raised to the caller."""
        try:
            return self._run()
        finally:
            self._over = True
            if self._detached:
                _end_later()

    def _run(self) -> Ended:
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise ConfigError(
                f"{self._folder}: cannot be reached on the coordinator's machine ({error.strerror}); "
                "start the run in a folder that all machines of the cluster share"
            ) from None
        parts = Parts.load(self._config)
        pool = RayPool(self._config, parts.data, hosts=self._hosts, note=self.note, stopping=self._stopping.is_set)
        try:
            simulation = Simulation(parts, RunFolder(self._info.folder), pool, self._tracker(), self)
            return simulation.run(self._info, self._stopping.is_set)
        finally:
            pool.close()

    @ray.method
    def progress(self) -> Progress:
        """What is new since the last call, of it the last `KEPT` records and notes."""
        with self._lock:
            news = Progress(self._restored, tuple(self._records), tuple(self._notes))
            self._restored = None
            self._records.clear()
            self._notes.clear()
        return news

    @ray.method
    def over(self) -> bool:
        """Whether the run has ended, one way or the other."""
        return self._over

    @ray.method
    def stop(self) -> None:
        """Ask for an end after the round under way; a checkpoint is saved."""
        self._stopping.set()

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """See `tightwire.simulation.Listener`."""
        with self._lock:
            self._restored = tuple(records)

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


def _make_way(name: str, info: RunInfo) -> None:
    """End the coordinator of this name if its run is over.

    Raises:
        ConfigError: It is not.
    """
    try:
        other = cast("ActorHandle[CoordinatorImpl]", ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        return
    if not _is_over(cast("ActorProxy[CoordinatorImpl]", other)):
        raise ConfigError(
            f"{info.folder}: this run is still going on on that cluster, where an earlier command left it; "
            "wait until it has ended"
        )
    ray.kill(other)
    while _is_there(name):
        time.sleep(0.05)


def _is_over(other: ActorProxy[CoordinatorImpl]) -> bool:
    """Whether a coordinator has nothing more to do, or is dead; one that cannot be reached may be at work."""
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        try:
            asked: ray.ObjectRef[bool] = other.over.remote()
            return ray.get(asked, timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            return False
        except ActorUnavailableError:
            time.sleep(0.2)
        except (RayActorError, OutOfMemoryError):
            return True
    return False


def _is_there(name: str) -> bool:
    try:
        ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return False
    return True


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
        hosts: The most client hosts to start; see `RayPool`.
        detached: Whether it is to go on when the driver leaves. It has the name `tightwire:<the run's folder>` in the
            namespace `tightwire` until it is done.

    Raises:
        ConfigError: A coordinator of an earlier driver is still carrying out this run.
    """
    name = f"tightwire:{info.folder}"
    _make_way(name, info)
    options = Coordinator.options(
        num_cpus=0,
        max_concurrency=3,
        enable_task_events=False,  # or Ray's head would keep each of a driver's looks at the progress, up to 100,000
        # always: of another actor that died Ray would keep the placement groups until the driver leaves
        lifetime="detached",
        name=name,
        namespace=NAMESPACE,
        # beside the driver, whose folder only this machine may have; Ray places what needs no CPU at random
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
    )
    return options.remote(config, info, tracker, hosts, Path.cwd(), detached)
