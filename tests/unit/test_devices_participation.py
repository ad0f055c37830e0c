import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tightwire.devices.participation import Participation


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 10**6), max_size=40), st.integers(1, 50), st.floats(0, 1), st.integers(1, 99))
def test_a_selection_is_distinct_eligible_and_ascending(
    clients: set[int], cohort: int, over: float, number: int
) -> None:
    participation = Participation(cohort=cohort, over=over)
    eligible = np.array(sorted(clients), dtype=np.int64)
    selected = participation.select(eligible, number, 0)
    assert len(selected) == min(participation.invited, len(clients))
    assert list(selected) == sorted(set(selected))
    assert set(selected) <= clients
    assert all(type(client) is int for client in selected)


def test_selection_has_not_drifted() -> None:
    assert Participation(cohort=5).select(np.arange(100), 1, 0) == (22, 25, 34, 51, 92)


def test_selection_is_uniform_over_clients_and_changes_with_round_and_seed() -> None:
    participation, eligible = Participation(cohort=10), np.arange(100)
    selections = [participation.select(eligible, r, s) for r in range(1, 101) for s in range(10)]
    assert len(set(selections)) == 1000
    counts = Counter(client for selection in selections for client in selection)
    assert set(counts) == set(range(100))
    chi_square = sum((count - 100) ** 2 for count in counts.values()) / 90
    assert chi_square < 99 + 4 * math.sqrt(2 * 99)


@pytest.mark.parametrize(("cohort", "over", "invited"), [(20, 0.0, 20), (20, 0.3, 26), (10, 0.1, 11), (3, 0.1, 4)])
def test_over_selection_invites_its_share_rounded_up(cohort: int, over: float, invited: int) -> None:
    assert Participation(cohort=cohort, over=over).invited == invited


def test_a_cohort_out_of_a_million_takes_memory_for_the_cohort_only() -> None:
    participation, eligible = Participation(cohort=100), np.arange(1_000_000)
    participation.select(eligible, 1, 0)
    tracemalloc.start()
    participation.select(eligible, 2, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_clients_that_are_not_ascending_are_noticed() -> None:
    with pytest.raises(ValueError, match="not ascending"):
        Participation(cohort=3).select(np.array([3, 2, 1]), 1, 0)


def test_drop_outs_have_their_probability_and_their_key() -> None:
    participation = Participation(drop=0.05)
    dropped = [
        (c, r, s) for c in range(40) for r in range(40) for s in range(5) if participation.drops(c, r, s) is not None
    ]
    assert abs(len(dropped) / 8000 - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 8000)
    for axis in range(3):
        assert len({d[axis] for d in dropped}) > 1
    assert all(Participation(drop=0).drops(c, 1, 0) is None for c in range(200))
    points = [Participation(drop=1).drops(c, 1, 0) for c in range(200)]
    assert all(point is not None and 0 <= point < 1 for point in points)
    assert len(set(points)) == 200


def test_only_those_who_are_there_are_asked_and_as_many_as_can_be_found() -> None:
    everybody = np.arange(2000)
    for there in (range(0, 2000, 3), range(7, 2000, 100), range(1999, 2000), range(0)):
        picked = Participation(cohort=25).select(everybody, 3, 0, there.__contains__)
        assert len(picked) == min(25, len(there))
        assert set(picked) <= set(there)
        assert list(picked) == sorted(set(picked))
    assert Participation(cohort=25).select(everybody, 3, 0, lambda _: True) == Participation(cohort=25).select(
        everybody, 3, 0
    )


def test_a_cohort_is_found_among_a_million_by_asking_a_few() -> None:
    asked: list[int] = []

    def present(client: int) -> bool:
        asked.append(client)
        return client % 4 == 0

    assert len(Participation(cohort=50).select(np.arange(1_000_000), 1, 0, present)) == 50
    assert len(asked) < 500


def test_those_who_are_there_are_asked_equally_often() -> None:
    counts = np.zeros(40)
    for round_ in range(2000):
        for client in Participation(cohort=5).select(np.arange(40), round_, 0, lambda c: c % 2 == 0):
            counts[client] += 1
    assert counts[1::2].sum() == 0
    assert abs(counts[::2] - 500).max() < 5 * math.sqrt(500)


@pytest.mark.parametrize("bad", [{"cohort": 0}, {"over": -0.1}, {"drop": 1.1}, {"dropout": 0.1}])
def test_a_participation_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Participation.model_validate(bad)
