"""The server's turn: who takes part, what they are sent, when the round closes, and the next model.

Synchronous rounds with FedAvg weights (McMahan et al. 2017, algorithm 1) and a server learning rate (Reddi et al.
2021, algorithm 1). With EF21 the server steps by the mean of all clients' shifts in every round, whoever took part.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic

import numpy as np

from tightwire.arrays import Flat, Sums
from tightwire.codecs.sums import norms
from tightwire.devices.clock import Arrival, Closing, close_round
from tightwire.devices.energy import drain
from tightwire.federation.aggregate import FixedPoint
from tightwire.federation.book import book
from tightwire.federation.combine import Combined, gathered, recent_norms, summed
from tightwire.federation.digest import extend
from tightwire.federation.downlink import NEVER
from tightwire.federation.intake import intake
from tightwire.federation.invite import Invited, invite
from tightwire.federation.passage import passages
from tightwire.federation.pool import Handle, Pool
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord, Status
from tightwire.federation.robust import Gathering
from tightwire.federation.state import ClientRecord, ServerSetup, ServerState
from tightwire.federation.tasks import Broadcast, ClientReport, Fate
from tightwire.federation.turn import ended
from tightwire.policies.base import Closed, Outcome, Report
from tightwire.wire.authentication import TAG, Gate


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a closed round adds to the run's tables."""

    record: RoundRecord
    ledger: tuple[LedgerRow, ...]
    decisions: tuple[DecisionRow, ...]


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
        cohort = invite(setup, self._eligible, state, public, self._whole)
        weight = sum(int(setup.sizes[task.client]) for task in cohort.tasks)
        if setup.accumulates:
            weight = int(setup.sizes.sum())
        spare = max(0, len(cohort.tasks) - setup.participation.cohort)
        bounds, gather = setup.rules.bounds(state.norms), setup.rules.gathers(state.norms)
        broadcast = Broadcast(state.round, public.model, weight, spare, state.clock, bounds=bounds, gather=gather)
        fixed = FixedPoint.for_weight(weight)
        total = fixed.zeros(public.model.size)
        owed = {task.client: state.memories[task.client] for task in cohort.tasks if task.client in state.memories}
        if setup.ranges is not None:
            offers = [offer for share in self._pool.offers(broadcast, cohort.tasks, owed) for offer in share]
            opened = None if setup.keys is None else Gate(setup.keys, state.round).open
            agreement = setup.ranges.agree(offers, fixed, round=state.round, deadline=setup.deadline, opened=opened)
            broadcast = replace(broadcast, agreement=agreement)
        reports: dict[int, ClientReport] = {}
        reserve: dict[int, bytes] = {}
        offered: dict[int, Handle] = {}
        for result, memories in self._pool.run(broadcast, cohort.tasks, owed):
            total += result.total
            reports.update((report.client, report) for report in result.reports)
            reserve.update(result.reserve)
            offered.update(memories)
        reports = self._ended(state.clock, cohort, dict(sorted(reports.items())), state.round)

        taking_part = [report for report in reports.values() if report.fate not in _SILENT]
        wanted = min(setup.participation.cohort, len(taking_part))
        arrivals = [Arrival(report.client, report.passage.arrival) for report in taking_part]
        arrivals_fp32 = [Arrival(report.client, report.passage_fp32.arrival) for report in reports.values()]
        closing = close_round(arrivals, wanted=wanted, deadline=setup.deadline)
        closing_fp32 = close_round(
            arrivals_fp32, wanted=min(setup.participation.cohort, len(reports)), deadline=setup.deadline
        )
        patient = close_round(arrivals_fp32, wanted=len(closing.accepted), deadline=None)
        seconds = closing.seconds
        if len(closing.accepted) < setup.participation.cohort:  # the server has to hear from everybody
            answers = [report.answered for report in reports.values() if report.fate in ("skipped", "refused")]
            limit = math.inf if setup.deadline is None else setup.deadline
            if not closing.accepted:  # or the clock might stand still, and the same clients break off for ever
                answers += [_turn(report) for report in reports.values() if report.fate == "lost"]
            seconds = max([seconds, *(min(answer, limit) for answer in answers)])
        if broadcast.agreement is not None:
            seconds = max(seconds, broadcast.agreement.seconds)
        if not cohort.tasks:
            seconds = NOBODY
        statuses = {client: _status(report, closing) for client, report in reports.items()}
        used = [client for client, status in statuses.items() if status == "used"]
        combined = self._combined(
            state, broadcast, {client: reserve[client] for client in used if client in reserve}, reports, statuses
        )
        reports, statuses = _rejected(reports, statuses, combined.refused)
        used = [client for client in used if client not in combined.refused]
        if combined.total is not None:
            total += combined.total
        skipped = [client for client, status in statuses.items() if status == "skipped"]
        shifts = None
        if setup.accumulates:
            shifts = total = _accumulated(state.shifts, total)
        else:
            weight = sum(int(setup.sizes[client]) for client in used)
        update = combined.update
        if not setup.rules.aggregator.gathers:
            update = fixed.mean(total, weight) if weight else None
        model = state.model if update is None else state.model + np.float32(setup.lr) * update

        ledger, decisions = book(
            state.round,
            cohort,
            reports,
            statuses,
            tier=lambda client: setup.population.profile(client, setup.seed).tier,
            resent=setup.turns.resent,
            bytes_fp32=setup.fp32_bytes,
            tag=0 if setup.keys is None else TAG,
        )
        closed = self._closed(state, model, update if used else None, reports, statuses, seconds)
        after: ServerState[Handle] = ServerState(
            round=state.round + 1,
            model=model,
            public=public,
            clock=state.clock + seconds,
            clock_fp32=state.clock_fp32 + max(closing_fp32.seconds, patient.seconds),
            clients={**state.clients, **self._carry(state, cohort, reports, statuses, public.version, seconds)},
            memories=_kept(state.memories, used, skipped, offered),
            shared=setup.policy.review(cohort.shared, closed),
            shifts=shifts,
            norms=recent_norms(state.norms, _heard(reports, statuses)),
            chain=extend(state.chain, ledger, decisions),
        )
        record = self._record(after, cohort, reports, ledger, statuses, seconds, len(closing_fp32.late))
        return after, RoundResult(record, ledger, decisions)

    def _combined(
        self,
        state: ServerState[Handle],
        broadcast: Broadcast,
        frames: Mapping[int, bytes],
        reports: Mapping[int, ClientReport],
        statuses: Mapping[int, str],
    ) -> Combined:
        """What comes of the frames that hosts sent back, once it is known which of them are in time."""
        setup, rules = self._setup, self._setup.rules
        if rules.adapts and not state.norms:
            broadcast = replace(broadcast, bounds=rules.bounds(recent_norms((), _heard(reports, statuses))))
        door = intake(setup.schema, setup.ranges, broadcast)
        if isinstance(rules.aggregator, Gathering):
            return gathered(rules.aggregator, door, frames, rules.memory)
        return summed(door, frames, setup.sizes)

    def _ended(
        self, clock: float, cohort: Invited, reports: dict[int, ClientReport], round_: int
    ) -> dict[int, ClientReport]:
        """The reports once it is known when uploads arrive, where clients share the server's link."""
        setup = self._setup
        if setup.ingress is None:
            return reports
        tasks = {task.client: task for task in cohort.tasks}
        links = {client: setup.turns.channels(round_, client) for client in reports}
        sending = [report for report in reports.values() if report.sections is not None]
        uploads = [setup.turns.upload(report, tasks[report.client], *links[report.client]) for report in sending]
        found = passages(uploads, clock, setup.ingress)
        shared = {report.client: ended(report, way) for report, way in zip(sending, found, strict=True)}
        whole = [setup.turns.upload_fp32(report, tasks[client], *links[client]) for client, report in reports.items()]
        return {
            client: replace(shared.get(client, report), passage_fp32=way)
            for (client, report), way in zip(reports.items(), passages(whole, clock, setup.ingress), strict=True)
        }

    def _closed(
        self,
        state: ServerState[Handle],
        model: Flat,
        update: Flat | None,
        reports: Mapping[int, ClientReport],
        statuses: Mapping[int, str],
        seconds: float,
    ) -> Closed:
        """What the policy's server side is told."""
        return Closed(
            round=state.round,
            seconds=seconds,
            reports=tuple(
                Report(
                    client=client,
                    samples=int(self._setup.sizes[client]),
                    loss=report.train_loss,
                    decision=report.decision,
                    bytes=report.passage.bytes,
                    upload=report.passage.seconds,
                    turn=_turn(report),
                    used=statuses[client] == "used",
                )
                for client, report in reports.items()
            ),
            step=float(norms(model - state.model, model.size)[0]),
            update=0.0 if update is None else float(norms(update, update.size)[0]),
        )

    def _carry(
        self,
        state: ServerState[Handle],
        cohort: Invited,
        reports: Mapping[int, ClientReport],
        statuses: Mapping[int, str],
        version: int,
        seconds: float,
    ) -> dict[int, ClientRecord]:
        """What each client takes along into later rounds."""
        setup, carried = self._setup, {}
        for task in cohort.tasks:
            report = reports[task.client]
            arrived = report.passage.arrival is not None
            outcome = Outcome(
                round=state.round,
                decision=report.decision,
                bytes=report.passage.bytes,
                seconds=report.passage.seconds,
                latency=setup.population.profile(task.client, setup.seed).rtt / 2 if arrived else 0.0,
                turn=_turn(report),
                error=report.error,
                samples=int(setup.sizes[task.client]),
                deadline=setup.deadline,
                accepted=statuses[task.client] == "used",
                late=statuses[task.client] == "late",
            )
            learnt = setup.policy.learn(setup.policy.load(dict(report.policy)), outcome)
            whole = report.received >= task.bytes_down
            record = state.clients.get(task.client)
            carried[task.client] = ClientRecord(
                version if whole else (NEVER if record is None else record.version),
                drain(cohort.batteries[task.client], min(report.joules + report.passage.joules, task.battery)),
                state.clock + seconds,
                setup.policy.dump(learnt),
            )
        return carried

    def _record(
        self,
        after: ServerState[Handle],
        cohort: Invited,
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
            bytes_resent=sum(row.resent for row in ledger),
            bytes_up_fp32=sum(report.passage_fp32.bytes for report in reports.values()),
            bytes_down_fp32=sum(row.bytes_fp32 for row in down),
            seconds=seconds,
            sim_seconds=after.clock,
            sim_seconds_fp32=after.clock_fp32,
            joules=math.fsum(report.joules + report.passage.joules for report in reports.values()),
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
            rejected=counts["rejected"],
            hostile=sum(self._setup.hostile(client) for client, status in statuses.items() if status == "used"),
            hosts=self._pool.hosts,
        )


