"""What the Ray side decides without Ray: who gets which client, and which addresses are of use."""

import socket
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError

from scenarios import Quiet, run_here, small
from tightwire.federation.tasks import ClientTask
from tightwire_actors import roster
from tightwire_actors.address import answering
from tightwire_actors.failures import HostStartError
from tightwire_actors.once import Once
from tightwire_actors.roster import FAILED_STARTS, Roster
from tightwire_actors.session import hosts_needed, hosts_wanted
from tightwire_actors.shares import SLOW_SECONDS, Pace, Share, deal


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


def test_a_range_needs_its_least_and_wants_its_most_and_never_more_than_the_cohort() -> None:
    for workers, needed, wanted in [
        (3, 3, 3),
        (99, 10, 10),
        ("all", 1, 10),
        ({"min": 2}, 2, 10),
        ({"min": 2, "max": 4}, 2, 4),
        ({"min": 20, "max": 40}, 10, 10),
    ]:
        config = small(hosts={"workers": workers})
        assert (hosts_needed(config), hosts_wanted(config)) == (needed, wanted)


def test_a_share_is_slow_after_three_times_what_its_samples_took_others_and_some_seconds() -> None:
    pace = Pace()
    assert pace.patience(Share([], 10)) == float("inf"), "nothing to compare with"
    for seconds in (10.0, 20.0, 1000.0):
        pace.ended(Share([], 100), seconds)
    assert pace.patience(Share([], 100)) == pytest.approx(60.0)
    assert pace.patience(Share([], 50)) == pytest.approx(30.0)
    assert pace.patience(Share([], 1)) == SLOW_SECONDS


def test_who_watches_coordinators_that_die_hears_of_each_round_once(tmp_path: Path) -> None:
    source = Quiet()
    run_here(small(), tmp_path, listener=source)
    one, two, three, four = source.records
    listener = Quiet()
    once = Once(listener)
    once.restored([one])
    once.round(two)
    once.restored([one, two, three])
    for record in (two, three, four):
        once.round(record)
    assert listener.earlier == [one]
    assert listener.records == [two, three, four]
    assert once.round_told == 4


class Place:
    """A placement group that Ray grants at once."""

    def __init__(self, bundles: list[dict[str, float]], strategy: str) -> None:  # noqa: ARG002 - Ray's signature
        self.bundle_count = len(bundles)

    def ready(self) -> object:
        return object()


class Born:
    """A host that has started, or will never have."""

    def __init__(self, *_: object, room: Place, slot: int) -> None:
        self.node = self
        self.place = room, slot

    def remote(self) -> "Born":
        return self


@pytest.fixture
def one_good_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first place that is asked for is good, and whatever starts in any other dies."""
    good: list[tuple[Place, int]] = []

    def node(host: Born) -> str:
        good.append(host.place)
        if host.place != good[0]:
            raise ActorDiedError
        return "machine"

    monkeypatch.setattr(roster, "placement_group", Place)
    monkeypatch.setattr(roster, "spawn_client_host", Born)
    monkeypatch.setattr(ray, "get", node)
    monkeypatch.setattr(ray, "kill", Mock())


def settle(who: Roster) -> None:
    while who.events:
        assert who.hear(who.events[0])


@pytest.mark.usefixtures("one_good_place")
def test_a_place_where_every_host_dies_is_given_up_unless_the_run_cannot_do_without() -> None:
    notes: list[str] = []
    who = Roster(small(), cast("Any", None), least=1, most=3, note=notes.append)
    settle(who)
    assert len(who.hosts) == 1
    assert len(notes) == 2
    assert all(note.startswith(f"{FAILED_STARTS} client hosts in a row died while they started") for note in notes)
    assert all(note.endswith("going on without it") for note in notes)
    needy = Roster(small(), cast("Any", None), least=2, most=2, note=notes.append)
    with pytest.raises(HostStartError, match="in a row died while they started in one place"):
        settle(needy)


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "head:port"])
def test_an_address_that_is_not_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|of no use here"):
        answering(address)


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            answering(f"127.0.0.1:{taken.getsockname()[1]}")
