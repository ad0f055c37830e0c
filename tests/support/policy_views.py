"""What policies are shown, for their tests: an ordinary observation, cohort and closed round, to be changed in part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tightwire.arrays import Flat
from tightwire.keys import generator
from tightwire.policies.base import (
    NOTHING,
    Alone,
    Closed,
    Cohort,
    Decision,
    Member,
    Numbers,
    Observation,
    Outcome,
    Report,
)
from tightwire.wire.schema import Schema, TensorSpec

SCHEMA = Schema((TensorSpec("w", (64, 60)), TensorSpec("b", (60,)), TensorSpec("v", (60, 10)), TensorSpec("c", (10,))))
UPDATE: Flat = (generator(0, "test").laplace(size=SCHEMA.size) * 1e-3).astype(np.float32)
DECISION = Decision(codec="uniform(4)", bits=4.0, density=1.0, reason="test")


def observed(vector: Flat = UPDATE, **changes: Any) -> Observation:  # Any: fields of an observation
    """An observation of `vector`, ordinary but for `changes`."""
    usual = Observation(
        round=3,
        client=7,
        tier="phone",
        samples=100,
        loss=1.0,
        schema=SCHEMA,
        vector=lambda: vector,
        deadline=60.0,
        downloaded=1.0,
        computed=19.0,
        elapsed=20.0,
        uplink=1e6,
        latency=0.05,
        encoding=lambda line: 0.01,  # noqa: ARG005 - the same for all lines
        workspace=lambda line: 1e5,  # noqa: ARG005 - likewise
        memory=1e9,
        energy=math.inf,
        joules_per_byte=1e-6,
        joules_per_upload=0.0,
        residual=lambda: 0.0,
        told=NOTHING,
    )
    return replace(usual, **changes)


def member(client: int, **changes: Any) -> Member:  # Any: fields of a member
    """A newcomer, ordinary but for `changes`."""
    usual = Member(
        client=client,
        tier="phone",
        samples=100,
        uplink=1e6,
        latency=0.05,
        download=1.0,
        compute=19.0,
        state=None,
    )
    return replace(usual, **changes)


def cohort(members: Sequence[Member], *, round: int = 1) -> Cohort:
    """A cohort of these members."""
    return Cohort(round=round, members=tuple(members), parameters=SCHEMA.size, deadline=60.0)


def closed(losses: Sequence[float], *, round: int = 1, seconds: float = 10.0, update: float = 1.0) -> Closed:
    """A round of as many clients as losses, of 100 samples each."""
    reports = tuple(
        Report(
            client=client,
            samples=100,
            loss=loss,
            decision=DECISION,
            bytes=1000,
            upload=1.0,
            turn=5.0,
            used=True,
        )
        for client, loss in enumerate(losses)
    )
    return Closed(round=round, seconds=seconds, reports=reports, step=update, update=update)


def outcome(decision: Decision, size: int, seconds: float) -> Outcome:
    """An upload of `size` bytes that took `seconds`, latency of 0.05 s included."""
    return Outcome(
        round=3,
        decision=decision,
        bytes=size,
        seconds=seconds,
        latency=0.05,
        turn=20 + seconds,
        error=0.01,
        samples=100,
        deadline=60.0,
        accepted=True,
        late=False,
    )


def after(policy: Alone, losses: Sequence[float], **changes: Any) -> Numbers:  # Any: of a closed round
    """What the server remembers after rounds of these losses."""
    shared: Numbers = {}
    for number, loss in enumerate(losses, start=1):
        shared = policy.review(shared, closed([loss], round=number, **changes))
    return shared


def told_to_all(plan: Mapping[int, Numbers], name: str) -> list[float]:
    """One number of each client's, by client."""
    return [plan[client][name] for client in sorted(plan)]
