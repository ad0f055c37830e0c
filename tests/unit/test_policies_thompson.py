import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bandit_world import Same, World, broken_after, uniformly
from policy_views import cohort, member
from tightwire.arrays import Floats
from tightwire.policies.arms import DIMENSIONS
from tightwire.policies.base import Numbers
from tightwire.policies.linucb import LinUCB
from tightwire.policies.thompson import Thompson

POLICY = Thompson()


def models(policy: Thompson, shared: Numbers, draws: int) -> Floats:
    """The models that so many clients are told, shape (draws, dimensions)."""
    plan, _ = policy.plan(shared, cohort([member(client) for client in range(draws)]))
    return np.array([[plan[client][f"t_{i}"] for i in range(DIMENSIONS)] for client in range(draws)])


def test_models_are_drawn_around_the_regression_with_its_covariance() -> None:
    shared = World(broken_after(5.0)).play(POLICY, 5).shared
    drawn = models(POLICY, shared, 4000)
    square = np.array([[shared[f"v_{max(i, j)}_{min(i, j)}"] for j in range(DIMENSIONS)] for i in range(DIMENSIONS)])
    told = LinUCB().plan(shared, cohort([member(1)]))[0][1]
    theta, covariance = [told[f"t_{i}"] for i in range(DIMENSIONS)], POLICY.spread**2 * np.linalg.inv(square)
    deviations = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((drawn.mean(axis=0) - theta) / deviations, 0, atol=0.08)
    np.testing.assert_allclose(
        np.cov(drawn.T) / np.outer(deviations, deviations), covariance / np.outer(deviations, deviations), atol=0.08
    )


def test_draws_depend_on_seed_round_and_client_and_on_nothing_else() -> None:
    first = models(POLICY, {}, 3)
    assert (first == models(POLICY, {}, 3)).all()
    assert len({tuple(row) for row in first}) == 3
    other = POLICY.plan({}, replace(cohort([member(0)]), draws=1))[0][0]
    assert other["t_0"] != first[0, 0]
    later = POLICY.plan({}, cohort([member(0)], round=2))[0][0]
    assert later["t_0"] != first[0, 0]


def test_without_spread_it_plays_what_linucb_plays_without_width() -> None:
    worlds = [World(broken_after(5.0)).play(policy, 10) for policy in (Thompson(spread=0.0), LinUCB(width=0.0))]
    assert worlds[0].regrets == worlds[1].regrets


def test_the_server_remembers_a_bounded_number_of_plain_numbers() -> None:
    shared = World(broken_after(5.0)).play(POLICY, 5).shared
    assert len(shared) == 21 + 21 + DIMENSIONS
    assert json.loads(json.dumps(shared)) == shared


@pytest.mark.parametrize(("patience", "share"), [(math.inf, 0.02), (5.0, 0.04)])
def test_the_regret_is_far_below_that_of_chance(patience: float, share: float) -> None:
    learnt, uniform = (World(broken_after(patience)).play(policy, 60) for policy in (POLICY, Same(rule=uniformly)))
    assert learnt.mean(20, 60) < share * uniform.mean(20, 60)


def test_after_a_change_it_learns_anew_and_faster_for_the_discount() -> None:
    def change(round: int) -> float:
        return 3.0 if round <= 60 else math.inf

    discounted, stubborn = (World(change).play(policy, 100) for policy in (POLICY, Thompson(discount=1.0)))
    assert discounted.mean(80, 100) < 0.3 * stubborn.mean(80, 100)
