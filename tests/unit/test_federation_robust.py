"""Robust aggregators beside what one would write in NumPy, and the bounds that some hostile updates cannot leave."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios import Quiet, run_here, small
from tightwire.config import parse
from tightwire.errors import ConfigError
from tightwire.federation.combine import WINDOW, Rules, recent_norms
from tightwire.federation.robust import (
    BLOCK,
    Gathering,
    Krum,
    Mean,
    Median,
    MultiKrum,
    NormBounded,
    Rows,
    TrimmedMean,
    scores,
)

ALL: tuple[Gathering, ...] = (
    Median(),
    TrimmedMean(share=0.3),
    Krum(attackers=2),
    MultiKrum(attackers=2),
    MultiKrum(attackers=2, kept=3),
)


def rows(count: int, size: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


def _krum_scores(updates: npt.NDArray[np.float64], attackers: int) -> list[float]:
    """Blanchard et al. 2017, as the paper has it."""
    found = []
    for i, one in enumerate(updates):
        others = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(updates) if j != i)
        found.append(sum(others[: len(updates) - attackers - 2]))
    return found


@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_the_median_is_numpys(count: int) -> None:
    updates = rows(count, BLOCK + 5)
    found, used = Median().combine(updates)
    np.testing.assert_allclose(found, np.median(updates.astype(np.float64), axis=0), rtol=1e-6)
    assert used == tuple(range(count))


@pytest.mark.parametrize(("count", "share", "cut"), [(10, 0.3, 3), (10, 0.29, 2), (7, 0.2, 1), (100, 0.29, 29)])
def test_the_trimmed_mean_leaves_out_a_share_at_each_end(count: int, share: float, cut: int) -> None:
    updates = rows(count, 300)
    found, used = TrimmedMean(share=share).combine(updates)
    ordered = np.sort(updates.astype(np.float64), axis=0)
    np.testing.assert_allclose(found, ordered[cut : count - cut].mean(axis=0), rtol=1e-5, atol=1e-7)
    assert used == tuple(range(count))


@pytest.mark.parametrize(("count", "attackers"), [(5, 1), (9, 3), (12, 2)])
def test_krum_and_multi_krum_are_the_papers(count: int, attackers: int) -> None:
    updates = rows(count, 400, seed=count)
    expected = _krum_scores(updates.astype(np.float64), attackers)
    np.testing.assert_allclose(scores(updates, attackers), expected, rtol=1e-5)
    found, used = Krum(attackers=attackers).combine(updates)
    assert used == (int(np.argmin(expected)),)
    np.testing.assert_array_equal(found, updates[used[0]])
    found, used = MultiKrum(attackers=attackers, kept=3).combine(updates)
    assert used == tuple(sorted(np.argsort(expected)[:3].tolist()))
    np.testing.assert_allclose(found, updates[list(used)].mean(axis=0), rtol=1e-5, atol=1e-7)
    assert len(MultiKrum(attackers=attackers).combine(updates)[1]) == count - attackers


def test_ties_go_to_the_lower_number_and_zeros_have_one_sign() -> None:
    same = np.tile(rows(1, 40), (7, 1))
    assert Krum(attackers=2).combine(same)[1] == (0,)
    assert MultiKrum(attackers=2, kept=2).combine(same)[1] == (0, 1)
    zeros = np.array([[0.0], [-0.0], [-0.0]], np.float32)
    assert not np.signbit(Median().combine(zeros)[0])[0]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(ALL[:2]), st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=2), st.integers(0, 100)
)
def test_two_of_nine_cannot_move_a_coordinate_beyond_what_honest_clients_say(
    aggregator: Gathering, values: list[float], seed: int
) -> None:
    updates = rows(9, 20, seed)
    updates[3], updates[8] = values
    honest = np.delete(updates, [3, 8], axis=0)
    found, _ = aggregator.combine(updates)
    assert np.all(found >= honest.min(axis=0) - 1e-6)
    assert np.all(found <= honest.max(axis=0) + 1e-6)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(ALL[2:]), st.floats(50, 1000, width=32), st.booleans(), st.integers(0, 100))
def test_krum_chooses_neither_of_two_that_are_far_from_all_others_even_if_they_agree(
    aggregator: Gathering, far: float, agree: bool, seed: int
) -> None:
    updates = rows(9, 20, seed)
    updates[0], updates[5] = far, far if agree else -far
    assert not {0, 5} & set(aggregator.combine(updates)[1])


@pytest.mark.parametrize("aggregator", ALL)
def test_what_is_chosen_and_combined_does_not_depend_on_memory_layout(aggregator: Gathering, tmp_path: Path) -> None:
    updates = rows(9, 1000)
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=updates.shape)
    mapped[:] = updates
    found, used = aggregator.combine(updates)
    again, same = aggregator.combine(mapped)
    assert used == same
    assert found.tobytes() == again.tobytes()
    assert found.dtype == np.float32


TEACHABLE: dict[str, Any] = {
    "rounds": 8,
    "model": {"name": "logreg"},
    "training": {"epochs": 2, "batch": 10, "lr": 0.3},
    "partition": {"name": "iid"},
    "policy": {"name": "fixed", "codec": "uniform(8)"},
    "population": {"clients": 15},
    "participation": {"cohort": 15, "drop": 0.0},
    "deadline": None,
}
SPOILED = {**TEACHABLE, "attack": {"share": 0.2, "kind": "sign_flip", "strength": 10.0}}


def accuracy(folder: Path, aggregator: dict[str, Any], **changes: Any) -> tuple[float, Quiet]:
    listener = Quiet()
    run_here(small(**{**SPOILED, **changes}, server={"aggregator": aggregator}), folder, listener=listener)
    found = listener.records[-1].accuracy
    assert found is not None
    return found, listener


def test_three_of_fifteen_who_flip_and_scale_signs_ruin_the_mean_and_not_the_robust_aggregators(tmp_path: Path) -> None:
    ruined, listener = accuracy(tmp_path / "mean", {"name": "mean"})
    assert ruined < 0.4
    assert {record.hostile + record.rejected for record in listener.records} == {3}
    for aggregator in (
        {"name": "median"},
        {"name": "trimmed_mean", "share": 0.2},
        {"name": "norm_bounded"},
        {"name": "multi_krum", "attackers": 3},
        {"name": "krum", "attackers": 3},
    ):
        learnt, listener = accuracy(tmp_path / str(aggregator["name"]), aggregator)
        assert learnt > 0.7, aggregator
        if "krum" in str(aggregator["name"]):
            assert sum(record.hostile for record in listener.records) == 0
            assert {record.rejected for record in listener.records} == {3 if "multi" in str(aggregator["name"]) else 14}
            assert all(record.refused == {"outlier": record.rejected} for record in listener.records)


def test_a_norm_check_keeps_long_updates_out_and_bills_them_as_wasted(tmp_path: Path) -> None:
    for bound in ({"max_norm_times": 3.0}, {"max_norm": 5.0}):
        listener = Quiet()
        folder = tmp_path / next(iter(bound))
        run_here(small(**SPOILED, server=bound), folder, listener=listener)
        for record in listener.records:
            assert record.refused == {"norm": 3}
            assert record.rejected == 3
            assert record.hostile == 0
            assert record.bytes_wasted == pytest.approx(record.bytes_up / 5, rel=0.01)
        last = listener.records[-1].accuracy
        assert last is not None
        assert last > 0.8


def test_too_few_updates_leave_the_model_as_it_is(tmp_path: Path) -> None:
    listener = Quiet()
    config = small(
        **{**TEACHABLE, "rounds": 2, "participation": {"cohort": 9, "drop": 0.7}},
        server={"aggregator": {"name": "krum", "attackers": 3}},
    )
    run_here(config, tmp_path, listener=listener)
    assert [record.participants for record in listener.records] == [0, 0]
    assert all(set(record.refused) == {"too few"} for record in listener.records)
    assert listener.records[0].accuracy == listener.records[1].accuracy


def test_gathered_updates_beyond_the_memory_bound_give_the_same_run_from_a_file(tmp_path: Path) -> None:
    digests = []
    for memory in (1024.0, 0.0):
        config = small(rounds=2, server={"aggregator": {"name": "median"}}, hosts={"memory_mb": memory})
        ended = run_here(config, tmp_path / str(memory))
        assert ended.summary is not None
        digests.append(ended.summary.digest)
    assert digests[0] == digests[1]


def test_bounds_follow_the_median_of_recent_medians_and_start_with_the_rounds_own() -> None:
    rules = Rules(NormBounded(), max_norm_times=2.0)
    assert rules.gathers(())
    assert not rules.gathers((1.0,))
    bounds = rules.bounds((1.0, 100.0, 2.0))
    assert bounds is not None
    assert (bounds.refuse, bounds.clip) == (4.0, 2.0)
    assert Rules(Mean()).bounds((1.0,)) is None
    assert not Rules(Mean(), max_norm=3.0).gathers(())
    assert len(recent_norms(tuple(range(1, 1 + WINDOW)), [_Report(9.0), _Report(7.0), _Report(None)])) == WINDOW  # type: ignore[list-item]
    assert recent_norms((1.0,), [_Report(9.0), _Report(7.0)])[-1] == 8.0  # type: ignore[list-item]
    assert recent_norms((1.0,), []) == (1.0,)


class _Report:
    """As much of a report as norms are about."""

    def __init__(self, norm: float | None) -> None:
        self.norm = norm


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"server": {"aggregator": {"name": "krum", "attackers": 9}}},
            "at least 21 .* but participation.cohort is 20",
        ),
        ({"server": {"aggregator": {"name": "multi_krum", "attackers": 4, "kept": 18}}}, "at least 22 updates"),
        ({"server": {"aggregator": {"name": "krum"}}}, r"server.aggregator.attackers: is missing"),
        ({"server": {"aggregator": {"name": "trimmed_mean", "share": 0.5}}}, r"aggregator.share: .*less than 0.5"),
        ({"server": {"aggregator": {"name": "trimmed_mean", "share": 0.01}}}, "at least 100 updates to cut off"),
        ({"server": {"aggregator": {"name": "medain"}}}, "did you mean median"),
        ({"server": {"aggregator": "median"}, "wire": {"feedback": "ef21"}}, "ef21, whose updates are changes"),
        (
            {"server": {"aggregator": "norm_bounded"}, "policy": {"name": "fixed", "codec": "joint(8)"}},
            "aggregator is norm_bounded, but codec `joint.*` has the stage joint",
        ),
        ({"server": {"max_norm": 0}}, "server.max_norm: .*greater than 0"),
        ({"attack": {"share": 1.5}}, "attack.share: .*less than or equal to 1"),
        ({"attack": {"kind": "bribe"}}, "attack.kind: .*'label_flip'"),
        ({"attack": {"kind": "replay", "strength": 2.0}}, "strength is 2, but replay has none"),
        (
            {"attack": {"kind": "forge", "share": 0.1}, "policy": {"name": "fixed", "codec": "joint(8)"}},
            "attack.kind is forge, but what is forged does not fit",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse(changes)
    assert "\n" not in str(caught.value)


def test_an_aggregator_can_be_given_by_its_name_alone() -> None:
    names: Sequence[str] = ("mean", "median", "trimmed_mean", "norm_bounded")
    assert [parse({"server": {"aggregator": name}}).server.aggregator.name for name in names] == list(names)
