"""The server's turn: who takes part, what they are sent, when the round closes, and the next model.

Synchronous rounds with FedAvg weights (McMahan et al. 2017, algorithm 1) and a server learning rate (Reddi et al.
2021, algorithm 1). With EF21 the server steps by the mean of all clients' shifts in every round, whoever took part.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import numpy as np

from tightwire.arrays import Flat, Ints, Sums
from tightwire.devices.clock import Arrival, Closing, close_round
from tightwire.devices.energy import can_afford, compute_joules, download_joules, drain
from tightwire.devices.memory import refusal
from tightwire.devices.participation import Participation
from tightwire.devices.population import Population
from tightwire.federation.aggregate import FixedPoint
from tightwire.federation.digest import START, extend
from tightwire.federation.downlink import NEVER, Delivery, Downlink, Public
from tightwire.federation.joint import Grids, Ranges, Reals
from tightwire.federation.pool import Handle, Pool
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord, Status
from tightwire.federation.tasks import Broadcast, ClientReport, ClientTask, Exchange, Fate
from tightwire.policies.base import Outcome, Policy
from tightwire.wire.ledger import SECTIONS, Sections
from tightwire.wire.schema import Schema


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """The small part of what a client carries from round to round; what its codec remembers is kept by the pool."""

    version: int = NEVER
    """The public model it holds."""
    battery: float = math.inf
    """Joules left."""
    policy: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class ServerState(Generic[Handle]):
    """Everything the next round depends on; what a checkpoint holds."""

    round: int
    """The round to come, from 1."""
    model: Flat
    public: Public | None = None
    clock: float = 0.0
    """Simulated seconds since the run began."""
    clock_fp32: float = 0.0
    clients: dict[int, ClientRecord] = field(default_factory=dict)
    """Only those that ever took part."""
    memories: dict[int, Handle] = field(default_factory=dict)
    """What clients' codecs and error feedback remember; only of those who remember something."""
    shifts: Sums | None = None
    """Where feedback accumulates: the sum over all clients of samples times shift, fixed point, shape (parameters,)."""
    chain: str = START


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a closed round adds to the run's tables."""

    record: RoundRecord
    ledger: tuple[LedgerRow, ...]
    decisions: tuple[DecisionRow, ...]


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """What the server needs to know, all of it fixed for the run."""

    seed: int
    schema: Schema
    sizes: Ints
    """Samples of each client, shape (clients,)."""
    participation: Participation
    population: Population
    policy: Policy[Any]
    downlink: Downlink
    ranges: Ranges | None
    """What clients agree on before they send; None for nothing."""
    accumulates: bool
    """Whether updates are changes of shifts, and the server steps by the mean of all clients' shifts (EF21)."""
    deadline: float | None
    lr: float
    memory_needed: Callable[[int], int]
    """Samples of a client -> bytes that training takes on its device."""
    flops_per_sample: float
    """FLOPs to train on one sample over all local epochs."""
    fp32_bytes: int
    """Exact length of a frame under the codec ``none``."""
    evaluate: Callable[[int, Flat], tuple[float, float] | None]
    """(round, model) -> (test loss, test accuracy), or None in rounds without evaluation."""


@dataclass(slots=True)
class _Cohort:
    """The clients of one round, before it closes."""

    tasks: list[ClientTask]
    deliveries: dict[int, Delivery]
    refused: dict[str, int]
    selected: int


