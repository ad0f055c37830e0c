"""Runs on hosts with addresses of their own, which real links join, cut off and slow down."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from netns import Host, Network, permitted, wait_for
from scenarios import SMALL, digest_of, run_here, small

pytestmark = pytest.mark.timeout(1200)
FIXED = {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}
LIGHT = {"policy": FIXED, "rounds": 2}
LABORIOUS = {"policy": FIXED, "training": {"epochs": 20, "batch": 2, "lr": 0.02}, "checkpoints": {"every": 1}}
HEAVY = {**LABORIOUS, "model": {"name": "mlp", "hidden": [600]}, "training": {"epochs": 2, "batch": 4, "lr": 0.02}}
"""What its clients remember is too large for the coordinator to keep, and lies in the memory of the hosts."""
PORT = 6379
DEADLINE = 400.0
"""Wall seconds that anything may take on a busy machine."""
RAY = str(Path(sys.executable).with_name("ray"))
STARTED = "Ray runtime started"
STARTS = 4
NODE = ["--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
NODE += ["--no-monitor", "--include-log-monitor=false"]  # nothing here grows the cluster or reads its logs
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "12",
}
"""A host is given up after 12 times 1.5 s without an answer: later than TCP needs after ten seconds of silence, since
it tries again 12.6 s after the last answer (0.2 + 0.4 + ... + 6.4), and sooner than the 65 s of Ray's defaults."""


