import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scenarios import run_here, small
from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode
from tightwire.federation.records import DecisionRow
from tightwire.federation.tables import read_rows
from tightwire.keys import generator
from tightwire.policies import Budget
from tightwire.policies.base import Decision, Observation, Outcome
from tightwire.policies.budget import BudgetState
from tightwire.policies.layers import layers_of
from tightwire.policies.lines import quantised
from tightwire.policies.predict import predict
from tightwire.policies.stats import UpdateStats
from tightwire.wire.authentication import TAG
from tightwire.wire.schema import Schema, TensorSpec

SCHEMA = Schema((TensorSpec("w", (64, 60)), TensorSpec("b", (60,)), TensorSpec("v", (60, 10)), TensorSpec("c", (10,))))
UPDATE = (generator(0, "test").laplace(size=SCHEMA.size) * 1e-3).astype(np.float32)
OBSERVATION = Observation(
    round=3,
    client=7,
    tier="phone",
    samples=100,
    loss=1.0,
    schema=SCHEMA,
    vector=lambda: UPDATE,
    deadline=60.0,
    downloaded=5.0,
    computed=15.0,
    elapsed=20.0,
    uplink=1e6,
    latency=0.05,
    encoding=lambda line: seconds_of(line, 1e-8),
    workspace=lambda line: workspace_of(line),
    memory=math.inf,
    energy=math.inf,
    joules_per_byte=1e-6,
    joules_per_upload=0.0,
    residual=lambda: 0.0,
)
BUDGET = Budget()
PER_LAYER = Budget(layers=True)
POLICIES = pytest.mark.parametrize("budget", [BUDGET, PER_LAYER], ids=["one chain", "per layer"])


@cache
def stats() -> UpdateStats:
    return UpdateStats.of(UPDATE, SCHEMA)


def seconds_of(line: str, a_value: float) -> float:
    """So many seconds for a value that is looked at, and as many again for one that is kept; less without top-k."""
    codec = Codec.parse(line)
    return a_value * SCHEMA.size * (codec.density(SCHEMA) + (1 if codec.density(SCHEMA) < 1 else 0))


def workspace_of(line: str) -> float:
    """As many bytes as an update takes, and eight for each value kept."""
    return SCHEMA.size * (4 + 8 * Codec.parse(line).density(SCHEMA))


def with_update(update: Flat, schema: Schema = SCHEMA) -> Observation:
    return dataclasses.replace(OBSERVATION, schema=schema, vector=lambda: update)


def allowed(budget: Budget, seen: Observation, state: BudgetState, line: str) -> float:
    """Predicted bytes that are allowed to a line, by the definitions of the limits."""
    left = math.inf if seen.deadline is None else seen.deadline - seen.elapsed - seen.latency - seen.encoding(line)
    pace = state.slowness + budget.caution * state.deviation
    timely = max(left, 0) * (1 - budget.margin) * seen.uplink / 8 / pace
    powered = max(seen.energy - seen.joules_per_upload, 0) / seen.joules_per_byte
    if seen.workspace(line) > seen.memory:
        return 0.0
    return min(timely, powered, budget.max_ratio * 4 * seen.schema.size) / (1 + budget.slack)


def decide(observation: Observation, *, budget: Budget = BUDGET, state: BudgetState | None = None) -> Decision:
    return budget.decide(budget.initial() if state is None else state, observation)[0]


def outcome_of(decision: Decision, size: int, transfer: float, latency: float = 0.05) -> Outcome:
    return Outcome(
        round=3,
        decision=decision,
        bytes=size,
        seconds=transfer + latency,
        latency=latency,
        turn=20 + transfer + latency,
        error=0.1,
        samples=100,
        deadline=60.0,
        accepted=True,
        late=False,
    )


