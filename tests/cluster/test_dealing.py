"""What the Ray side decides without Ray: who gets which client, and which addresses are of use."""

import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios import small
from tightwire.federation.tasks import ClientTask
from tightwire_actors.session import _answering, hosts_wanted
from tightwire_actors.shares import deal


def tasks(count: int) -> list[ClientTask]:
    return [ClientTask(client, 0, drops=None, battery=float("inf"), policy=None) for client in range(count)]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=40),
    hosts=st.integers(1, 12),
    capacity=st.none() | st.integers(1, 10),
)
def test_every_client_is_dealt_once_and_no_share_is_over_full(
    sizes: list[int], hosts: int, capacity: int | None
) -> None:
    shares = deal(tasks(len(sizes)), np.array(sizes, dtype=np.int64), hosts, capacity)
    assert sorted(task.client for share in shares for task in share) == list(range(len(sizes)))
    assert len(shares) == hosts
    if capacity is not None:
        assert max(map(len, shares)) <= max(capacity, -(-len(sizes) // hosts))


def test_a_full_host_gets_no_more_even_if_it_has_the_fewest_samples() -> None:
    sizes = np.array([100, 1, 1, 1, 1], dtype=np.int64)
    assert [len(share) for share in deal(tasks(5), sizes, 2)] == [1, 4]
    assert [len(share) for share in deal(tasks(5), sizes, 2, 3)] == [2, 3]


def test_hosts_wanted_follow_workers_then_clients_per_host_and_never_exceed_the_cohort() -> None:
    assert hosts_wanted(small(hosts={"workers": 3, "clients_per_host": 1})) == 3
    assert hosts_wanted(small(hosts={"workers": 99})) == 10
    assert hosts_wanted(small(hosts={"clients_per_host": 4})) == 3
    assert hosts_wanted(small(hosts={"clients_per_host": 1})) == 10


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "head:port"])
def test_an_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|of no use here"):
        _answering(address)


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            _answering(f"127.0.0.1:{taken.getsockname()[1]}")
