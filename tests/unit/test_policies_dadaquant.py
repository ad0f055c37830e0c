import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import after, closed, cohort, member, observed, told_to_all
from tightwire.codecs.codec import Codec
from tightwire.policies.base import NoState, Numbers
from tightwire.policies.dadaquant import DAdaQuant, client_levels

SAMPLES = st.lists(st.integers(1, 10**6), min_size=1, max_size=40)


def levels(policy: DAdaQuant, shared: Numbers, samples: list[int]) -> list[float]:
    members = [member(client, samples=count) for client, count in enumerate(samples)]
    return told_to_all(policy.plan(shared, cohort(members))[0], "levels")


def base(policy: DAdaQuant, losses: list[float]) -> float:
    return policy.plan(after(policy, losses), cohort([member(0)]))[0][0]["base"]


def test_levels_of_two_clients_are_those_of_theorem_1() -> None:
    """By hand: w = 1/9, 8/9; w^(2/3) = 0.23112, 0.92448; a = 1.15560, b = (1 + 64) / 81 / 64; sqrt(a / b) = 9.6004."""
    exact = client_levels([8, 64], 8.0)
    assert exact == pytest.approx([2.2188, 8.8752], abs=1e-3)
    assert levels(DAdaQuant(levels=8), {}, [8, 64]) == [2, 9]


@given(SAMPLES, st.sampled_from([1.0, 2.0, 8.0, 32.0]))
def test_the_aggregates_variance_is_that_of_equal_levels_and_no_more_levels_are_spent(
    samples: list[int], q: float
) -> None:
    exact = client_levels(samples, q)
    static = sum((count / q) ** 2 for count in samples)
    assert sum((count / each) ** 2 for count, each in zip(samples, exact, strict=True)) == pytest.approx(static)
    assert sum(exact) <= q * len(samples) * (1 + 1e-9)


@given(SAMPLES, st.integers(1, 1000))
def test_only_the_ratios_of_the_samples_matter(samples: list[int], factor: int) -> None:
    assert client_levels([factor * count for count in samples], 4.0) == pytest.approx(client_levels(samples, 4.0))


def test_equal_clients_take_the_level_of_the_round() -> None:
    assert client_levels([300] * 7, 16.0) == pytest.approx([16.0] * 7)
    assert client_levels([0, 0], 16.0) == [16.0, 16.0]
    assert client_levels([], 16.0) == []


def test_levels_double_when_the_loss_has_not_fallen_for_the_patience() -> None:
    """Averages of a flat loss are flat, which is not falling: after 3 rounds at 1, 3 at 2, and so on."""
    policy = DAdaQuant(patience=3, memory=0.0, max_levels=8)
    flat = [base(policy, [1.0] * rounds) for rounds in range(15)]
    assert flat == [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8]


def test_levels_stay_while_the_loss_falls_and_move_when_it_stops() -> None:
    policy = DAdaQuant(patience=3, memory=0.5)
    falling = [1 / (1 + i) for i in range(20)]
    assert base(policy, falling) == 1
    assert base(policy, [*falling, 0.5, 0.5]) == 2


def test_the_first_of_the_last_rounds_is_what_is_compared_with() -> None:
    """Losses 3, 1, 2: the third is below the first of three, and not below the first of two."""
    assert base(DAdaQuant(patience=3, memory=0.0), [3.0, 1.0, 2.0]) == 1
    assert base(DAdaQuant(patience=2, memory=0.0), [3.0, 1.0, 2.0]) == 2


def test_the_average_is_the_papers() -> None:
    """0.9 * (0.9 * 3 + 0.1 * 2) + 0.1 * 1 = 2.71."""
    assert after(DAdaQuant(), [3.0, 2.0, 1.0])["average"] == pytest.approx(2.71)


def test_either_adaptation_can_be_left_out() -> None:
    stalled = {"levels": 8.0}
    assert levels(DAdaQuant(adapts="time"), stalled, [8, 64]) == [8, 8]
    assert base(DAdaQuant(adapts="clients", patience=2), [1.0] * 9) == 1
    assert levels(DAdaQuant(adapts="clients", levels=8), {}, [8, 64]) == [2, 9]


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
)
def test_whatever_the_losses_and_samples_a_line_is_chosen(losses: list[float], samples: list[int]) -> None:
    policy = DAdaQuant(patience=2)
    for asked in levels(policy, after(policy, losses), samples):
        decision, _ = policy.decide(NoState(), observed(told={"levels": asked}))
        assert decision.codec == f"qsgd(levels={int(asked)}) | rans"
        Codec.parse(decision.codec)


def test_a_loss_that_says_nothing_is_passed_over() -> None:
    policy = DAdaQuant(patience=3)
    assert after(policy, [1.0, math.nan, 1.0, math.inf]) == after(policy, [1.0, 1.0])
    assert policy.review({}, closed([])) == {}


def test_what_the_server_remembers_is_bounded_and_not_changed_in_place() -> None:
    policy = DAdaQuant(patience=3)
    shared = after(policy, [1.0] * 50)
    assert len(shared) == len(after(policy, [1.0] * 60)) == 3 + 4
    before = dict(shared)
    policy.review(shared, closed([0.1]))
    assert shared == before


def test_who_was_told_nothing_takes_the_first_levels() -> None:
    decision, _ = DAdaQuant(levels=4).decide(NoState(), observed())
    assert (decision.codec, decision.reason) == ("qsgd(levels=4) | rans", "level of the round")
    decision, _ = DAdaQuant().decide(NoState(), observed(told={"levels": 9.0, "base": 8.0}))
    assert decision.reason == "many samples"
    decision, _ = DAdaQuant().decide(NoState(), observed(told={"levels": 2.0, "base": 8.0}))
    assert decision.reason == "few samples"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 64}, "from min_levels = 1 to max_levels = 32, got 64"),
        ({"adapts": "neither"}, "'both', 'time' or 'clients'"),
        ({"patience": 1}, "greater than or equal to 2"),
        ({"memory": 1.0}, "less than 1"),
        ({"codec": "uniform({bits})"}, r"must have \{levels\} in it"),
        ({"codec": "uniform(levels={levels})"}, "codec with levels = 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DAdaQuant.model_validate(fields)