@POLICIES
@settings(deadline=None, max_examples=60)
@given(
    uplink=st.floats(100, 1e6),
    elapsed=st.floats(0, 70),
    a_value=st.floats(0, 1e-3),
    slowness=st.floats(0.3, 5),
    energy=st.floats(0, 3e-3),
    tail=st.floats(0, 1e-3),
    memory=st.floats(3, 13) | st.just(math.inf),
)
def test_what_is_planned_keeps_within_every_limit(
    budget: Budget,
    uplink: float,
    elapsed: float,
    a_value: float,
    slowness: float,
    energy: float,
    tail: float,
    memory: float,
) -> None:
    seen = dataclasses.replace(
        OBSERVATION,
        uplink=uplink,
        elapsed=elapsed,
        encoding=lambda line: seconds_of(line, a_value),
        energy=energy,
        joules_per_upload=tail,
        memory=memory * SCHEMA.size,
    )
    state = BudgetState(slowness=slowness)
    decision = decide(seen, budget=budget, state=state)
    if decision.codec is None:
        lines = [quantised(bits, density, "rans") for bits in budget.bits for density in budget.densities]
        sizes = predict(stats(), budget.bits, budget.densities, "rans").bytes.ravel()
        assert not any(size <= allowed(budget, seen, state, line) for size, line in zip(sizes, lines, strict=True))
        return
    assert decision.predicted_bytes is not None
    assert decision.predicted_seconds is not None
    assert decision.predicted_bytes <= allowed(budget, seen, state, decision.codec) * (1 + 1e-5)
    assert elapsed + seen.encoding(decision.codec) + decision.predicted_seconds <= 60


@settings(deadline=None, max_examples=40)
@given(
    uplink=st.floats(100, 1e4),
    a_value=st.floats(0, 1e-2),
    memory=st.floats(4, 13) | st.just(math.inf),
    energy=st.floats(0, 3e-3),
)
def test_the_choice_is_the_best_of_the_whole_grid(uplink: float, a_value: float, memory: float, energy: float) -> None:
    seen = dataclasses.replace(
        OBSERVATION,
        uplink=uplink,
        encoding=lambda line: seconds_of(line, a_value),
        memory=memory * SCHEMA.size,
        energy=energy,
    )
    decision = decide(seen)
    grid = predict(stats(), BUDGET.bits, BUDGET.densities, BUDGET.entropy)
    room = [allowed(BUDGET, seen, BUDGET.initial(), quantised(12, density, "rans")) for density in BUDGET.densities]
    error = grid.error / stats().norm ** 2
    # encoding times between densities are taken a little too long, for values are kept in whole numbers
    slower = dataclasses.replace(seen, encoding=lambda line: seconds_of(line, a_value) + a_value * len(SCHEMA.tensors))
    sure = [allowed(BUDGET, slower, BUDGET.initial(), quantised(12, density, "rans")) for density in BUDGET.densities]
    surely = grid.bytes <= 0.98 * np.array(sure)
    if decision.predicted_error is None:
        assert not surely.any()
    else:
        assert decision.predicted_error >= error[grid.bytes <= np.array(room)].min() * (1 - 1e-5)
        assert decision.predicted_error <= error[surely].min(initial=np.inf) * (1 + 1e-5)


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
    grid = predict(stats(), BUDGET.bits, BUDGET.densities, BUDGET.entropy)
    better = grid.error / stats().norm ** 2 < decision.predicted_error * (1 - 1e-5)
    assert (grid.bytes[better] > decision.predicted_bytes).all()


def test_few_values_are_kept_where_memory_is_short() -> None:
    short = dataclasses.replace(OBSERVATION, memory=4.5 * SCHEMA.size)
    decision = decide(short)
    assert decision.codec is not None
    assert decision.reason == "memory"
    assert workspace_of(decision.codec) <= short.memory
    assert decide(dataclasses.replace(OBSERVATION, memory=1e6)) == decide(OBSERVATION)


def test_a_radio_that_stays_awake_is_paid_from_the_battery() -> None:
    seen = dataclasses.replace(OBSERVATION, energy=1e-3)
    awake = decide(dataclasses.replace(seen, joules_per_upload=4e-4))
    assert (awake.predicted_bytes or 0) <= 600 < (decide(seen).predicted_bytes or 0)
    assert awake.reason == "battery"
    assert decide(dataclasses.replace(seen, joules_per_upload=2e-3)).reason == "no codec fits the battery"


def test_limits_are_asked_about_for_one_line_where_they_do_not_matter() -> None:
    asked: list[str] = []

    def encoding(line: str) -> float:
        asked.append(line)
        return seconds_of(line, 1e-8)

    decision = decide(dataclasses.replace(OBSERVATION, encoding=encoding))
    assert set(asked) == {decision.codec}


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
        ({"encoding": lambda _: 41.0}, "no codec meets the deadline"),
        ({"memory": 1000.0}, "no codec fits the memory"),
        ({"energy": 1.0, "joules_per_upload": 2.0}, "no codec fits the battery"),
        ({"energy": 0.0}, "no codec fits the battery"),
    ],
)
def test_bytes_that_would_be_wasted_are_not_sent(change: dict[str, Any], reason: str) -> None:
    decision = decide(dataclasses.replace(OBSERVATION, **change))
    assert (decision.codec, decision.reason) == (None, reason)


