"""Networks of namespaces, which other tests rely on: apart from each other, breakable, and gone afterwards."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from netns import PREFIX, Host, Network, namespaces, permitted

KNOCK = "import socket, sys; s = socket.socket(); s.settimeout(0.5); print(s.connect_ex((sys.argv[1], 9)))"
REFUSED = b"111"
"""ECONNREFUSED: somebody was there to say that nothing listens."""


@pytest.fixture(autouse=True)
def _permitted() -> None:
    refused = permitted()
    if refused is not None:
        pytest.skip(refused)


def reaches(source: Host, target: Host) -> bool:
    return source.run([sys.executable, "-c", KNOCK, target.address], timeout=60).stdout.strip() == REFUSED


def test_hosts_reach_each_other_but_for_a_cut_cable_and_other_networks() -> None:
    with Network(2) as one, Network(1) as other:
        near, far = one.hosts
        assert reaches(near, far)
        far.cut()
        assert not reaches(near, far)
        assert reaches(far, far), "a host without a cable still has its address"
        far.mend()
        assert reaches(near, far)
        assert not reaches(other.hosts[0], far), "other networks are apart"


def test_nothing_is_left_of_a_network_whose_test_failed() -> None:
    network = Network(1)
    with suppress(ZeroDivisionError), network:
        process = network.hosts[0].popen(["sleep", "1000"])
        raise ZeroDivisionError
    assert process.wait(30) != 0
    own = f"{PREFIX}-{os.getpid()}-"
    assert not [name for name in namespaces() if name.startswith(own)]


def test_what_a_killed_process_left_is_removed_by_the_next_network() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    left = f"{PREFIX}-{gone.pid}-0-host1"
    subprocess.run(["ip", "netns", "add", left], check=True)
    with Network(1):
        assert left not in namespaces()


def test_without_the_tools_the_reason_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "'ip' of iproute2" in str(permitted())
