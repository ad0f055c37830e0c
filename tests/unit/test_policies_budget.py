import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tightwire.codecs.codec import Codec
from tightwire.keys import generator
from tightwire.policies import Budget
from tightwire.policies.base import Decision, Observation, Outcome
from tightwire.policies.budget import BudgetState
from tightwire.policies.predict import predict
from tightwire.policies.stats import UpdateStats
from tightwire.wire.schema import Schema, TensorSpec

SCHEMA = Schema((TensorSpec("w", (64, 60)), TensorSpec("b", (60,)), TensorSpec("v", (60, 10)), TensorSpec("c", (10,))))
UPDATE = (generator(0, "test").laplace(size=SCHEMA.size) * 1e-3).astype(np.float32)
STATS = UpdateStats.of(UPDATE, SCHEMA)
OBSERVATION = Observation(
    round=3,
    client=7,
    tier="phone",
    samples=100,
    loss=1.0,
    schema=SCHEMA,
    measure=lambda: STATS,
    deadline=60.0,
    elapsed=20.0,
    uplink=1e6,
    latency=0.05,
    codec_seconds=1e-8,
    energy=math.inf,
    joules_per_byte=1e-6,
)
BUDGET = Budget()


def decide(observation: Observation, *, budget: Budget = BUDGET, state: BudgetState | None = None) -> Decision:
    return budget.decide(budget.initial() if state is None else state, observation)[0]


def outcome_of(decision: Decision, size: int, transfer: float, latency: float = 0.05) -> Outcome:
    return Outcome(3, decision, size, transfer + latency, latency, accepted=True, late=False)


@settings(deadline=None, max_examples=60)
@given(
    uplink=st.floats(100, 1e6),
    elapsed=st.floats(0, 70),
    codec_seconds=st.floats(0, 1e-3),
    slowness=st.floats(0.3, 5),
)
def test_what_is_planned_meets_the_deadline_the_byte_cap_and_the_battery(
    uplink: float, elapsed: float, codec_seconds: float, slowness: float
) -> None:
    seen = dataclasses.replace(
        OBSERVATION, uplink=uplink, elapsed=elapsed, codec_seconds=codec_seconds, energy=1e-3, joules_per_byte=1e-6
    )
    decision = decide(seen, state=BudgetState(slowness=slowness))
    if decision.codec is None:
        assert decision.reason == "no codec meets the deadline"
        return
    assert decision.predicted_bytes is not None
    assert decision.predicted_seconds is not None
    coding = Codec.parse(decision.codec).passes(SCHEMA) * SCHEMA.size * codec_seconds
    assert elapsed + coding + decision.predicted_seconds <= 60
    assert decision.predicted_bytes <= 0.1 * 4 * SCHEMA.size
    assert decision.predicted_bytes <= 1000


@settings(deadline=None, max_examples=60)
@given(uplink=st.floats(100, 1e6), elapsed=st.floats(0, 60), more=st.floats(0, 1000))
def test_more_time_never_gives_a_larger_predicted_error(uplink: float, elapsed: float, more: float) -> None:
    seen = dataclasses.replace(OBSERVATION, uplink=uplink, elapsed=elapsed)
    later = dataclasses.replace(seen, deadline=60.0 + more)
    short, long = decide(seen), decide(later)
    if short.predicted_error is not None:
        assert long.predicted_error is not None
        assert long.predicted_error <= short.predicted_error


@pytest.mark.parametrize("uplink", [500.0, 1000.0, 1e6])
def test_no_grid_point_that_fits_has_a_smaller_error(uplink: float) -> None:
    decision = decide(dataclasses.replace(OBSERVATION, uplink=uplink))
    assert decision.predicted_bytes is not None
    assert decision.predicted_error is not None
    grid = predict(STATS, BUDGET.bits, BUDGET.densities, BUDGET.entropy)
    better = grid.error / STATS.norm**2 < decision.predicted_error
    assert (grid.bytes[better] > decision.predicted_bytes).all()


def test_the_reason_names_what_binds() -> None:
    replace = dataclasses.replace
    assert decide(OBSERVATION).reason == "byte cap"
    assert decide(replace(OBSERVATION, uplink=200.0)).reason == "deadline"
    assert decide(replace(OBSERVATION, energy=5e-4)).reason == "battery"
    free = Budget(max_ratio=1.0)
    assert decide(replace(OBSERVATION, deadline=None), budget=free).reason == "finest grid point"
    assert decide(replace(OBSERVATION, deadline=None), budget=free).codec == "uniform(12) | rans"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"elapsed": 60.0}, "no codec meets the deadline"),
        ({"elapsed": 61.0}, "no codec meets the deadline"),
        ({"uplink": 1.0}, "no codec meets the deadline"),
        ({"uplink": 0.0}, "no codec meets the deadline"),
        ({"latency": 41.0}, "no codec meets the deadline"),
        ({"codec_seconds": 1.0}, "no codec meets the deadline"),
        ({"energy": 0.0}, "no codec fits the battery"),
    ],
)
def test_bytes_that_would_be_wasted_are_not_sent(change: dict[str, float], reason: str) -> None:
    decision = decide(dataclasses.replace(OBSERVATION, **change))  # type: ignore[arg-type]  # floats by name
    assert (decision.codec, decision.reason) == (None, reason)