class Server(Generic[Handle]):
    """Runs rounds on a pool; all of its state is in the `ServerState` that goes in and comes out."""

    def __init__(self, setup: ServerSetup, pool: Pool[Handle]) -> None:
        self._setup = setup
        self._pool = pool
        self._eligible = np.flatnonzero(setup.sizes > 0)
        self._whole = setup.downlink.whole()

    def step(self, state: ServerState[Handle]) -> tuple[ServerState[Handle], RoundResult]:
        """One round."""
        setup = self._setup
        public = setup.downlink.publish(state.public, state.model, self._whole)
        cohort = self._invite(state, public)
        weight = sum(int(setup.sizes[task.client]) for task in cohort.tasks)
        if setup.accumulates:
            weight = int(setup.sizes.sum())
        spare = max(0, len(cohort.tasks) - setup.participation.cohort)
        broadcast = Broadcast(state.round, public.model, weight, spare)
        fixed = FixedPoint.for_weight(weight)
        total = fixed.zeros(public.model.size)
        owed = {task.client: state.memories[task.client] for task in cohort.tasks if task.client in state.memories}
        if setup.ranges is not None:
            offers = [offer for share in self._pool.offers(broadcast, cohort.tasks, owed) for offer in share]
            agreement = setup.ranges.agree(offers, fixed, round=state.round, deadline=setup.deadline)
            broadcast = replace(broadcast, agreement=agreement)
        reports: dict[int, ClientReport] = {}
        reserve: dict[int, bytes] = {}
        offered: dict[int, Handle] = {}
        for result, memories in self._pool.run(broadcast, cohort.tasks, owed):
            total += result.total
            reports.update((report.client, report) for report in result.reports)
            reserve.update(result.reserve)
            offered.update(memories)
        reports = dict(sorted(reports.items()))

        taking_part = [report for report in reports.values() if report.fate not in _SILENT]
        wanted = min(setup.participation.cohort, len(taking_part))
        arrivals = [Arrival(report.client, report.arrival) for report in taking_part]
        arrivals_fp32 = [Arrival(report.client, report.arrival_fp32) for report in reports.values()]
        closing = close_round(arrivals, wanted=wanted, deadline=setup.deadline)
        closing_fp32 = close_round(
            arrivals_fp32, wanted=min(setup.participation.cohort, len(reports)), deadline=setup.deadline
        )
        patient = close_round(arrivals_fp32, wanted=len(closing.accepted), deadline=None)
        seconds = closing.seconds
        if len(closing.accepted) < setup.participation.cohort:  # the server has to hear from everybody
            answers = [report.answered for report in reports.values() if report.fate in ("skipped", "refused")]
            limit = math.inf if setup.deadline is None else setup.deadline
            seconds = max([seconds, *(min(answer, limit) for answer in answers)])
        if broadcast.agreement is not None:
            seconds = max(seconds, broadcast.agreement.seconds)
        statuses = {client: _status(report, closing) for client, report in reports.items()}
        used = [client for client, status in statuses.items() if status == "used"]
        total += self._reserved(broadcast, fixed, {client: reserve[client] for client in used if client in reserve})
        shifts = None
        if setup.accumulates:
            shifts = total = _accumulated(state.shifts, total)
        else:
            weight = sum(int(setup.sizes[client]) for client in used)
        model = self._next_model(state.model, fixed, total, weight)

        ledger, decisions = self._book(state.round, cohort, reports, statuses)
        after: ServerState[Handle] = ServerState(
            round=state.round + 1,
            model=model,
            public=public,
            clock=state.clock + seconds,
            clock_fp32=state.clock_fp32 + max(closing_fp32.seconds, patient.seconds),
            clients={**state.clients, **self._carry(state, cohort, reports, statuses, public.version)},
            memories=_kept(state.memories, used, offered),
            shifts=shifts,
            chain=extend(state.chain, ledger, decisions),
        )
        record = self._record(after, cohort, reports, ledger, statuses, seconds, len(closing_fp32.late))
        return after, RoundResult(record, ledger, decisions)

    def _invite(self, state: ServerState[Handle], public: Public) -> _Cohort:
        """Select a cohort; those who cannot take part say so before anything is sent."""
        setup = self._setup
        selected = setup.participation.select(self._eligible, state.round, setup.seed)
        cohort = _Cohort([], {}, {}, len(selected))
        for client in selected:
            profile = setup.population.profile(client, setup.seed)
            record = state.clients.get(client) or ClientRecord(battery=profile.battery)
            delivery = setup.downlink.deliver(public, record.version, self._whole)
            bytes_down = delivery.sections.total
            flops = setup.flops_per_sample * int(setup.sizes[client])
            joules = download_joules(bytes_down, profile) + compute_joules(flops, profile)
            reason = refusal(profile, setup.memory_needed(int(setup.sizes[client])))
            if reason is None and not can_afford(record.battery, joules):
                reason = "battery"
            if reason is not None:
                cohort.refused[reason] = cohort.refused.get(reason, 0) + 1
                continue
            drops = setup.participation.drops(client, state.round, setup.seed)
            cohort.tasks.append(ClientTask(client, bytes_down, drops, record.battery, record.policy))
            cohort.deliveries[client] = delivery
        return cohort

    def _reserved(self, broadcast: Broadcast, fixed: FixedPoint, frames: Mapping[int, bytes]) -> Sums:
        """The sum of the updates that hosts sent back unsummed."""
        setup, agreement = self._setup, broadcast.agreement
        sums: Reals | Grids = Reals(setup.schema, fixed, broadcast.round)
        if setup.ranges is not None and agreement is not None:
            sums = Grids(setup.ranges, agreement.steps, fixed, broadcast.round)
        total = fixed.zeros(setup.schema.size)
        for client, frame in frames.items():
            sums.add(total, sums.take(frame, client), int(setup.sizes[client]))
        sums.conclude(total)
        return total

    def _next_model(self, model: Flat, fixed: FixedPoint, total: Sums, weight: int) -> Flat:
        """x_{t+1} = x_t + lr * weighted mean of the updates in use, or with EF21 of all clients' shifts."""
        return model + np.float32(self._setup.lr) * fixed.mean(total, weight) if weight else model

    def _carry(
        self,
        state: ServerState[Handle],
        cohort: _Cohort,
        reports: Mapping[int, ClientReport],
        statuses: Mapping[int, str],
        version: int,
    ) -> dict[int, ClientRecord]:
        """What each client takes along into later rounds."""
        carried = {}
        for task in cohort.tasks:
            report = reports[task.client]
            policy = report.policy
            if report.sections is not None:
                outcome = Outcome(
                    round=state.round,
                    decision=report.decision,
                    bytes=report.sections.total,
                    seconds=report.upload_seconds,
                    latency=self._setup.population.profile(task.client, self._setup.seed).rtt / 2,
                    accepted=statuses[task.client] == "used",
                    late=statuses[task.client] == "late",
                )
                learnt = self._setup.policy.learn(self._setup.policy.load(dict(policy)), outcome)
                policy = self._setup.policy.dump(learnt)
            carried[task.client] = ClientRecord(version, drain(task.battery, report.joules), policy)
        return carried

    def _book(
        self, round_: int, cohort: _Cohort, reports: Mapping[int, ClientReport], statuses: Mapping[int, str]
    ) -> tuple[tuple[LedgerRow, ...], tuple[DecisionRow, ...]]:
        ledger: list[LedgerRow] = []
        decisions: list[DecisionRow] = []
        for client, report in reports.items():
            tier = self._setup.population.profile(client, self._setup.seed).tier
            status = statuses[client]

            delivery = cohort.deliveries[client]
            common = {"round": round_, "client": client, "tier": tier}
            ledger.append(
                _row(
                    delivery.sections,
                    **common,
                    bytes_fp32=self._setup.fp32_bytes,
                    direction="down",
                    codec=delivery.codec,
                    status="used",
                    seconds=report.download_seconds,
                    joules=report.download_joules,
                    frames=delivery.frames,
                )
            )
            if report.exchange is not None:
                ledger.extend(self._exchanged(report.exchange, common))
            if report.sections is not None:
                ledger.append(
                    _row(
                        report.sections,
                        **common,
                        bytes_fp32=self._setup.fp32_bytes,
                        direction="up",
                        codec=report.decision.codec or "",
                        status=status,
                        seconds=report.upload_seconds,
                        joules=report.upload_joules,
                    )
                )
            decision = report.decision
            decisions.append(
                DecisionRow(
                    round=round_,
                    client=client,
                    tier=tier,
                    codec=decision.codec or "",
                    bits=decision.bits,
                    density=decision.density,
                    reason=decision.reason,
                    predicted_bytes=decision.predicted_bytes,
                    predicted_seconds=decision.predicted_seconds,
                    predicted_error=decision.predicted_error,
                    bytes=report.sections.total if report.sections is not None else 0,
                    seconds=report.upload_seconds,
                    error=report.error,
                    status=status,
                )
            )
        return tuple(ledger), tuple(decisions)

    def _exchanged(self, exchange: Exchange, common: Mapping[str, Any]) -> Iterator[LedgerRow]:
        """What agreeing on ranges costs one client; without compression there would be nothing of it."""
        told = {**common, "codec": "range", "bytes_fp32": 0}
        yield _row(
            exchange.sent,
            **told,
            direction="up",
            status=exchange.status,
            seconds=exchange.sent_seconds,
            joules=exchange.sent_joules,
        )
        if exchange.answer is not None:
            yield _row(
                exchange.answer,
                **told,
                direction="down",
                status="used",
                seconds=exchange.answer_seconds,
                joules=exchange.answer_joules,
            )

    def _record(
        self,
        after: ServerState[Handle],
        cohort: _Cohort,
        reports: Mapping[int, ClientReport],
        ledger: tuple[LedgerRow, ...],
        statuses: Mapping[int, str],
        seconds: float,
        late_fp32: int,
    ) -> RoundRecord:
        number = after.round - 1
        evaluation = self._setup.evaluate(number, after.model)
        loss, accuracy = evaluation if evaluation is not None else (None, None)
        up = [row for row in ledger if row.direction == "up"]
        down = [row for row in ledger if row.direction == "down"]
        sent = [report for report in reports.values() if report.sections is not None]
        counts = Counter(statuses.values())
        refused = Counter(cohort.refused)
        refused.update(report.reason for report in reports.values() if statuses[report.client] in _REFUSALS)
        return RoundRecord(
            round=number,
            accuracy=accuracy,
            loss=loss,
            train_loss=_mean([report.train_loss for report in reports.values()]) if reports else None,
            bytes_up=sum(row.bytes for row in up),
            bytes_down=sum(row.bytes for row in down),
            bytes_wasted=sum(row.bytes for row in up if row.status != "used"),
            bytes_up_fp32=len(reports) * self._setup.fp32_bytes,
            bytes_down_fp32=sum(row.bytes_fp32 for row in down),
            seconds=seconds,
            sim_seconds=after.clock,
            sim_seconds_fp32=after.clock_fp32,
            joules=math.fsum(report.joules for report in reports.values()),
            mean_bits=_mean([report.decision.bits for report in sent]),
            mean_density=_mean([report.decision.density for report in sent]),
            cohort=cohort.selected,
            participants=counts["used"],
            late=counts["late"],
            late_fp32=late_fp32,
            surplus=counts["surplus"],
            lost=counts["lost"],
            skipped=counts["skipped"],
            refused=dict(sorted(refused.items())),
            hosts=self._pool.hosts,
        )


