import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandit_world import Same, World, broken_after, uniformly
from policy_views import closed, cohort, member, observed
from tightwire.policies.arms import ARMS
from tightwire.policies.base import Closed, Decision, Report
from tightwire.policies.qlearning import QLearning, QState

POLICY = QLearning()
MOST = 1 / (1 - POLICY.future)


def sent(policy: QLearning, arm: int, client: int, *, used: bool = True) -> Report:
    """A report of an arm whose reward is 0.8 * 0.5 if it was used."""
    bits, density = policy.arms[arm]
    decision = Decision(policy.line(arm), float(bits), density, "x", 1000.0, 20.0, 0.2)
    return Report(client, 100, 1.0, decision, 1000, 20.0, 40.0, used)


def test_one_reward_moves_one_entry_by_the_rule() -> None:
    plan, shared = POLICY.plan({}, cohort([member(1), member(2)]))
    assert plan[1] == {f"q_{arm}": MOST for arm in range(len(ARMS))}
    table = POLICY.review(shared, Closed(1, 40.0, (sent(POLICY, 3, 1),), 1.0, 1.0))
    assert table == {"q_0_3": pytest.approx(MOST + 0.2 * (0.4 + 0.1 * MOST - MOST))}


def test_what_one_client_learns_others_of_its_class_are_told_and_those_of_another_are_not() -> None:
    members = cohort([member(1, uplink=1e4), member(2, uplink=1e5), member(3, uplink=1e6)])
    _, shared = POLICY.plan({}, members)
    shared = POLICY.review(shared, Closed(1, 40.0, (sent(POLICY, 3, 1, used=False),), 1.0, 1.0))
    others = cohort([member(4, uplink=1e4), member(5, uplink=1e5), member(6, uplink=1e6)])
    plan, _ = POLICY.plan(shared, others)
    assert plan[4]["q_3"] < MOST
    assert plan[5]["q_3"] == plan[6]["q_3"] == MOST


@given(uplinks=st.lists(st.floats(1, 1e9), min_size=1, max_size=12, unique=True), low=st.booleans(), slow=st.booleans())
def test_classes_are_terciles_of_bandwidth_and_compute_and_whether_the_battery_is_low(
    uplinks: list[float], low: bool, slow: bool
) -> None:
    members = [
        member(c, uplink=u, compute=2.0 if slow and c == 0 else 1.0, state={"rate": 0.0, "low": float(low)})
        for c, u in enumerate(uplinks)
    ]
    _, shared = POLICY.plan({}, cohort(members))
    classes = [int(shared[f"at_{m.client}"]) for m in members]
    ranked = sorted(range(len(uplinks)), key=lambda c: uplinks[c])
    assert [classes[c] // 6 for c in ranked] == [3 * rank // len(ranked) for rank in range(len(ranked))]
    assert {number % 2 for number in classes} == {int(low)}
    assert classes[0] % 6 // 2 == (3 * (len(ranked) - 1) // len(ranked) if slow else 0)


@pytest.mark.parametrize(("energy", "low"), [(math.inf, 0.0), (1.0, 0.0), (0.02, 1.0), (0.0, 1.0)])
def test_a_battery_is_low_if_it_pays_for_few_uploads(energy: float, low: float) -> None:
    _, state = POLICY.decide(POLICY.initial(), observed(energy=energy))
    assert state.low == low
    assert POLICY.load(POLICY.dump(state)) == state


def test_the_best_of_the_row_is_played_but_for_a_share_of_draws() -> None:
    told = {f"q_{arm}": float(arm == 4) for arm in range(len(ARMS))}
    decisions = [POLICY.decide(QState(), observed(told=told, client=client))[0] for client in range(600)]
    drawn = [decision for decision in decisions if decision.reason == "drawn at random"]
    assert 30 < len(drawn) < 90
    assert len({decision.codec for decision in drawn}) == len(ARMS)
    assert {decision.codec for decision in decisions if decision.reason == "best in the table"} == {POLICY.line(4)}


def test_the_server_remembers_a_bounded_number_of_plain_numbers() -> None:
    world = World(broken_after(5.0)).play(POLICY, 20)
    assert len(world.shared) <= 18 * len(ARMS)
    assert all(name.startswith("q_") for name in world.shared)
    assert json.loads(json.dumps(world.shared)) == world.shared
    assert world.shared == World(broken_after(5.0)).play(POLICY, 20).shared


@settings(max_examples=50)
@given(upload=st.floats(allow_nan=True), turn=st.floats(allow_nan=True), line=st.sampled_from(["", "fp16", None]))
def test_strange_reports_leave_the_table_in_range(upload: float, turn: float, line: str | None) -> None:
    _, shared = POLICY.plan({}, cohort([member(1)]))
    usual = sent(POLICY, 3, 1)
    codec = usual.decision.codec if line == "" else line
    decision = Decision(codec, 4.0, 1.0, "x", 1000.0, 20.0, 0.2)
    strange = Report(1, 100, math.nan, decision, 1000, upload, turn, used=True)
    table = POLICY.review(shared, Closed(1, 40.0, (strange, *closed([1.0, 1.0]).reports), 1.0, 1.0))
    assert all(0 <= value <= MOST for value in table.values())
    assert table == {} or line == ""


def test_once_the_table_is_filled_the_regret_is_far_below_that_of_chance() -> None:
    for patience in (math.inf, 5.0):
        learnt, uniform = (World(broken_after(patience)).play(policy, 60) for policy in (POLICY, Same(rule=uniformly)))
        assert learnt.mean(40, 60) < 0.4 * uniform.mean(40, 60)
        assert learnt.mean(40, 60) < 0.5 * learnt.mean(0, 20)
