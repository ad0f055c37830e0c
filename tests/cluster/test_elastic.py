"""Hosts and machines that come, go, stand still or are shared, on a real cluster of several nodes."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import ray
from ray.actor import ActorHandle
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from scenarios import Quiet, digest_of, run_here, small
from tightwire import config as configs
from tightwire.config import Experiment
from tightwire.errors import ConfigError
from tightwire.federation.records import RoundRecord
from tightwire.simulation import Parts
from tightwire.tracking.base import NullTracker, RunInfo
from tightwire.tracking.folder import RunFolder
from tightwire_actors import flights, shares
from tightwire_actors import pool as pools
from tightwire_actors.coordinator import spawn_coordinator
from tightwire_actors.failures import STORE_FULL, StoreFullError
from tightwire_actors.pool import RayPool
from tightwire_actors.room import check_room
from tightwire_actors.session import run_on_ray

pytestmark = pytest.mark.timeout(900)

DEADLINE = 300.0
FIXED = {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}
LARGE = {"name": "mlp", "hidden": [600]}
"""With memories of more than 100 kB, which are Ray's objects."""
SLOW = {"epochs": 12, "batch": 2, "lr": 0.02}


def wait_for(happened: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


def processes(*titles: str) -> list[psutil.Process]:
    """Processes of this test's clusters whose title begins like this."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(titles):
                found.append(process)
    return found


class Doing(Quiet):
    """A listener that does things once rounds have closed, before the next begin."""

    def __init__(self, **after: Callable[[], object]) -> None:
        super().__init__()
        self._after = after

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        super().round(record)
        if f"round_{record.round}" in self._after:
            self._after.pop(f"round_{record.round}")()

    def told(self, text: str) -> int:
        """How many notes have these words."""
        return sum(text in note for note in self.notes)


def on_ray(config: Experiment, folder: Path, listener: Quiet, *, hosts: int) -> str:
    pool = RayPool(config, Parts.load(config).data, hosts=hosts, note=listener.note)
    try:
        return digest_of(run_here(config, folder, pool=pool, listener=listener))
    finally:
        pool.close()


def hosts_now(pool: RayPool) -> int:
    """Let a pool hear, between two rounds, what it would hear during the next; then count."""
    event = pool._next(0.1)
    if event is not None:
        assert pool._take(event) is None
    return pool.hosts


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head with two CPUs and a GPU that is not there; a dead node is noticed within seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "num_gpus": 1,
                "resources": {"disk": 2},
                "include_dashboard": False,
                "_system_config": {
                    "health_check_initial_delay_ms": 0,
                    "health_check_period_ms": 500,
                    "health_check_timeout_ms": 20_000,
                    "health_check_failure_threshold": 3,
                },
            },
        )
        yield cluster
        cluster.shutdown()  # type: ignore[no-untyped-call]  # ray leaves it untyped


@pytest.fixture
def cluster(nodes: Cluster) -> Iterator[Cluster]:
    """The same, and this process has joined it; in the end nothing of a run may be left there."""
    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    yield nodes
    wait_for(lambda: not processes("ray::ClientHostImpl", "ray::CoordinatorImpl"), "all processes have ended")
    states = {group["state"] for group in placement_group_table().values()}
    assert states <= {"REMOVED"}
    ray.shutdown()


def test_hosts_that_join_take_work_and_a_machine_that_leaves_costs_only_the_rounds_since_the_checkpoint(
    tmp_path: Path, cluster: Cluster
) -> None:
    config = small(policy=FIXED, model=LARGE, rounds=10, hosts={"workers": {"min": 1, "max": 2}, "cpus": 2})
    added: list[Any] = []

    def join() -> None:
        added.append(cluster.add_node(num_cpus=2))
        wait_for(lambda: hosts_now(pool) == 2, "a second host is there")

    def leave() -> None:
        cluster.remove_node(added[0], allow_graceful=False)

    listener = Doing(round_1=join, round_7=leave)
    pool = RayPool(config, Parts.load(config).data, hosts=2, note=listener.note)
    try:
        digest = digest_of(run_here(config, tmp_path / "ray", pool=pool, listener=listener))
    finally:
        pool.close()
    assert [record.round for record in listener.records] == list(range(1, 11))
    assert [record.hosts for record in listener.records][:7] == [1] + [2] * 6
    assert listener.records[-1].hosts == 1
    assert listener.told("a client host joined: 2 now") == 1
    assert listener.told("going back to the checkpoint after round 6") == 1
    assert digest == digest_of(run_here(config, tmp_path / "here"))


def test_a_host_that_stands_still_holds_up_no_round_and_is_replaced(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster
    monkeypatch.setattr(shares, "SLOW_SECONDS", 1.0)
    monkeypatch.setattr(flights, "STUCK_SECONDS", 0.0)
    hosts = {"workers": 2, "gpus": 0.5, "resources": {"disk": 1}, "placement": "strict_pack"}
    config = small(policy=FIXED, rounds=5, training=SLOW, hosts=hosts)
    stopped: list[psutil.Process] = []
    free: list[dict[str, float]] = []

    def stop_one() -> None:
        end = time.monotonic() + DEADLINE
        while not stopped and time.monotonic() < end:
            for process in processes("ray::ClientHostImpl.run")[:1]:
                process.suspend()
                stopped.append(process)
        free.append(ray.available_resources())  # type: ignore[no-untyped-call]  # ray leaves it untyped

    thread = threading.Thread(target=stop_one, daemon=True)
    listener = Doing(round_2=thread.start)
    digest = on_ray(config, tmp_path / "ray", listener, hosts=2)
    thread.join()
    assert stopped, "no host was caught at work"
    assert not any(free[0].get(name) for name in ("CPU", "GPU", "disk")), "hosts reserve what they were told to"
    assert listener.told("a client host is slow") >= 1
    assert listener.told("is replaced") >= 1
    assert digest == digest_of(run_here(config, tmp_path / "here"))
    wait_for(lambda: not stopped[0].is_running(), "the host that stood still is gone")


def test_a_run_without_room_says_what_it_waits_for_and_can_be_stopped(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster
    monkeypatch.setattr(pools, "ROOM_SECONDS", 0.2)
    other = placement_group([{"CPU": 1}])
    assert other.wait(DEADLINE)
    config = small(hosts={"workers": 2})
    listener = Quiet()
    pool = RayPool(config, Parts.load(config).data, hosts=2, note=listener.note, stopping=lambda: bool(listener.notes))
    assert run_here(config, tmp_path, pool=pool, listener=listener).summary is None
    pool.close()
    remove_placement_group(other)
    assert "waiting for room on the cluster: 2 hosts of 1 CPU wanted, 0 there, free now: 1 of 2 CPU" in listener.notes
    assert listener.notes[-1].startswith("stopped while it waited for room")


def test_what_a_cluster_never_has_room_for_is_refused(cluster: Cluster) -> None:
    assert cluster
    check_room("here", 2, {"CPU": 1.0, "GPU": 0.5}, "strict_pack")
    for hosts, reserved, placement, complaint in [
        (1, {"CPU": 3.0}, "pack", "hosts.cpus: each host is to reserve 3 CPUs, but the largest machine of here has 2"),
        (1, {"CPU": 1.0, "tape": 1.0}, "pack", "hosts.resources.tape: each host is to reserve 1 tape"),
        (3, {"CPU": 0.1, "GPU": 0.5}, "pack", "3 hosts of 0.1 CPUs and 0.5 GPUs are to be started, but here has room"),
        (2, {"CPU": 1.0}, "strict_spread", "placed as strict_spread are to be started, but here has room for 1"),
    ]:
        with pytest.raises(ConfigError) as caught:
            check_room("here", hosts, reserved, placement)
        assert complaint in str(caught.value)


def begun(config: Experiment, folder: Path) -> RunInfo:
    """A run's folder, as the command line makes it."""
    folder.mkdir()
    RunFolder(folder).plots.mkdir()
    RunFolder(folder).write_config(configs.dump(config))
    return RunInfo(folder.name, folder, configs.flat(config))


def test_two_runs_share_a_cluster_and_never_use_more_than_it_has(tmp_path: Path, cluster: Cluster) -> None:
    assert cluster
    both = [small(policy=FIXED, rounds=4, seed=seed, hosts={"workers": "all"}) for seed in (1, 2)]
    infos = [begun(config, tmp_path / f"run-{config.seed}") for config in both]
    runs = [
        spawn_coordinator(config, info, NullTracker, hosts=8, detached=True)
        for config, info in zip(both, infos, strict=True)
    ]
    ends = [run.run.remote() for run in runs]
    most = 0
    while len(ray.wait(ends, num_returns=2, timeout=0.1)[0]) < 2:
        most = max(most, len(processes("ray::ClientHostImpl")))
    digests = [digest_of(ended) for ended in ray.get(ends)]
    for run in runs:
        ray.kill(cast("ActorHandle[Any]", run))
    assert most == 2
    assert digests == [digest_of(run_here(config, tmp_path / f"here-{config.seed}")) for config in both]


@pytest.mark.long
def test_a_coordinator_that_is_killed_is_replaced_and_every_round_is_told_once(tmp_path: Path, nodes: Cluster) -> None:
    config = small(policy=FIXED, rounds=6, hosts={"workers": 1})

    def kill() -> None:
        for process in processes("ray::CoordinatorImpl"):
            os.kill(process.pid, signal.SIGKILL)

    listener = Doing(round_3=kill, round_5=kill)
    info = begun(config, tmp_path / "run")
    ended = run_on_ray(config, info, NullTracker, listener, lambda: False, nodes.address, lambda: None)
    assert digest_of(ended) == digest_of(run_here(config, tmp_path / "here"))
    assert [record.round for record in listener.records] == list(range(1, 7))
    assert listener.told("a new one goes on from the last checkpoint") >= 1
    wait_for(lambda: not processes("ray::ClientHostImpl"), "all hosts have ended")


@pytest.mark.long
def test_a_full_object_store_on_a_full_disk_ends_the_run_with_a_clear_line(tmp_path: Path) -> None:
    ray.init(
        address="local",
        num_cpus=1,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _system_config={"local_fs_capacity_threshold": 0.0, "oom_grace_period_s": 0},
    )
    held: list[Any] = []

    def fill() -> None:
        with suppress(*STORE_FULL):
            while True:
                held.append(ray.put(np.ones(2**20, dtype=np.uint8)))

    config = small(policy=FIXED, model={"name": "mlp", "hidden": [4000]}, hosts={"workers": 1})
    try:
        with pytest.raises(StoreFullError, match="object store of a machine of the cluster is full"):
            on_ray(config, tmp_path, Doing(round_2=fill), hosts=1)
    finally:
        ray.shutdown()
