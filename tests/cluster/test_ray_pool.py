"""The Ray pool against the in-process one, and against hosts that die."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.exceptions import ObjectReconstructionFailedError, RayTaskError

from scenarios import Quiet, digest_of, run_here, small
from tightwire.config import Experiment
from tightwire.simulation import Parts
from tightwire_actors import pool as pools
from tightwire_actors.failures import HostsLostError, HostStartError, MachineLostError, raised
from tightwire_actors.pool import RayPool

pytestmark = pytest.mark.timeout(900)
FIXED = {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}
JOINT = {"name": "fixed", "codec": "joint(6) | rans"}


def on_ray(config: Experiment, folder: Path, *, hosts: int, listener: Quiet | None = None) -> str:
    listener = listener or Quiet()
    pool = RayPool(config, Parts.load(config).data, hosts=hosts, note=listener.note)
    try:
        return digest_of(run_here(config, folder, pool=pool, listener=listener))
    finally:
        pool.close()


def hosts_at_work() -> list[int]:
    """Process ids of this cluster's client hosts that are carrying out a share right now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith(("ray::ClientHostImpl.run", "ray::ClientHostImpl.offers")):
                found.append(process.pid)
    return found


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("hosts", "policy"),
    [(1, FIXED), (3, {"name": "budget"})],
    ids=["1-fixed", "3-budget"],
)
def test_any_number_of_hosts_gives_the_in_process_digest(tmp_path: Path, hosts: int, policy: dict[str, str]) -> None:
    config = small(policy=policy)
    assert on_ray(config, tmp_path / "ray", hosts=hosts) == digest_of(run_here(config, tmp_path / "here"))


class Killer(threading.Thread):
    """Kills hosts at work with SIGKILL, `kills` times."""

    def __init__(self, kills: int) -> None:
        super().__init__(daemon=True)
        self.left = kills
        self.over = threading.Event()

    def run(self) -> None:
        while self.left and not self.over.is_set():
            for pid in hosts_at_work()[:1]:
                os.kill(pid, signal.SIGKILL)
                self.left -= 1
                time.sleep(1.0)
            time.sleep(0.002)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"policy": JOINT, "wire": {"feedback": "ef21"}}, id="joint ranges"),
        pytest.param(
            {"policy": FIXED, "wire": {"feedback": "dgc"}, "hosts": {"memory_mb": 0.006}},
            id="spilled by the coordinator",
            marks=pytest.mark.long,
        ),
        pytest.param({"policy": FIXED, "model": {"name": "mlp", "hidden": [600]}}, id="memories as objects"),
    ],
)
def test_memories_and_agreements_give_the_in_process_digest(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = small(**changes)
    assert on_ray(config, tmp_path / "ray", hosts=2) == digest_of(run_here(config, tmp_path / "here"))


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("policy", [FIXED, JOINT], ids=["fixed", "joint"])
def test_a_host_killed_at_work_is_replaced_and_its_share_redone_with_the_same_bits(
    tmp_path: Path, policy: dict[str, str]
) -> None:
    config = small(policy=policy, rounds=6, training={"epochs": 15, "batch": 2, "lr": 0.02})
    listener = Quiet()
    killer = Killer(kills=2)
    killer.start()
    digest = on_ray(config, tmp_path / "ray", hosts=2, listener=listener)
    killer.over.set()
    killer.join()
    assert killer.left == 0, "no host was caught at work"
    assert sum("a client host died" in note for note in listener.notes) == 2
    assert {record.hosts for record in listener.records} <= {1, 2}, "a round waits for no host that is starting"
    assert digest == digest_of(run_here(config, tmp_path / "here"))


@pytest.mark.usefixtures("cluster")
def test_a_share_that_kills_every_host_ends_the_run_with_a_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "ATTEMPTS", 2)
    config = small(model={"name": "custom", "function": "lethal:model"}, rounds=2)
    with pytest.raises(HostsLostError, match="2 client hosts died over the same"):
        on_ray(config, tmp_path, hosts=1)


@pytest.mark.usefixtures("cluster")
def test_a_host_that_cannot_be_set_up_ends_the_run_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(model={"name": "custom", "function": "here_only:model"}, rounds=2)
    (tmp_path / "here_only.py").write_text("from lethal import model\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HostStartError, match=r"cannot be set up.*here_only"):
        on_ray(config, tmp_path / "run", hosts=1)


def test_a_share_whose_residual_is_gone_says_that_a_machine_died() -> None:
    lost = ObjectReconstructionFailedError("00", None, "")
    inner = RayTaskError("run", "", lost, "host", 1, "192.0.2.1")  # type: ignore[no-untyped-call]  # ray's
    outer = RayTaskError("run", "", inner, "host", 1, "192.0.2.1")  # type: ignore[no-untyped-call]  # ray's
    assert isinstance(raised(outer), MachineLostError)