def environment(token: Path | None = None) -> dict[str, str]:
    """This process's, without what it knows of other clusters."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return plain if token is None else {**plain, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


class Machines:
    """A head and two workers of one CPU each, which ask for a token."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.head, *self.workers = network.hosts
        self.address = f"{self.head.address}:{PORT}"
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self._nodes: dict[Host, tuple[subprocess.Popen[bytes], Path]] = {}
        self._runs: list[subprocess.Popen[bytes]] = []
        self._starts = 0

    def close(self) -> None:
        """Once everything on the network has been killed: leave no child and no pipe behind."""
        for process in (*self._runs, *(node for node, _ in self._nodes.values())):
            process.communicate(timeout=DEADLINE)

    def complete(self) -> None:
        """Have every machine in the cluster, those too that an earlier test took away."""
        self._gather([self.head], "--head", f"--port={PORT}", "--include-dashboard=false", more=HEALTH)
        self._gather(self.workers, f"--address={self.address}")

    def take_away(self, host: Host) -> None:
        """End what a harmed machine still runs, so that `complete` starts it afresh."""
        host.kill()
        host.mend()
        node, _ = self._nodes.pop(host)
        node.wait(DEADLINE)

    def run(self, *words: str, token: bool = True) -> "subprocess.Popen[bytes]":
        """Start `tightwire run` on the head."""
        run = self.head.popen(
            [sys.executable, "-m", "tightwire_pipelines", "run", "--address", self.address, "--json", *words],
            env=environment(self.token if token else None),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._runs.append(run)
        return run

    def experiment(self, name: str, **changes: Any) -> str:
        """An experiment file in the working folder."""
        (self.folder / f"{name}.yaml").write_text(json.dumps({**SMALL, **changes, "name": name}))
        return f"{name}.yaml"

    def _gather(self, hosts: list[Host], *words: str, more: Mapping[str, str] | None = None) -> None:
        """Start Ray where it is missing; it gives itself 30 s, which a busy machine may need longer than."""
        for _ in range(STARTS):
            for host in hosts:
                if host not in self._nodes:
                    self._start(host, *words, more=more or {})
            said = {host: self._said(host) for host in hosts}
            for host in hosts:
                if STARTED not in said[host]:
                    self.take_away(host)
            if all(host in self._nodes for host in hosts):
                return
        pytest.fail(f"Ray did not start: {said}")

    def _start(self, host: Host, *words: str, more: Mapping[str, str]) -> None:
        self._starts += 1
        said = self.folder / f"said-{self._starts}"
        place = [f"--node-ip-address={host.address}", f"--temp-dir={self.folder / str(self._starts)}"]
        with said.open("wb") as out:
            node = host.popen(
                [RAY, "start", *NODE, *place, *words],
                env={**environment(self.token), **more},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._nodes[host] = node, said

    def _said(self, host: Host) -> str:
        """What Ray has printed once it has started or failed to."""
        node, said = self._nodes[host]
        wait_for(
            lambda: STARTED in said.read_text() or node.poll() is not None, "Ray neither started nor failed", DEADLINE
        )
        return said.read_text()


@pytest.fixture(scope="module")
def cluster_of_machines() -> Iterator[Machines]:
    refused = permitted()
    if refused is not None:
        pytest.skip(refused)
    folder = Path(tempfile.mkdtemp(prefix="tw"))  # pytest's own are too long for the names of sockets
    with Network(3) as network:
        made = Machines(network, folder)
        yield made
    made.close()
    shutil.rmtree(folder)


@pytest.fixture
def machines(cluster_of_machines: Machines) -> Machines:
    """All three of them, well."""
    cluster_of_machines.complete()
    return cluster_of_machines


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The digest of an experiment in one process."""
    known: dict[str, str] = {}

    def digest(**changes: Any) -> str:
        key = json.dumps(changes)
        if key not in known:
            known[key] = digest_of(run_here(small(**changes), tmp_path_factory.mktemp("here")))
        return known[key]

    return digest


def digest(run: "subprocess.Popen[bytes]") -> str:
    """Of a run that ends well."""
    stdout, stderr = run.communicate(timeout=DEADLINE)
    assert run.returncode == 0, stderr.decode()
    return str(json.loads(stdout)["digest"])


def client_hosts(machine: Host) -> list[psutil.Process]:
    """The client hosts of the project on one machine."""
    found = []
    for pid in machine.pids():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if title(process).startswith("ray::ClientHostImpl"):
                found.append(process)
    return found


def raylets(machine: Host) -> list[int]:
    found = []
    for pid in machine.pids():
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).name() == "raylet":
                found.append(pid)
    return found


def kill_raylet(machine: Host) -> None:
    (raylet,) = raylets(machine)
    os.kill(raylet, signal.SIGKILL)


def title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def held_at_work(machines: Machines, run: "subprocess.Popen[bytes]") -> tuple[Host, psutil.Process]:
    """A worker that carries out a share right now, and its client host, which SIGSTOP keeps from ending it."""
    end = time.monotonic() + DEADLINE
    while True:
        hosts = [(worker, process) for worker in machines.workers for process in client_hosts(worker)]
        soon = time.monotonic() + 1
        while hosts and time.monotonic() < soon:
            for worker, process in hosts:
                with suppress(psutil.NoSuchProcess):
                    if title(process).startswith("ray::ClientHostImpl.run"):
                        process.suspend()
                        if title(process).startswith("ray::ClientHostImpl.run"):
                            return worker, process
                        process.resume()
            time.sleep(0.002)
        assert run.poll() is None, f"no share was caught: {run.communicate()}"
        assert time.monotonic() < end, "no worker carried out a share"
        time.sleep(0.05)


def test_three_machines_and_a_slow_link_give_the_in_process_digest(
    machines: Machines, expected: Callable[..., str]
) -> None:
    slow = machines.workers[0]
    slow.shape(up=4e6, down=4e6)
    try:
        before = slow.sent()
        seen: set[Host] = set()
        run = machines.run(machines.experiment("light", **LIGHT), "--workers", "3")
        while run.poll() is None:
            seen |= {host for host in (machines.head, *machines.workers) if host not in seen and client_hosts(host)}
            time.sleep(0.2)
        assert digest(run) == expected(**LIGHT)
        assert len(seen) == 3, "some machine had no client host"
        assert slow.sent() > before + 10_000
    finally:
        slow.shape()


def test_a_run_that_does_not_know_the_token_is_refused_in_one_line(machines: Machines) -> None:
    run = machines.run(machines.experiment("stranger", **LIGHT), token=False)
    _, stderr = run.communicate(timeout=DEADLINE)
    assert run.returncode == 2, stderr.decode()
    assert b"RAY_AUTH_TOKEN_PATH" in stderr
    assert b"Traceback" not in stderr


@pytest.mark.long
def test_a_cable_that_is_out_for_ten_seconds_changes_nothing(machines: Machines, expected: Callable[..., str]) -> None:
    run = machines.run(machines.experiment("flicker", **LABORIOUS), "--workers", "2")
    worker, process = held_at_work(machines, run)
    raylet = raylets(worker)
    worker.cut()
    process.resume()
    time.sleep(10)  # the property, and no wait for something
    worker.mend()
    assert digest(run) == expected(**LABORIOUS)
    assert raylets(worker) == raylet, "Ray gave the machine up"


@pytest.mark.long
@pytest.mark.parametrize(
    ("harm", "changes"),
    [
        pytest.param(kill_raylet, LABORIOUS, id="its raylet is killed"),
        pytest.param(Host.cut, HEAVY, id="its cable is cut, and it kept residuals"),
    ],
)
def test_a_run_outlives_a_machine_or_says_how_to_go_on(
    machines: Machines, expected: Callable[..., str], harm: Callable[[Host], None], changes: dict[str, Any]
) -> None:
    name = harm.__name__
    run = machines.run(machines.experiment(name, **changes), "--workers", "2")
    worker, process = held_at_work(machines, run)
    harm(worker)
    with suppress(psutil.NoSuchProcess):
        process.resume()
    stdout, stderr = run.communicate(timeout=DEADLINE)
    machines.take_away(worker)
    if run.returncode == 0:
        found = str(json.loads(stdout)["digest"])
    else:
        assert b"Traceback" not in stderr
        assert b"continue with: tightwire run --resume" in stderr.splitlines()[-1]
        found = digest(machines.run("--resume", name, "--workers", "2"))
    assert found == expected(**changes)


@pytest.mark.skipif(permitted() is None, reason="the tests above have hosts with addresses of their own")
def test_several_raylets_on_one_address_give_the_in_process_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Callable[..., str]
) -> None:
    """Needs no permission: this much can be tested everywhere."""
    folder = Path(tempfile.mkdtemp(prefix="tw"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (tmp_path / "light.yaml").write_text(json.dumps({**SMALL, **LIGHT}))
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(2):
            nodes.add_node(**node)
        words = ["run", "light.yaml", "--address", str(nodes.address), "--workers", "3", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "tightwire_pipelines", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        nodes.shutdown()  # type: ignore[no-untyped-call]  # ray's
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["digest"] == expected(**LIGHT)
    shutil.rmtree(folder)
