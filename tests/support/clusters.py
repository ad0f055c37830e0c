"""A Ray cluster of several nodes on this machine, each with processes of its own that a test can find and kill."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

DEADLINE = 400.0
"""Wall seconds that anything may take on a loaded machine."""

STARTED = "Ray runtime started"
"""What a node says once it has joined."""

SUPPORT = str(Path(__file__).parent)


def wait_for(happened: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Look until it has happened.

    Raises:
        AssertionError: It did not happen in time.
    """
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"in {seconds:.0f} s: not {what}"
        time.sleep(0.02)


def environment() -> dict[str, str]:
    """That of a user who has no cluster and no tracking server, and can import from this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    path = os.pathsep.join(filter(None, [SUPPORT, kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled"}  # whatever token there is in ~/.ray


def kill(process: psutil.Process) -> bool:
    """SIGKILL; whether it was still there."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
        return True
    return False


def descendants(pid: int) -> list[psutil.Process]:
    """Children of children too; none if the process is gone."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


class LocalCluster:
    """A head and further nodes; `folder` takes Ray's files and needs a short path, for Ray's sockets lie there."""

    def __init__(self, folder: Path, *, cpus: int = 2) -> None:
        self.folder = folder
        self._cpus = cpus
        self._port = _free_port()
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._starts = 0
        self._known: set[psutil.Process] = set()

    @property
    def address(self) -> str:
        """Of the head, host:port."""
        return f"127.0.0.1:{self._port}"

    def start(self, nodes: int = 1) -> None:
        """Start the head, and other nodes beside it."""
        if _answers(self._port):
            self._port = _free_port()
        words = ["--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        self._ray_start(*words)
        for _ in range(nodes - 1):
            self.add_node()

    def add_node(self) -> None:
        """Start a node that joins."""
        self._ray_start(f"--address={self.address}")

    def _ray_start(self, *words: str) -> None:
        """Start a node, and wait until the cluster knows it, without which nothing can be placed there."""
        ray = str(Path(sys.executable).with_name("ray"))
        usual = ["--block", f"--num-cpus={self._cpus}", "--min-worker-port=0", "--max-worker-port=0"]
        usual += ["--disable-usage-stats", f"--object-store-memory={100 * 2**20}"]
        usual += ["--no-monitor", "--include-log-monitor=false"]  # nothing here grows the cluster or reads its logs
        self._starts += 1
        said = self.folder / f"said-{self._starts}"
        with said.open("wb") as out:
            node = subprocess.Popen([ray, "start", *words, *usual], env=environment(), stdout=out, stderr=out)
        self._nodes.append(node)
        wait_for(lambda: node.poll() is not None or STARTED in said.read_text(errors="replace"), "a node that started")
        assert node.poll() is None, said.read_text(errors="replace")[-1000:]

    def processes(self, *beginnings: str, node: int | None = None) -> list[psutil.Process]:
        """Those whose title begins with one of `beginnings`, of one node or of all; all processes if none is given."""
        nodes = self._nodes if node is None else self._nodes[node : node + 1]
        found = [process for popen in nodes for process in descendants(popen.pid)]
        self._known.update(found)
        return [process for process in found if not beginnings or title(process).startswith(beginnings)]

    def raylets(self, node: int) -> list[psutil.Process]:
        """The raylet of one node, once it is there."""
        return [process for process in self.processes(node=node) if title(process).split(" ")[0].endswith("/raylet")]

    @property
    def nodes(self) -> int:
        """Nodes started, dead ones included."""
        return len(self._nodes)

    def kill_node(self, node: int) -> None:
        """Kill -9 of a machine: all processes of a node."""
        family = self.processes(node=node)
        self._nodes[node].kill()
        for process in family:
            kill(process)
        self._nodes[node].wait()
        psutil.wait_procs(family, timeout=DEADLINE)
        del self._nodes[node]

    def stop(self) -> None:
        """Kill all that is left."""
        self.processes()
        for node in self._nodes:
            node.send_signal(signal.SIGKILL)
            node.wait()
        for process in self._known:
            kill(process)
        psutil.wait_procs(self._known, timeout=DEADLINE)
        self._nodes.clear()
        self._known.clear()


def title(process: psutil.Process) -> str:
    """Its command line, which Ray's workers change to what they are doing; "" once it is gone."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    """One below those that the system hands out by itself."""
    ports = random.Random(os.getpid()).sample(range(20000, 30000), 100)  # noqa: S311 - any will do
    return next(port for port in ports if not _answers(port))
