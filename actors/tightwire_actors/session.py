"""The driver's side of a run on Ray: start or join a cluster, start the coordinator, watch it."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import cast

import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from tightwire.config import Experiment
from tightwire.errors import ConfigError, TightwireError
from tightwire.federation.records import Ended
from tightwire.simulation import Listener
from tightwire.tracking.base import RunInfo, Tracker
from tightwire.tracking.folder import RunFolder
from tightwire_actors.address import answering, show_token
from tightwire_actors.coordinator import ANSWER_SECONDS, CoordinatorImpl, Progress, spawn_coordinator
from tightwire_actors.failures import ClusterError, raised
from tightwire_actors.once import Once
from tightwire_actors.room import check_room

POLL_SECONDS = 0.2

DEATHS = 3
"""Coordinators that may die in a row, with no new round between them."""

LOCK_SECONDS = 30.0
"""How long a coordinator that died may keep the run's folder: the process may end after Ray has given it up."""


class CoordinatorLostError(ClusterError):
    """The coordinator's process died."""


def hosts_wanted(config: Experiment) -> int:
    """The most client hosts: `hosts.workers`, or what `hosts.clients_per_host` makes of the cohort, or one a core."""
    selected = config.participation.invited
    workers = config.hosts.workers
    if workers is not None:
        wanted = selected if workers.max is None else workers.max
    elif config.hosts.clients_per_host is not None:
        wanted = math.ceil(selected / config.hosts.clients_per_host)
    else:
        wanted = os.cpu_count() or 1
    return min(wanted, selected)


def hosts_needed(config: Experiment) -> int:
    """The client hosts without which no round begins: all of them, unless `hosts.workers` is a range."""
    wanted = hosts_wanted(config)
    return wanted if config.hosts.workers is None else min(config.hosts.workers.min, wanted)


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Ray prints on standard output that a machine died; what belongs there is the result."""
    with redirect_stdout(sys.stderr):
        yield


@_stdout_kept()
def run_on_ray(
    config: Experiment,
    info: RunInfo,
    tracker: Callable[[], Tracker],
    listener: Listener,
    stopping: Callable[[], bool],
    address: str | None,
    connected: Callable[[], None],
) -> Ended:
    """Run an experiment on Ray and report to `listener` until it ends.

    With an address (or RAY_ADDRESS) the run joins that cluster, and its coordinator is detached: it goes on if this
    process leaves. Without one, or with "local", a cluster on this machine is started and ends with this process.

    A coordinator that dies is replaced as long as this process is there, and the new one goes on from the last
    checkpoint.

    Args:
        config: The experiment.
        info: What is known of the run.
        tracker: Makes the tracker, in the coordinator's process.
        listener: Hears of rounds and notes.
        stopping: Asked several times a second; True ends the run after the round under way, with a checkpoint.
        address: The cluster: host:port, "auto", "local" or None.
        connected: Called once Ray has connected, which takes over the handling of SIGTERM.

    Raises:
        ConfigError: The cluster does not answer, has no room for the hosts, or is still carrying out this run.
        ClusterError: The coordinator, or what the run cannot do without, died.
        TightwireError: Whatever ended the run.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    detached = address not in (None, "", "local")
    hosts, needed = hosts_wanted(config), hosts_needed(config)
    try:
        if address and detached:
            _join(address)
        else:
            if needed < hosts:
                hosts = max(needed, min(hosts, int((os.cpu_count() or 1) / config.hosts.cpus)))
            _start(hosts * config.hosts.cpus)
        connected()
        where = f"the cluster at {address}" if detached else "this machine"
        check_room(where, needed, config.hosts.reserved, config.hosts.placement)
        once, deaths = Once(listener), 0
        while True:
            coordinator = spawn_coordinator(config, info, tracker, hosts=hosts, detached=detached)
            before = once.round_told
            try:
                return _watch(coordinator, once, stopping)
            except KeyboardInterrupt:
                if detached:
                    ray.wait([coordinator.stop.remote()], timeout=ANSWER_SECONDS)
                    listener.note(
                        f"the run goes on at {address} until its round has closed and is saved; "
                        f"then continue with: tightwire run --resume {info.folder}"
                    )
                raise
            except (RayActorError, OutOfMemoryError, NodeDiedError, LocalRayletDiedError) as error:
                deaths = deaths + 1 if once.round_told == before else 1
                why = f"the coordinator died ({' '.join(str(error).split())[:200]})"
                if deaths > DEATHS:
                    raise CoordinatorLostError(
                        f"{why}, as did the {DEATHS} before it, without a round between; {_continue(info)}"
                    ) from None
                listener.note(f"{why}; a new one goes on from the last checkpoint")
                ray.kill(cast("ActorHandle[CoordinatorImpl]", coordinator))  # it may live where Ray cannot see it
                _wait_for_lock(RunFolder(info.folder))
    except RayTaskError as error:
        cause = raised(error)
        if isinstance(cause, ClusterError):
            raise ClusterError(f"{cause}; {_continue(info)}") from None
        if isinstance(cause, TightwireError):
            raise cause from None
        raise
    finally:
        ray.shutdown()


def _wait_for_lock(folder: RunFolder) -> None:
    """Wait until the process that ran the rounds is gone.

    Raises:
        ConfigError: It is still there.
    """
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with folder.locked():
                return
        except ConfigError:
            if time.monotonic() > end:
                raise
        time.sleep(POLL_SECONDS)


def _continue(info: RunInfo) -> str:
    return f"continue with: tightwire run --resume {info.folder}"


def _watch(coordinator: ActorProxy[CoordinatorImpl], listener: Listener, stopping: Callable[[], bool]) -> Ended:
    """Start the run and stay with it to its end, after which the coordinator is of no more use."""
    running: ray.ObjectRef[Ended] = coordinator.run.remote()
    asked = False
    while True:
        done, _ = ray.wait([running], timeout=POLL_SECONDS)
        try:
            news = ray.get(coordinator.progress.remote())
        except ActorUnavailableError:  # for the moment; it may well be alive
            news = Progress(None, (), ())
        if news.restored is not None:
            listener.restored(news.restored)
        for text in news.notes:
            listener.note(text)
        for record in news.records:
            listener.round(record)
        if done:
            break
        if stopping() and not asked:
            asked = True
            coordinator.stop.remote()
    try:
        return ray.get(running)
    finally:
        ray.kill(cast("ActorHandle[CoordinatorImpl]", coordinator))


def _start(cpus: float) -> None:
    """Start a cluster here with as many CPUs as the hosts reserve."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local",
        num_cpus=math.ceil(cpus),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _join(address: str) -> None:
    """Join the cluster at `address`.

    Raises:
        ConfigError: None answers there.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        place = answering(address)
        show_token()
        ray.init(address=place, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers there ({' '.join(str(error).split())[:200]}); "
            "right would be the host:port that `ray start` printed on its head node, and, if the cluster wants "
            "authentication, its token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        ) from None
