"""The conformance kit: what every policy must hold to, as checks that run on any policy.

`tightwire policy check` runs them on a user's policy, and `tests/contract` on everything the library has. A check
raises `PolicyError` with what was expected and what was found; nothing here depends on pytest.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec
from tightwire.errors import TightwireError
from tightwire.kit import Verdict, judged
from tightwire.policies.base import (
    NOTHING,
    Closed,
    Cohort,
    Decision,
    Member,
    Numbers,
    Observation,
    Outcome,
    Policy,
    Report,
)
from tightwire.wire.schema import Schema, TensorSpec

SCHEMA = Schema((TensorSpec("w", (60, 50)), TensorSpec("b", (50,)), TensorSpec("v", (50, 10)), TensorSpec("c", (10,))))
CLIENTS = 6
ROUNDS = 5


class PolicyError(TightwireError):
    """A policy does not hold to a property that it must have; says which, what was expected and what was found."""


@dataclass(frozen=True)
class Subject:
    """A policy under check."""

    policy: Policy[Any]


def expect(holds: bool, what: str) -> None:
    """Fail with `what` unless it holds.

    Raises:
        PolicyError: It does not.
    """
    if not holds:
        raise PolicyError(what)


def update(seed: int, scale: float = 1e-3) -> Flat:
    """A heavy-tailed update of `SCHEMA`, always the same for a seed."""
    return (np.random.default_rng(seed).standard_t(3, SCHEMA.size) * scale).astype(np.float32)


def observation(policy: Policy[Any], **changes: Any) -> Observation:
    """What a client of ordinary means sees, with `changes` made to it."""
    vector = changes.pop("update", update(1))
    uplink = changes.get("uplink", 1e6)
    usual = Observation(
        round=1,
        client=2,
        tier="old-phone-lte",
        samples=100,
        loss=1.0,
        schema=SCHEMA,
        vector=lambda: vector,
        deadline=60.0,
        downloaded=1.0,
        computed=2.0,
        elapsed=3.0,
        uplink=1e6,
        latency=0.05,
        encoding=lambda line: 1e-8 * SCHEMA.size * Codec.parse(line).passes(SCHEMA),
        workspace=lambda line: 16.0 * SCHEMA.size,  # noqa: ARG005 - the interface's argument
        memory=1e9,
        energy=math.inf,
        joules_per_byte=1e-6,
        joules_per_upload=0.0,
        residual=lambda: 0.0,
        future=(lambda size, begins: begins + 0.05 + 8 * size / uplink) if policy.clairvoyant else None,
    )
    return replace(usual, **changes)


def extremes(policy: Policy[Any]) -> Iterator[tuple[str, Observation]]:
    """Situations from the usual to the absurd, by what is special about them."""
    yield "an ordinary client", observation(policy)
    yield "an update of zeros", observation(policy, update=np.zeros(SCHEMA.size, np.float32))
    yield "a huge update", observation(policy, update=update(2, 1e30))
    yield "a tiny update", observation(policy, update=update(3, 1e-38))
    yield "no deadline", observation(policy, deadline=None)
    yield "a deadline that has passed", observation(policy, elapsed=1e6)
    yield "an empty battery", observation(policy, energy=0.0)
    yield "a link of one bit per second", observation(policy, uplink=1.0)
    yield "a link of a terabit per second", observation(policy, uplink=1e12)
    yield "no memory", observation(policy, memory=0.0)
    yield "a loss that is not a number", observation(policy, loss=math.nan)
    yield "an infinite loss", observation(policy, loss=math.inf)
    yield "a loss of zero", observation(policy, loss=0.0)
    yield "one sample", observation(policy, samples=1)
    yield "a residual as large as the update", observation(policy, residual=lambda: 0.1)
    yield "a late round", observation(policy, round=100_000)


def cohort(round_: int, states: Mapping[int, Numbers]) -> Cohort:
    """A cohort of unequal clients."""
    return Cohort(
        round_,
        tuple(
            Member(
                client=client,
                tier="old-phone-lte" if client % 2 else "pi4-wifi",
                samples=10 * (client + 1),
                uplink=1e4 * 4**client,
                latency=0.05,
                download=1.0,
                compute=0.5 * (client + 1),
                state=states.get(client),
            )
            for client in range(CLIENTS)
        ),
        SCHEMA.size,
        60.0,
    )


def outcome(round_: int, decision: Decision, **changes: Any) -> Outcome:
    """What usually becomes of a decision."""
    size = 0 if decision.codec is None else len(frame(decision.codec))
    usual = Outcome(
        round=round_,
        decision=decision,
        bytes=size,
        seconds=0.05 + 8 * size / 1e6 if size else 0.0,
        latency=0.05 if size else 0.0,
        turn=3.0 + 8 * size / 1e6,
        error=0.5 if size else 0.0,
        samples=100,
        deadline=60.0,
        accepted=bool(size),
        late=False,
    )
    return replace(usual, **changes)


def frame(line: str) -> bytes:
    """The frame of an ordinary update."""
    return Codec.parse(line).encode(update(1), SCHEMA, key=1, round=1, client=2).frame


def rounds(policy: Policy[Any], shared: Numbers = NOTHING) -> list[tuple[str, ...]]:
    """What a cohort decides over some rounds, loss falling, each told what the server says; a trace to compare."""
    states: dict[int, Numbers] = {}
    trace: list[tuple[str, ...]] = []
    for round_ in range(1, ROUNDS + 1):
        present = cohort(round_, states)
        plan, shared = policy.plan(shared, present)
        _plain(shared, "what `plan` remembers")
        reports = []
        for member in present.members:
            told = plan.get(member.client, NOTHING)
            _plain(told, "what `plan` tells a client")
            seen = observation(
                policy,
                round=round_,
                client=member.client,
                samples=member.samples,
                uplink=member.uplink,
                update=update(round_ * CLIENTS + member.client, 1e-3 / round_),
                loss=2.0 / round_,
                told=told,
            )
            state = policy.initial() if member.state is None else policy.load(member.state)
            decision, state = policy.decide(state, seen)
            after = outcome(round_, decision, samples=member.samples)
            states[member.client] = policy.dump(policy.learn(state, after))
            used = decision.codec is not None
            reports.append(
                Report(
                    member.client, member.samples, 2.0 / round_, decision, after.bytes, after.seconds, after.turn, used
                )
            )
            trace.append((f"{round_}", f"{member.client}", f"{decision}"))
        shared = policy.review(shared, Closed(round_, 10.0 + round_, tuple(reports), 0.1 / round_, 0.1 / round_))
        _plain(shared, "what `review` remembers")
    return trace


def _plain(numbers: Numbers, what: str) -> None:
    for name, value in numbers.items():
        expect(
            isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value),
            f"{what} must be finite numbers by name, got {name!r}: {value!r}",
        )


def decides_in_every_situation(subject: Subject) -> None:
    """In every situation there is a decision whose codec can encode, or a skip, each with its reason."""
    for situation, seen in extremes(subject.policy):
        decision, _ = subject.policy.decide(subject.policy.initial(), seen)
        expect(bool(decision.reason.strip()), f"{situation}: the decision gives no reason")
        if decision.codec is None:
            expect((decision.bits, decision.density) == (0, 0), f"{situation}: a skip has 0 bits and density 0")
            continue
        frame(decision.codec)
        expect(0 < decision.density <= 1, f"{situation}: density must be in (0, 1], got {decision.density}")
        expect(0 < decision.bits <= 64, f"{situation}: bits must be in (0, 64], got {decision.bits}")
        for name in ("predicted_bytes", "predicted_seconds", "predicted_error"):
            value = getattr(decision, name)
            expect(value is None or 0 <= value < math.inf, f"{situation}: {name} must be finite, got {value}")


def deciding_is_pure(subject: Subject) -> None:
    """The same state and observation give the same decision and state, and rounds repeat bit for bit."""
    policy = subject.policy
    for situation, seen in extremes(policy):
        state = policy.initial()
        before = policy.dump(state)
        one, after = policy.decide(state, seen)
        other, again = policy.decide(policy.load(before), seen)
        expect(one == other, f"{situation}: decided {one}, then {other}")
        expect(_same(policy.dump(after), policy.dump(again)), f"{situation}: two states after one decision")
        expect(_same(policy.dump(state), before), f"{situation}: `decide` changed the state it was given")
    expect(rounds(policy) == rounds(policy), "the same rounds gave other decisions the second time")


def states_survive_checkpoints(subject: Subject) -> None:
    """A state dumps to plain numbers, which come back from JSON to a state that decides alike."""
    policy = subject.policy
    state = policy.initial()
    for round_ in range(1, 4):
        decision, state = policy.decide(state, observation(policy, round=round_, update=update(round_)))
        state = policy.learn(state, outcome(round_, decision))
        numbers = policy.dump(state)
        _plain(numbers, "`dump`")
        back = policy.load(json.loads(json.dumps(numbers)))
        expect(_same(policy.dump(back), numbers), f"{numbers} came back from a checkpoint as {policy.dump(back)}")
        seen = observation(policy, round=round_ + 1, update=update(9))
        expect(policy.decide(back, seen)[0] == policy.decide(state, seen)[0], "a restored state decides otherwise")


def learning_takes_whatever_happens(subject: Subject) -> None:
    """Every outcome can be learnt from: used, late, lost, broken off, skipped."""
    policy = subject.policy
    decision, state = policy.decide(policy.initial(), observation(policy))
    happenings: dict[str, dict[str, Any]] = {
        "late": {"accepted": False, "late": True, "seconds": 1e5, "turn": 1e5},
        "lost before a byte was sent": {"bytes": 0, "seconds": 0.0, "latency": 0.0, "accepted": False},
        "broken off": {"bytes": 1, "seconds": 0.5, "latency": 0.0, "accepted": False},
        "instantaneous": {"seconds": 0.0, "latency": 0.0, "turn": 0.0},
        "an error beyond all": {"error": 1e9},
        "no deadline": {"deadline": None},
    }
    for what, changes in happenings.items():
        learnt = policy.learn(state, outcome(1, decision, **changes))
        _plain(policy.dump(learnt), f"after an upload that was {what}, `dump`")
        policy.decide(learnt, observation(policy, round=2))


def works_without_a_word_from_the_server(subject: Subject) -> None:
    """A client that was told nothing decides all the same, and an empty cohort can be planned for and reviewed."""
    policy = subject.policy
    policy.decide(policy.initial(), observation(policy, told=NOTHING))
    plan, shared = policy.plan(NOTHING, Cohort(1, (), SCHEMA.size, None))
    expect(not plan, f"there is nobody to tell anything, got {plan}")
    _plain(policy.review(shared, Closed(1, 600.0, (), 0.0, 0.0)), "what `review` remembers")


def the_server_remembers_little(subject: Subject) -> None:
    """What the server's side remembers does not grow with the rounds."""
    policy, sizes = subject.policy, []
    shared: Numbers = NOTHING
    for round_ in range(1, 61):
        plan, shared = policy.plan(shared, cohort(round_, {}))
        decision, _ = policy.decide(policy.initial(), observation(policy, told=plan.get(0, NOTHING)))
        report = Report(0, 100, 1.0 / round_, decision, 1000, 1.0, 3.0, True)
        shared = policy.review(shared, Closed(round_, 10.0, (report,), 0.1, 0.1))
        sizes.append(len(shared))
    expect(sizes[-1] <= max(sizes[19], 512), f"it remembers {sizes[19]} numbers after 20 rounds, {sizes[-1]} after 60")


def _same(one: Numbers, other: Numbers) -> bool:
    """Equal, with NaN equal to itself."""
    return json.dumps(dict(one), sort_keys=True) == json.dumps(dict(other), sort_keys=True)


CHECKS: tuple[Callable[[Subject], None], ...] = (
    decides_in_every_situation,
    deciding_is_pure,
    states_survive_checkpoints,
    learning_takes_whatever_happens,
    works_without_a_word_from_the_server,
    the_server_remembers_little,
)


def verdicts(subject: Subject) -> list[Verdict]:
    """Run every check on a subject."""
    return judged(CHECKS, subject, PolicyError)
