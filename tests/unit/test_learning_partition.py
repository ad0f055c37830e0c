"""Divisions of samples among clients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tightwire.arrays import Ints
from tightwire.errors import ConfigError
from tightwire.learning.partition import AnyPartition, Dirichlet, Iid, Natural, PowerLaw, Shards, Sizes

LABELS: Ints = np.random.default_rng(0).integers(0, 10, 2000)
DIVIDERS = [
    Iid(), Dirichlet(alpha=0.01), Dirichlet(alpha=0.5), Dirichlet(alpha=100), Shards(), Shards(per_client=5),
    PowerLaw(), PowerLaw(exponent=3), PowerLaw(exponent=0),
]  # fmt: skip


def classes_held(partition: AnyPartition, clients: int) -> list[int]:
    division = partition.split(LABELS, clients, 0)
    return [len(np.unique(LABELS[division.indices(c)])) for c in range(clients)]


@pytest.mark.parametrize("partition", DIVIDERS, ids=repr)
@settings(deadline=None, max_examples=20)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=200),
    clients=st.integers(1, 300),
    seed=st.integers(0, 2**64),
)
def test_every_sample_belongs_to_exactly_one_client(
    partition: AnyPartition, labels: list[int], clients: int, seed: int
) -> None:
    division = partition.split(np.array(labels), clients, seed)
    assert division.sizes.shape == (clients,)
    assert division.sizes.dtype == np.int64
    assert division.sizes.min() >= 0
    assert sorted(division.order.tolist()) == list(range(len(labels)))
    assert sum(len(division.indices(c)) for c in range(clients)) == len(labels)


@pytest.mark.parametrize("partition", [*DIVIDERS, Sizes(sizes=(100, 0, 900))], ids=repr)
def test_division_depends_on_the_seed_and_on_nothing_else(partition: AnyPartition) -> None:
    one, again, other = (partition.split(LABELS, 3, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.order, again.order)
    assert np.array_equal(one.offsets, again.offsets)
    assert not np.array_equal(one.order, other.order)


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = Iid().split(LABELS, 33, 0).sizes
    assert sizes.max() - sizes.min() <= 1


def test_small_alpha_gives_clients_fewer_classes_than_large_alpha() -> None:
    few, many = (float(np.mean(classes_held(Dirichlet(alpha=a), 20))) for a in (0.05, 100))
    assert few < 4
    assert many > 9.5


def test_dirichlet_may_leave_clients_without_samples() -> None:
    assert (Dirichlet(alpha=0.05).split(LABELS, 500, 0).sizes == 0).any()


def test_two_shards_a_client_hold_at_most_four_classes_and_even_sizes() -> None:
    assert max(classes_held(Shards(per_client=2), 20)) <= 4
    assert np.mean(classes_held(Shards(per_client=2), 20)) < 3.5
    assert set(Shards(per_client=2).split(LABELS, 20, 0).sizes.tolist()) == {100}


def test_explicit_sizes_are_exact() -> None:
    division = Sizes(sizes=(5, 0, 300)).split(LABELS, 3, 0)
    assert division.sizes.tolist() == [5, 0, 300]
    assert len(set(division.order.tolist())) == 305


@pytest.mark.parametrize(("sizes", "clients", "said"), [((1, 2), 3, "one a client"), ((2001,), 1, "2000")])
def test_explicit_sizes_that_cannot_be_are_refused(sizes: tuple[int, ...], clients: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sizes(sizes=sizes).split(LABELS, clients, 0)


def test_power_law_sizes_fall_as_the_exponent_says() -> None:
    sizes = np.sort(PowerLaw(exponent=1).split(np.zeros(100_000, np.int64), 50, 0).sizes)[::-1]
    assert sizes[0] / sizes[9] == pytest.approx(10, rel=0.01)
    assert sizes[0] / sizes[49] == pytest.approx(50, rel=0.01)


def test_natural_divides_nothing_that_has_no_clients() -> None:
    with pytest.raises(ConfigError, match="choose iid"):
        Natural().split(LABELS, 3, 0)


@pytest.mark.parametrize(
    "wrong", [{"name": "dirichlet", "alpha": 0}, {"name": "shards", "per_client": 0}, {"name": "no"}]
)
def test_impossible_partitions_do_not_validate(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[AnyPartition](AnyPartition).validate_python(wrong)
