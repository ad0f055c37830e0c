import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import cohort, member, observed, told_to_all
from tightwire.codecs.codec import Codec
from tightwire.policies.base import Member
from tightwire.policies.laq_hc import Flag, LaqHC, LaqHCState, packed

POLICY = LaqHC()


def bits(policy: LaqHC, members: list[Member]) -> list[float]:
    return told_to_all(policy.plan({}, cohort(members))[0], "bits")


def client(number: int, *, loss: float | None = None, samples: int = 100, uplink: float = 1e6) -> Member:
    state = None if loss is None else {"loss": loss}
    return member(number, samples=samples, uplink=uplink, state=state)


def test_bits_are_those_of_the_highest_flag() -> None:
    """By hand, alpha = 0.5, impacts 0.2, 0.5, 0.9, 1.0.

    Client 0, q = 1, B = 0.1: 0.15 / 1, 0.3 / 2, 0.5 / 3 = 0.167, 0.55 / 4 = 0.1375: level 3, 8 bits.
    Client 1, q = 0.5, B = 1: 0.55 / 1, 0.625 / 2, ...: level 1, 2 bits.
    """
    policy = LaqHC(impact=(0.2, 0.5, 0.9, 1.0))
    assert bits(policy, [client(0, loss=2.0, uplink=1e5), client(1, loss=1.0)]) == [8, 2]


def test_quality_is_samples_times_loss() -> None:
    policy = LaqHC(alpha=0.9, impact=(0.2, 0.5, 0.9, 1.0))
    one = bits(policy, [client(0, loss=2.0, samples=50), client(1, loss=1.0, samples=1000)])
    other = bits(policy, [client(0, loss=1.0, samples=100), client(1, loss=10.0, samples=100)])
    assert one == other == [2, 8]


def test_without_bandwidth_everybody_takes_the_level_of_most_impact_a_level() -> None:
    """0.7894 / 3 = 0.2631 is the most of 0.2183, 0.2346, 0.2631, 0.2432."""
    members = [client(i, loss=0.1 + i, uplink=10.0 ** (3 + i)) for i in range(4)]
    assert bits(LaqHC(alpha=1.0), members) == [8] * 4
    assert bits(LaqHC(alpha=0.0), members) == [2] * 4


def test_the_knapsack_takes_flags_from_the_highest_down_while_they_fit() -> None:
    flags = [Flag(0.9, 0, 2), Flag(0.8, 0, 1), Flag(0.7, 1, 3), Flag(0.6, 1, 1), Flag(0.5, 2, 1), Flag(0.4, 3, 1)]
    assert packed(flags, 8.0) == {0: 2, 1: 1, 2: 1}
    assert packed(flags, 12.0) == {0: 2, 1: 3}
    assert packed(flags, 1.0) == {}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1000), st.floats(1, 1e9)), min_size=1, max_size=20),
    st.floats(0.1, 20),
)
def test_a_limit_on_the_round_is_kept_and_who_is_left_over_does_not_fit(
    clients: list[tuple[float, int, float]], budget: float
) -> None:
    members = [client(i, loss=loss, samples=n, uplink=uplink) for i, (loss, n, uplink) in enumerate(clients)]
    spent = bits(LaqHC(budget=budget), members)
    room = budget * len(members) - sum(spent)
    assert room >= -1e-9
    assert 0 not in spent or room < 2


def test_who_is_left_over_skips_and_says_why() -> None:
    decision, _ = LaqHC(budget=1.0).decide(LaqHCState(), observed(told={"bits": 0.0}))
    assert (decision.codec, decision.reason) == (None, "beyond the round's limit")
    decision, _ = LaqHC(budget=1.0).decide(LaqHCState(), observed(told={"bits": 4.0}))
    assert (decision.codec, decision.reason) == ("uniform(4) | rans", "highest flag that fits")


def test_with_a_limit_flags_are_divided_by_bandwidth() -> None:
    """As printed, (q + B) / (l s) with s = B: 1.1 / 0.1 for the slow client, 2 / 1 for the fast one."""
    members = [client(0, loss=1.0, uplink=1e5), client(1, loss=1.0, uplink=1e6)]
    assert bits(LaqHC(budget=1.0, levels=(1,), impact=(1.0,)), members) == [2, 0]


def test_a_newcomer_counts_as_the_mean_of_those_who_are_known() -> None:
    policy = LaqHC(alpha=0.9, impact=(0.2, 0.5, 0.9, 1.0))
    for newcomer in (client(2), client(2, loss=-1.0), client(2, loss=math.nan)):
        members = [client(0, loss=1.0), client(1, loss=9.0), newcomer]
        assert bits(policy, members) == bits(policy, [*members[:2], client(2, loss=5.0)])
    assert len(set(bits(POLICY, [client(0), client(1)]))) == 1


def test_the_state_keeps_the_last_loss_that_says_something() -> None:
    state = POLICY.initial()
    for loss, kept in [(2.5, 2.5), (math.nan, 2.5), (math.inf, 2.5), (0.5, 0.5)]:
        _, state = POLICY.decide(state, observed(loss=loss))
        assert state == LaqHCState(loss=kept)
    assert POLICY.load(POLICY.dump(state)) == state


def test_who_was_told_nothing_decides_as_if_alone() -> None:
    decision, _ = POLICY.decide(LaqHCState(), observed())
    assert decision.codec == f"uniform({int(bits(POLICY, [client(0)])[0])}) | rans"
    assert decision.predicted_bytes is not None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(0, 10**9),
            st.sampled_from([0.0, 1e-300, 1e6, math.inf]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([None, 0.5, 4.0]),
)
def test_whatever_the_cohort_a_decision_is_taken(clients: list[tuple[float, int, float]], budget: float | None) -> None:
    policy = LaqHC(budget=budget)
    members = [client(i, loss=loss, samples=n, uplink=uplink) for i, (loss, n, uplink) in enumerate(clients)]
    plan, shared = policy.plan({}, cohort(members))
    assert (sorted(plan), shared) == (list(range(len(members))), {})
    for told in plan.values():
        decision, _ = policy.decide(policy.initial(), observed(told=told, loss=math.nan))
        assert (decision.codec is None) == (told["bits"] == 0)
        if decision.codec is not None:
            Codec.parse(decision.codec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 1.5}, "less than or equal to 1"),
        ({"levels": (2, 1)}, r"must rise .* got \[2, 1\]"),
        ({"levels": (1, 2)}, "a number for each of 2 levels, got 4"),
        ({"levels": (5,)}, "1, 2, 3 or 4"),
        ({"budget": 0.0}, "greater than 0"),
        ({"codec": "uniform(4)"}, r"must have \{bits\} in it"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LaqHC.model_validate(fields)