def test_a_cap_below_the_smallest_frame_lets_the_smallest_one_through() -> None:
    decision = decide(OBSERVATION, budget=Budget(max_ratio=1e-6))
    smallest = predict(STATS, Budget().bits, Budget().densities, "rans").bytes.min()
    assert decision.reason == "byte cap"
    assert decision.predicted_bytes == pytest.approx(smallest, rel=1e-5)


def test_an_update_of_zeros_takes_the_fewest_bytes() -> None:
    stats = UpdateStats.of(np.zeros(SCHEMA.size, np.float32), SCHEMA)
    decision = decide(dataclasses.replace(OBSERVATION, schema=stats.schema, measure=lambda: stats))
    grid = predict(stats, BUDGET.bits, BUDGET.densities, BUDGET.entropy)
    assert decision.predicted_error == 0
    assert decision.predicted_bytes == pytest.approx(grid.bytes.min(), rel=1e-5)


def test_a_link_that_keeps_being_slower_than_promised_is_believed_in_the_end() -> None:
    state = BUDGET.initial()
    seen = dataclasses.replace(OBSERVATION, uplink=1000.0)
    for _ in range(30):
        decision, state = BUDGET.decide(state, seen)
        size = int(decision.predicted_bytes or 0)
        state = BUDGET.learn(state, outcome_of(decision, size, 3 * size * 8 / seen.uplink))
    assert state.slowness == pytest.approx(3, rel=0.01)
    assert state.deviation < 0.1
    assert state.size == pytest.approx(1, rel=0.01)
    first, last = decide(seen), decide(seen, state=state)
    assert (last.predicted_bytes or 0) < (first.predicted_bytes or 0)


@pytest.mark.parametrize("variation", [0.0, 0.3, 0.5])
def test_few_uploads_are_late_on_a_link_that_varies(variation: float) -> None:
    rng = generator(0, "link")
    seen = dataclasses.replace(OBSERVATION, uplink=400.0)
    late = sent = 0
    for _ in range(20):
        state = BUDGET.initial()
        for _ in range(10):
            decision, state = BUDGET.decide(state, seen)
            assert decision.codec is not None
            transfer = (decision.predicted_bytes or 0) * 8 / 400 * math.exp(variation * rng.standard_normal())
            late += 20 + 0.05 + transfer > 60
            sent += 1
            state = BUDGET.learn(state, outcome_of(decision, int(decision.predicted_bytes or 0), transfer))
    assert late <= 0.1 * sent


def test_a_lost_or_late_upload_teaches_as_much_as_one_that_was_used() -> None:
    decision, state = BUDGET.decide(BUDGET.initial(), OBSERVATION)
    used = outcome_of(decision, 900, 0.03)
    late = dataclasses.replace(used, accepted=False, late=True)
    lost = dataclasses.replace(used, accepted=False)
    assert BUDGET.learn(state, used) == BUDGET.learn(state, late) == BUDGET.learn(state, lost) != state


def test_frames_longer_than_predicted_are_learnt_from() -> None:
    state = BUDGET.initial()
    for _ in range(40):
        decision, state = BUDGET.decide(state, OBSERVATION)
        state = BUDGET.learn(state, outcome_of(decision, round(state.bytes * 1.2), 0.01))
    assert state.size == pytest.approx(1.2, rel=0.01)


def test_who_skips_forgets_a_bad_link_and_tries_again() -> None:
    state = BudgetState(slowness=30.0, deviation=10.0)
    seen = dataclasses.replace(OBSERVATION, uplink=500.0)
    rounds = 0
    decision, state = BUDGET.decide(state, seen)
    while decision.codec is None:
        decision, state = BUDGET.decide(state, seen)
        rounds += 1
        assert rounds < 20
    assert rounds > 0


def test_a_link_that_wavers_is_given_more_room() -> None:
    seen = dataclasses.replace(OBSERVATION, uplink=300.0)
    steady = decide(seen, state=BudgetState(deviation=0.0))
    wavering = decide(seen, state=BudgetState(deviation=1.0))
    assert (wavering.predicted_bytes or 0) < (steady.predicted_bytes or 0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bits", (4, 2), "must rise"),
        ("bits", (0, 2), "greater than or equal to 1"),
        ("bits", (), "at least 1 item"),
        ("densities", (0.1, 0.1), "must rise"),
        ("densities", (0.0,), "greater than 0"),
        ("densities", (0.123456,), "four significant digits, got 0.123456"),
        ("max_ratio", 0.0, "greater than 0"),
        ("entropy", "huffman", "'rans' or 'none'"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Budget.model_validate({field: value})