def with_wall(result: RoundResult, seconds: float) -> RoundResult:
    """The same round with the wall time that it took; nothing else may depend on it."""
    return replace(result, record=replace(result.record, wall_seconds=seconds))


_REFUSALS = ("rejected", "refused")
_SILENT = ("skipped", "refused", "late")
"""Fates of clients of which the server knows that they send no update."""


def _row(sections: Sections, **rest: Any) -> LedgerRow:  # Any: the remaining fields, checked by the record
    parts = {name: getattr(sections, name) for name in SECTIONS}
    return LedgerRow(bytes=sections.total, **parts, **rest)


def _accumulated(before: Sums | None, change: Sums) -> Sums:
    """The sum of shifts after a round; it saturates rather than overflow."""
    limit = 2**62 - 1
    return change if before is None else np.clip(before + np.clip(change, -limit, limit), -limit, limit)


def _status(report: ClientReport, closing: Closing) -> Status | Fate:
    """What became of a client's upload, once the round has closed."""
    if report.fate not in ("arrives", "rejected"):
        return report.fate
    if report.client in closing.late:
        return "late"
    if report.client in closing.surplus:
        return "surplus"
    return "rejected" if report.fate == "rejected" else "used"


def _kept(before: Mapping[int, Handle], used: Sequence[int], offered: Mapping[int, Handle]) -> dict[int, Handle]:
    """The memories after a round: new ones, or none, where the update was used, and all others as they were."""
    taken = set(used)
    kept = {client: handle for client, handle in before.items() if client not in taken}
    kept.update((client, offered[client]) for client in used if client in offered)
    return kept


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
