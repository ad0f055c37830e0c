"""What every policy keeps; a new policy adds one row to POLICIES."""

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec
from tightwire.policies import Budget, Fixed, Tiered
from tightwire.policies.base import Alone, Decision, Observation, Outcome, Policy
from tightwire.policies.conformance import CHECKS, Subject, observation
from tightwire.policies.dadaquant import DAdaQuant
from tightwire.policies.laq_hc import LaqHC
from tightwire.policies.registry import BUILT_IN
from tightwire.wire.schema import Schema, TensorSpec

POLICIES: list[Policy[Any]] = [
    *(kind() for kind in BUILT_IN),
    Fixed(codec="none"),
    Tiered(codecs={"sensor": "topk(0.001) | uniform(2) | rans"}, default="uniform(8)"),
    Budget(max_ratio=0.01, entropy="none", bits=(2, 4), densities=(0.01, 0.1, 1.0)),
    Budget(max_ratio=1.0, densities=(1.0,)),
    Budget(layers=True),
    LaqHC(budget=1e6),
    DAdaQuant(adapts="time"),
    DAdaQuant(adapts="clients"),
]
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)

SCHEMA = Schema((TensorSpec("w", (40, 30)), TensorSpec("b", (30,)), TensorSpec("v", (30, 10)), TensorSpec("c", (10,))))
positive = st.floats(1e-6, 1e9)


def update_of(seed: int) -> Flat:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, SCHEMA.size) * 1e-3).astype(np.float32)


EASY = observation(Budget(), tier="sensor", update=update_of(1), schema=SCHEMA, deadline=None, energy=math.inf)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    update = draw(
        st.sampled_from([update_of(1), update_of(2), np.zeros(SCHEMA.size, np.float32), np.abs(update_of(3))])
    )
    uplink, encoding = draw(positive), draw(st.floats(0, 1e-3))
    return dataclasses.replace(
        EASY,
        round=draw(st.integers(0, 1000)),
        client=draw(st.integers(0, 10**6)),
        tier=draw(st.sampled_from(["sensor", "flagship", ""])),
        samples=draw(st.integers(1, 10**5)),
        loss=draw(st.floats(0, 1e6)),
        vector=lambda: update,
        deadline=draw(st.none() | positive),
        elapsed=draw(positive),
        uplink=uplink,
        latency=draw(st.floats(0, 10)),
        encoding=lambda line: encoding * SCHEMA.size,  # noqa: ARG005 - the interface's argument
        memory=draw(st.floats(0, 1e9)),
        energy=draw(positive | st.just(math.inf)),
        joules_per_byte=draw(st.floats(0, 1)),
        joules_per_upload=draw(st.floats(0, 20)),
        residual=lambda: 0.0,
        future=lambda size, begins: begins + 8 * size / uplink,
    )


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    predicted = draw(st.none() | positive)
    return Outcome(
        round=draw(st.integers(0, 1000)),
        decision=Decision(
            draw(st.sampled_from([None, "none", "uniform(4)"])), 4.0, 1.0, "x", predicted, predicted, 0.1
        ),
        bytes=draw(st.integers(0, 10**9)),
        seconds=draw(st.floats(0, 1e12) | st.just(math.inf)),
        latency=draw(st.floats(0, 10)),
        turn=draw(st.floats(0, 1e12)),
        error=draw(st.floats(0, 1e6)),
        samples=draw(st.integers(1, 10**5)),
        deadline=draw(st.none() | positive),
        accepted=draw(st.booleans()),
        late=draw(st.booleans()),
    )


@every_policy
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(policy: Policy[Any], check: Callable[[Subject], None]) -> None:
    check(Subject(policy))


@every_policy
@settings(deadline=None, max_examples=25)
@given(observation=observations(), outcome=outcomes())
def test_the_same_arguments_give_the_same_answer(
    policy: Policy[Any], observation: Observation, outcome: Outcome
) -> None:
    state = policy.initial()
    assert policy.decide(state, observation) == policy.decide(state, observation)
    assert policy.learn(state, outcome) == policy.learn(state, outcome)
    assert state == policy.initial()


@every_policy
@settings(deadline=None, max_examples=25)
@given(observation=observations())
def test_a_decision_can_be_carried_out_and_gives_its_reason(policy: Policy[Any], observation: Observation) -> None:
    decision, _ = policy.decide(policy.initial(), observation)
    assert decision.reason
    assert "," not in decision.reason
    if decision.codec is None:
        assert (decision.bits, decision.density) == (0.0, 0.0)
        return
    assert str(Codec.parse(decision.codec)) == decision.codec
    assert 0 < decision.density <= 1
    assert 1 <= decision.bits <= 32
    for predicted in (decision.predicted_bytes, decision.predicted_seconds, decision.predicted_error):
        assert predicted is None or 0 <= predicted < math.inf


@every_policy
@settings(deadline=None, max_examples=40)
@given(observation=observations(), history=st.lists(outcomes(), max_size=6))
def test_any_history_is_learnt_from_and_survives_a_checkpoint(
    policy: Policy[Any], observation: Observation, history: list[Outcome]
) -> None:
    state = policy.initial()
    for outcome in history:
        _, state = policy.decide(state, observation)
        state = policy.learn(state, outcome)
        numbers = json.loads(json.dumps(policy.dump(state), allow_nan=False))
        assert policy.load(numbers) == state
    assert type(state).__dataclass_params__.frozen
    decision, _ = policy.decide(state, observation)
    assert decision.reason


@every_policy
def test_a_policy_survives_its_own_json(policy: Policy[Any]) -> None:
    assert isinstance(policy, Alone)
    assert type(policy).model_validate_json(policy.model_dump_json()) == policy


def test_a_budget_keeps_its_byte_cap_in_real_frames() -> None:
    shape = (TensorSpec("w", (200, 40)), TensorSpec("b", (40,)), TensorSpec("v", (40, 10)), TensorSpec("c", (10,)))
    schema = Schema(shape)
    over = total = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        draws = [rng.standard_normal(schema.size), rng.laplace(size=schema.size), rng.standard_t(2, schema.size)]
        for max_ratio, draw in zip((0.02, 0.05, 0.1), draws, strict=True):
            update = draw.astype(np.float32)
            budget = Budget(max_ratio=max_ratio)
            seen = dataclasses.replace(EASY, schema=schema, vector=partial(np.copy, update))
            decision, _ = budget.decide(budget.initial(), seen)
            assert decision.codec is not None
            frame = Codec.parse(decision.codec).encode(update, schema, key=seed, round=1, client=2).frame
            assert len(frame) <= 1.02 * max_ratio * 4 * schema.size
            over += len(frame) > max_ratio * 4 * schema.size
            total += 1
    assert over <= 0.02 * total
