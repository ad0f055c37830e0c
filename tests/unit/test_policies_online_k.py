import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import closed, cohort, member, observed, told_to_all
from tightwire.policies.base import NoState, Numbers
from tightwire.policies.online_k import OnlineK

MEMBERS = cohort([member(1), member(2)])


def play(policy: OnlineK, drop: Callable[[float], float], rounds: int, loss: float = 100.0) -> list[float]:
    """The densities of so many rounds when a round of density d lowers the loss by `drop(d)`, in a second each."""
    shared: Numbers = {}
    densities = []
    for _ in range(rounds):
        plan, shared = policy.plan(shared, MEMBERS)
        densities.append(told_to_all(plan, "density")[0])
        shared = policy.review(shared, closed([loss], seconds=1.0))
        loss -= drop(densities[-1])
    return densities


@pytest.mark.parametrize("best", [0.05, 0.2, 0.4])
def test_the_density_settles_where_the_loss_falls_fastest(best: float) -> None:
    densities = play(OnlineK(), lambda density: 1 - abs(density - best), 900)
    assert sum(densities[-100:]) / 100 == pytest.approx(best, abs=0.03)


def test_the_ordinary_slowing_of_training_does_not_pull_the_density_along() -> None:
    policy = OnlineK(smallest=0.1, start=0.3, largest=0.5)
    rate = iter(0.999**i for i in range(10_000))
    densities = play(policy, lambda density: next(rate) * (1 + 1e-6 * density), 600)
    assert 0.15 < sum(densities[-60:]) / 60 < 0.45


@given(drops=st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), min_size=12, max_size=40))
def test_whatever_the_losses_do_the_density_stays_in_range(drops: list[float]) -> None:
    policy, left = OnlineK(), iter(drops)
    for density in play(policy, lambda _: next(left), len(drops)):
        assert policy.smallest <= density <= policy.largest


def test_a_step_moves_by_the_width_over_the_root_of_twice_its_number() -> None:
    policy = OnlineK(smallest=0.1, start=0.2, largest=0.5)
    densities = play(policy, lambda density: density, 7)
    first, second = 0.4 / math.sqrt(2), 0.4 / 2
    assert densities[:3] == pytest.approx([0.2, 0.2 + first / 2, 0.2])
    assert densities[3:6] == pytest.approx([0.2 + first - second / 2, 0.2 + first, 0.2 + first])
    assert densities[6] == pytest.approx(0.5)


def test_losses_that_fall_alike_leave_the_density_where_it_is() -> None:
    assert play(OnlineK(), lambda _: 1.0, 9)[2::3] == [0.1] * 3


def test_a_round_in_which_nobody_trained_starts_the_step_anew() -> None:
    policy = OnlineK()
    shared = policy.review({}, closed([2.0], seconds=1.0))
    assert shared["place"] == 1
    for nobody in (closed([], seconds=1.0), closed([math.nan], seconds=1.0), closed([1.0], seconds=0.0)):
        again = policy.review(shared, nobody)
        assert (again["place"], again["step"], again["density"]) == (0, 1, 0.1)
        assert "loss" not in again


def test_clients_send_with_the_density_they_are_told() -> None:
    decision, _ = OnlineK(bits=4).decide(NoState(), observed(told={"density": 0.123456}))
    assert decision.codec == "topk(0.1235) | uniform(4) | rans"
    assert OnlineK().decide(NoState(), observed())[0].density == pytest.approx(0.1)


@pytest.mark.parametrize("wrong", [{"start": 0.9}, {"smallest": 0.6}, {"smallest": 0.1, "start": 0.1, "largest": 0.1}])
def test_a_range_without_the_start_in_it_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="smallest <= start <= largest"):
        OnlineK.model_validate(wrong)