def test_a_cap_below_the_smallest_frame_lets_the_smallest_one_through() -> None:
    decision = decide(OBSERVATION, budget=Budget(max_ratio=1e-6))
    smallest = predict(stats(), Budget().bits, Budget().densities, "rans").bytes.min()
    assert decision.reason == "byte cap"
    assert decision.predicted_bytes == pytest.approx(smallest, rel=1e-5)


def test_an_update_of_zeros_takes_the_fewest_bytes() -> None:
    zeros = np.zeros(SCHEMA.size, np.float32)
    decision = decide(with_update(zeros))
    grid = predict(UpdateStats.of(zeros, SCHEMA), BUDGET.bits, BUDGET.densities, BUDGET.entropy)
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


def test_a_lost_or_late_upload_teaches_as_much_of_the_link_as_one_that_was_used() -> None:
    decision, state = BUDGET.decide(BUDGET.initial(), OBSERVATION)
    used = outcome_of(decision, 900, 0.03)
    late = dataclasses.replace(used, accepted=False, late=True)
    lost = dataclasses.replace(used, accepted=False)
    learnt = BUDGET.learn(state, used)
    assert learnt == BUDGET.learn(state, late) != state
    assert dataclasses.replace(BUDGET.learn(state, lost), size=learnt.size) == learnt


def test_an_upload_that_broke_off_says_nothing_of_how_long_frames_are() -> None:
    decision, state = BUDGET.decide(BUDGET.initial(), OBSERVATION)
    broken = dataclasses.replace(outcome_of(decision, round(state.bytes * 0.1), 0.01, 0.0), accepted=False)
    assert BUDGET.learn(state, broken).size == state.size


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


LAYERS = Schema(
    (
        TensorSpec("first.weight", (80, 60)),
        TensorSpec("first.bias", (3,)),
        TensorSpec("second.weight", (60, 40)),
        TensorSpec("third.weight", (40, 10)),
    )
)
UNLIKE = np.concatenate(
    [
        generator(1, "test").standard_normal(4800) * 1e-3,
        np.ones(3),
        generator(2, "test").standard_t(2, 2400) * 1e-2,
        generator(3, "test").laplace(size=400),
    ]
).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(ratio=st.floats(0.005, 0.3))
def test_layers_are_never_worse_than_one_chain_at_the_same_limit(ratio: float) -> None:
    seen = with_update(UNLIKE, LAYERS)
    alone = decide(seen, budget=Budget(max_ratio=ratio))
    own = decide(seen, budget=Budget(max_ratio=ratio, layers=True))
    assert own.predicted_error is not None
    assert alone.predicted_error is not None
    assert own.predicted_error <= alone.predicted_error
    assert (own.predicted_bytes or 0) <= max(ratio * 4 * LAYERS.size, alone.predicted_bytes or 0)


def test_layers_pay_where_tensors_are_unlike() -> None:
    seen = with_update(UNLIKE, LAYERS)
    alone, own = decide(seen), decide(seen, budget=PER_LAYER)
    assert (own.predicted_error or 1) < 0.5 * (alone.predicted_error or 0)
    assert ";" in (own.codec or "")


@settings(deadline=None, max_examples=60)
@given(ratio=st.floats(0.005, 0.3), more=st.floats(1.1, 3))
def test_a_larger_limit_does_not_make_layers_worse(ratio: float, more: float) -> None:
    seen = with_update(UNLIKE, LAYERS)
    less = decide(seen, budget=Budget(max_ratio=ratio, layers=True))
    larger = decide(seen, budget=Budget(max_ratio=ratio * more, layers=True))
    assert (larger.predicted_error or 0) <= (less.predicted_error or 0) * 1.05


