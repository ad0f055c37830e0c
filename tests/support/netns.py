"""Hosts with addresses of their own on one machine: Linux network namespaces, joined by a switch in one more.

Each host is a namespace whose `eth0` is one end of a veth pair; the other end is a port of a bridge. All of it lies in
namespaces made for it, so nothing of the machine's own network is touched or seen, and any number of such networks can
be there at once. Processes, files and shared memory stay the machine's; only the network is apart.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeAlias

PREFIX = "tightwire"
"""Namespaces are called PREFIX-PID-N-NAME, by the process that made them."""

LARGEST_PACKET = 1514
"""Bytes on a veth link that carries IP packets of up to 1500 bytes: the Ethernet header is 14."""

GIVE_UP = 30.0
"""Seconds that processes have to be gone after SIGKILL."""

Sink: TypeAlias = "int | IO[bytes] | None"

_networks = itertools.count()


def permitted() -> str | None:
    """Why such networks cannot be made here, in one line; None if they can."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"network namespaces need the command {tool!r} of iproute2, which is not installed"
    try:
        with Network(1) as network:
            network.hosts[0].shape(up=1e6)
    except OSError as error:
        return f"network namespaces are not permitted here: {error}"
    return None


class Host:
    """One host of a `Network`. Made by it alone."""

    def __init__(self, namespace: str, address: str, switch: str, port: str) -> None:
        self.namespace = namespace
        self.address = address
        """IPv4 address that the other hosts reach it at."""
        self._switch = switch
        self._port = port

    def popen(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: Sink = None,
        stderr: Sink = None,
        stdin: Sink = subprocess.DEVNULL,
    ) -> "subprocess.Popen[bytes]":
        """Start a program on this host; arguments are `subprocess.Popen`'s. The process id is the program's own."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *words],
            env=env,
            cwd=cwd,
            stdout=stdout,
            stderr=stderr,
            stdin=stdin,
        )

    def run(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float,
    ) -> "subprocess.CompletedProcess[bytes]":
        """Carry out a program on this host and collect what it prints.

        Raises:
            subprocess.TimeoutExpired: It took longer than `timeout` seconds, and was killed.
        """
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *words],
            env=env,
            cwd=cwd,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )

    def pids(self) -> list[int]:
        """Process ids of what runs on this host."""
        return [int(pid) for pid in _do("ip", "netns", "pids", self.namespace).split()]

    def cut(self) -> None:
        """Pull the cable: its link has no carrier, and whatever is sent is lost. The host itself goes on."""
        _do("ip", "-n", self._switch, "link", "set", self._port, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _do("ip", "-n", self._switch, "link", "set", self._port, "up")

    def shape(
        self, *, up: float | None = None, down: float | None = None, burst: int = 4 * LARGEST_PACKET, queue: int = 2**22
    ) -> None:
        """Limit the link's rates by token buckets (`tc tbf`), in place of what limits there were.

        Args:
            up: Bit/s from this host, of whole Ethernet frames, headers included; None for no limit.
            down: Bit/s to this host, likewise.
            burst: Bytes that pass at once after a pause; at least `LARGEST_PACKET`.
            queue: Bytes that may wait, beyond which packets are dropped.
        """
        for namespace, device, rate in ((self.namespace, "eth0", up), (self._switch, self._port, down)):
            if rate is None:
                with suppress(OSError):  # there was no limit
                    _do("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
            else:
                bucket = ["tbf", "rate", f"{round(rate)}bit", "burst", f"{burst}b", "limit", f"{queue}b"]
                _do("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *bucket)

    def sent(self) -> int:
        """Bytes that have left this host through the limit on its link upwards, headers included."""
        shown = json.loads(_do("tc", "-s", "-j", "-n", self.namespace, "qdisc", "show", "dev", "eth0"))
        return int(shown[0]["bytes"])

    def kill(self) -> None:
        """Kill whatever runs on this host, and wait until it is gone.

        Raises:
            TimeoutError: Something is still there.
        """

        def gone() -> bool:
            pids = self.pids()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        wait_for(gone, f"{self.namespace} did not empty", GIVE_UP)


class Network:
    """So many hosts on one switch, as a context: entered, they are there; left, they and their processes are gone."""

    def __init__(self, hosts: int) -> None:
        if not 1 <= hosts <= 200:
            raise ValueError(f"a network of {hosts} hosts; it must have 1 to 200")
        name = f"{PREFIX}-{os.getpid()}-{next(_networks)}"
        self._switch = f"{name}-switch"
        self.hosts = [Host(f"{name}-host{n}", f"10.77.0.{n}", self._switch, f"port{n}") for n in range(1, hosts + 1)]

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            OSError: That is not permitted, or failed; nothing is left of it.
        """
        _sweep()
        try:
            self._make()
        except BaseException:
            self._unmake()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unmake()

    def _make(self) -> None:
        _do("ip", "netns", "add", self._switch)
        _do("ip", "-n", self._switch, "link", "add", "bridge0", "type", "bridge")
        _do("ip", "-n", self._switch, "link", "set", "bridge0", "up")
        for host in self.hosts:
            inside, outside = ["ip", "-n", host.namespace], ["ip", "-n", self._switch]
            port = host._port
            _do("ip", "netns", "add", host.namespace)
            _do(*outside, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _do(*outside, "link", "set", port, "master", "bridge0", "up")
            _do(*inside, "address", "add", f"{host.address}/24", "dev", "eth0")
            _do(*inside, "link", "set", "lo", "up")
            _do(*inside, "link", "set", "eth0", "up")

    def _unmake(self) -> None:
        there = namespaces()
        for host in self.hosts:
            if host.namespace in there:
                host.kill()
                _do("ip", "netns", "del", host.namespace)
        if self._switch in there:
            _do("ip", "netns", "del", self._switch)


def namespaces() -> list[str]:
    """Names of the network namespaces that there are."""
    return [line.split()[0] for line in _do("ip", "netns", "list").splitlines() if line.strip()]


def wait_for(happened: Callable[[], object], otherwise: str, seconds: float) -> None:
    """Until something has happened.

    Raises:
        TimeoutError: It has not, within so many seconds; the message is `otherwise`.
    """
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{otherwise} within {seconds:g} s")
        time.sleep(0.05)


def _sweep() -> None:
    """Remove what processes left that were killed before they could."""
    for name in namespaces():
        prefix, _, rest = name.partition("-")
        maker = rest.partition("-")[0]
        if prefix == PREFIX and maker.isdigit() and not Path("/proc", maker).exists():
            with suppress(OSError):  # another process sweeps too
                Host(name, "", "", "").kill()
                _do("ip", "netns", "del", name)


def _do(*words: str) -> str:
    """Carry out a command and return what it prints.

    Raises:
        OSError: It failed, with what it said.
    """
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise OSError(f"`{' '.join(words)}` failed: {said or f'exit code {done.returncode}'}")
    return done.stdout
