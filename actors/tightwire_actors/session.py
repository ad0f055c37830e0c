"""The driver's side of a run on Ray: start or join a cluster, start the coordinator, watch it."""

import logging
import math
import os
from collections.abc import Callable
from typing import cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from tightwire.config import Experiment
from tightwire.errors import ConfigError, TightwireError
from tightwire.simulation import Ended, Listener
from tightwire.tracking.base import RunInfo, Tracker
from tightwire_actors.coordinator import CoordinatorImpl, spawn_coordinator

POLL_SECONDS = 0.2


class CoordinatorLostError(TightwireError):
    """The coordinator's process died; the run can be resumed from its last checkpoint."""


def hosts_wanted(config: Experiment) -> int:
    """Client hosts to start: `hosts.workers`, or what `hosts.clients_per_host` makes of the cohort, or one a core."""
    selected = config.participation.invited
    if config.hosts.workers is not None:
        wanted = config.hosts.workers
    elif config.hosts.clients_per_host is not None:
        wanted = math.ceil(selected / config.hosts.clients_per_host)
    else:
        wanted = os.cpu_count() or 1
    return min(wanted, selected)


def run_on_ray(
    config: Experiment,
    info: RunInfo,
    tracker: Callable[[], Tracker],
    listener: Listener,
    stopping: Callable[[], bool],
    address: str | None,
) -> Ended:
    """Run an experiment on Ray and report to `listener` until it ends.

    With an address (or RAY_ADDRESS) the run joins that cluster, and its coordinator is detached: it goes on if this
    process leaves. Without one, a cluster on this machine is started and ends with this process.

    Raises:
        ConfigError: The cluster is too small for the hosts.
        CoordinatorLostError: The coordinator died.
        TightwireError: Whatever ended the run.
    """
    hosts = hosts_wanted(config)
    address = address or os.environ.get("RAY_ADDRESS")
    _connect(address, hosts * config.hosts.cpus)
    try:
        coordinator = spawn_coordinator(config, info, tracker, hosts=hosts, detached=address is not None)
        running: ray.ObjectRef[Ended] = coordinator.run.remote()
        asked = False
        while True:
            done, _ = ray.wait([running], timeout=POLL_SECONDS)
            news = ray.get(coordinator.progress.remote())
            for text in news.notes:
                listener.note(text)
            for record in news.records:
                listener.round(record)
            if done:
                break
            if stopping() and not asked:
                asked = True
                coordinator.stop.remote()
        ended = ray.get(running)
        ray.kill(cast("ActorHandle[CoordinatorImpl]", coordinator))
        return ended
    except RayTaskError as error:
        if isinstance(error.cause, TightwireError):
            raise error.cause from None
        raise
    except RayActorError as error:
        raise CoordinatorLostError(
            f"the coordinator died ({' '.join(str(error).split())[:200]}); "
            f"continue with: tightwire run --resume {info.folder}"
        ) from None
    finally:
        ray.shutdown()


def _connect(address: str | None, cpus: float) -> None:
    """Join the cluster at `address`, or start one here with as many CPUs as the hosts reserve."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        ray.init(
            address="local",
            num_cpus=math.ceil(cpus),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({' '.join(str(error).split())[:200]})"
        ) from None
    there = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]  # ray leaves it untyped
    if there < cpus:
        ray.shutdown()
        raise ConfigError(
            f"hosts: {cpus:g} CPUs are to be reserved, but the cluster at {address} has {there:g}; "
            "lower --workers or hosts.cpus"
        )