@pytest.mark.parametrize("ratio", [0.01, 0.03, 0.1])
def test_a_line_with_layers_weighs_and_errs_as_predicted(ratio: float) -> None:
    decision = decide(with_update(UNLIKE, LAYERS), budget=Budget(max_ratio=ratio, layers=True))
    codec = Codec.parse(decision.codec or "")
    encoded = codec.encode(UNLIKE, LAYERS, key=1, round=1, client=2)
    lost = decode(encoded.frame, LAYERS).astype(np.float64) - UNLIKE
    assert str(codec) == decision.codec
    assert len(encoded.frame) == pytest.approx(decision.predicted_bytes, rel=0.03)
    error = float((lost**2).sum() / (UNLIKE.astype(np.float64) ** 2).sum())
    assert error == pytest.approx(decision.predicted_error, rel=0.1)
    tallies = [piece.chain.tally(piece.part.shape) for piece in codec.pieces(LAYERS) if piece.section == "codes"]
    kept = sum(tally.kept for tally in tallies)
    assert decision.bits == pytest.approx(sum(tally.kept * tally.bits for tally in tallies) / kept, rel=1e-5)
    assert decision.density == pytest.approx(kept / (LAYERS.size - 3), rel=1e-5)


@pytest.mark.parametrize("names", [("a b", "c:d", "e*"), ("first", "c|d", "e?"), ("\u00e9", "x", "y")])
def test_names_that_no_rule_can_take_share_the_default_chain(names: tuple[str, str, str]) -> None:
    schema = Schema(tuple(TensorSpec(name, (2000,)) for name in names))
    update = np.concatenate([generator(i, "test").laplace(size=2000) * 10**i for i in range(3)]).astype(np.float32)
    decision = decide(with_update(update, schema), budget=PER_LAYER)
    codec = Codec.parse(decision.codec or "")
    frame = codec.encode(update, schema, key=1, round=1, client=2).frame
    assert len(frame) == pytest.approx(decision.predicted_bytes, rel=0.03)
    assert {pattern for pattern, _ in codec.rules} <= {name for name in names if name in ("first", "x", "y")}


@pytest.mark.parametrize("count", [20, 60, 400])
def test_lines_never_grow_too_long_for_a_frame(count: int) -> None:
    schema = Schema(tuple(TensorSpec(f"block.{i}.attention.weight", (300 + i,)) for i in range(count)))
    scales = np.repeat(10.0 ** np.arange(count).clip(0, 30), [tensor.size for tensor in schema.tensors])
    update = (generator(0, "test").laplace(size=schema.size) * scales * 1e-20).astype(np.float32)
    layers = layers_of(schema, BUDGET.bits, BUDGET.densities, "rans")
    assert 1 < len(layers.names) < min(count, 1024 // 40) + 1
    decision = decide(with_update(update, schema), budget=PER_LAYER)
    assert len((decision.codec or "").replace(" ", "")) <= 1024
    Codec.parse(decision.codec or "").encode(update, schema, key=1, round=1, client=2)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("on", [False, True])
def test_an_authenticated_frame_is_predicted_with_its_tag(tmp_path: Path, on: bool, layers: bool) -> None:
    policy = {"name": "budget", "bits": [4], "densities": [1.0], "entropy": "none", "max_ratio": 1, "layers": layers}
    run_here(small(policy=policy, wire={"authenticate": on}, rounds=2), tmp_path)
    rows = [row for row in read_rows(tmp_path / "decisions.parquet", DecisionRow) if row.bytes]
    assert rows
    assert {row.predicted_bytes for row in rows} == {float(row.bytes) for row in rows}


@pytest.mark.parametrize("limit", ["deadline", "battery"])
def test_a_frame_that_only_its_tag_makes_too_long_is_not_sent(limit: str) -> None:
    exact = Budget(bits=(4,), densities=(1.0,), entropy="none", max_ratio=1, margin=0, caution=0, slack=0)
    size = len(Codec.parse("uniform(4)").encode(UPDATE, SCHEMA, key=1, round=1, client=2).frame)
    seconds = OBSERVATION.elapsed + OBSERVATION.latency + OBSERVATION.encoding("uniform(4)")
    seen = dataclasses.replace(OBSERVATION, energy=(size + 8) * OBSERVATION.joules_per_byte)
    if limit == "deadline":
        seen = dataclasses.replace(OBSERVATION, deadline=seconds + 8 * (size + 8) / OBSERVATION.uplink)
    sent = decide(seen, budget=exact)
    assert (sent.codec, sent.predicted_bytes) == ("uniform(4)", size)
    assert decide(dataclasses.replace(seen, tag=TAG), budget=exact).codec is None