def with_wall(result: RoundResult, seconds: float) -> RoundResult:
    """The same round with the wall time that it took; nothing else may depend on it."""
    return replace(result, record=replace(result.record, wall_seconds=seconds))


def _turn(report: ClientReport) -> float:
    """Seconds from the start of the round until a client was through."""
    if report.sections is None:
        return report.answered
    return report.begins + report.passage.seconds


NOBODY = 600.0
"""Seconds that the server waits when it finds no client to train."""
_REFUSALS = ("rejected", "refused")
_SILENT = ("skipped", "refused", "late")
"""Fates of clients of which the server knows that they send no update."""


def _heard(reports: Mapping[int, ClientReport], statuses: Mapping[int, str]) -> list[ClientReport]:
    """Those whose update came in time."""
    return [report for client, report in reports.items() if statuses[client] in ("used", "rejected")]


def _rejected(
    reports: Mapping[int, ClientReport], statuses: Mapping[int, Status | Fate], refused: Mapping[int, str]
) -> tuple[dict[int, ClientReport], dict[int, Status | Fate]]:
    """Reports and statuses after some of those in use had to be refused, each for its reason."""
    told = {client: replace(reports[client], fate="rejected", reason=reason) for client, reason in refused.items()}
    return {**reports, **told}, {**statuses, **dict.fromkeys(refused, "rejected")}


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


def _kept(
    before: Mapping[int, Handle], used: Sequence[int], skipped: Sequence[int], offered: Mapping[int, Handle]
) -> dict[int, Handle]:
    """The memories after a round: new ones, or none, where the update was used or not sent, all others as they were."""
    taken = {*used, *skipped}
    kept = {client: handle for client, handle in before.items() if client not in taken}
    kept.update((client, offered[client]) for client in taken if client in offered)
    return kept


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
