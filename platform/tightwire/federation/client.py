"""One client's turn, and a share of turns: receive, train, decide, encode, send; then the server's check and sum.

The same code runs in process and inside every client host.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode, fp32_frame_length
from tightwire.devices.clock import Turn, codec_seconds, compute_seconds
from tightwire.devices.energy import compute_joules, download_joules, upload_joules
from tightwire.devices.links import Link, transfer_seconds
from tightwire.devices.population import Population, Profile
from tightwire.errors import CodecError, FrameError, LedgerError
from tightwire.federation.aggregate import FixedPoint, check
from tightwire.federation.tasks import Broadcast, ClientReport, ClientTask, ShareResult
from tightwire.keys import key
from tightwire.learning.cost import TrainingCost
from tightwire.learning.flat import FlatModel
from tightwire.learning.samples import FederatedData
from tightwire.learning.training import Job, Trained, Training
from tightwire.policies.base import Decision, Observation, Policy
from tightwire.policies.stats import UpdateStats
from tightwire.wire.ledger import Sections

Trainer = Callable[..., Iterator[Trained]]
"""`learning.training.train`, or something of its signature that stands in for it."""


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """All that clients have in common; built once for each host."""

    seed: int
    model: FlatModel
    data: FederatedData
    training: Training
    trainer: Trainer
    cost: TrainingCost
    population: Population
    link: Link
    policy: Policy[Any]
    feedback: Literal["none", "classic"]
    deadline: float | None


@dataclass(frozen=True, slots=True)
class _Sent:
    """One upload, as both of its ends know it."""

    sections: Sections
    frame: bytes
    decoded: Flat
    passes: float
    error: float
    residual: Flat
    rejected: str | None
    """Why the server refuses what it decoded, or None."""


class ClientRunner:
    """Carries out shares of turns; holds nothing that changes from call to call but caches."""

    def __init__(self, setup: ClientSetup) -> None:
        self._setup = setup
        self._fp32 = fp32_frame_length(setup.model.schema)

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], residuals: Mapping[int, Flat]
    ) -> tuple[ShareResult, dict[int, Flat]]:
        """Carry out `tasks`; see `Pool.run`."""
        setup = self._setup
        fixed = FixedPoint.for_weight(broadcast.weight)
        total = fixed.zeros(broadcast.model.size)
        summed: list[int] = []
        reports: list[ClientReport] = []
        new_residuals: dict[int, Flat] = {}
        slowest: list[tuple[float, int, _Sent]] = []

        def add(client: int, sent: _Sent) -> None:
            fixed.add(total, sent.decoded, int(setup.data.sizes[client]))
            summed.append(client)

        trained = setup.trainer(
            setup.model,
            broadcast.model,
            self._jobs(tasks),
            setup.training,
            round=broadcast.round,
            seed=setup.seed,
        )
        for task, result in zip(tasks, trained, strict=True):
            report, sent = self._turn(broadcast.round, task, result, residuals.get(task.client))
            reports.append(report)
            if sent is None:
                continue
            if setup.feedback == "classic":
                new_residuals[task.client] = sent.residual
            if report.arrival is None or (setup.deadline is not None and report.arrival > setup.deadline):
                continue
            heapq.heappush(slowest, (report.arrival, task.client, sent))
            if len(slowest) > broadcast.spare:
                _, client, certain = heapq.heappop(slowest)
                add(client, certain)
        reserve = {client: sent.frame for _, client, sent in slowest}
        return ShareResult(total, tuple(summed), tuple(reports), reserve), new_residuals

    def _jobs(self, tasks: Iterable[ClientTask]) -> Iterator[Job]:
        for task in tasks:
            x, y = self._setup.data.shard(task.client)
            yield Job(task.client, x, y)

    def _turn(
        self, round_: int, task: ClientTask, trained: Trained, residual: Flat | None
    ) -> tuple[ClientReport, _Sent | None]:
        setup = self._setup
        profile = setup.population.profile(task.client, setup.seed)
        rates = setup.link.rates(profile, round=round_, client=task.client, seed=setup.seed)
        flops = setup.cost.flops_per_sample * trained.samples * setup.training.epochs
        latency = profile.rtt / 2
        download = transfer_seconds(task.bytes_down, rates.down, latency)
        compute = compute_seconds(flops, profile)
        update = trained.update if residual is None else trained.update + residual

        rejected: str | None = None
        sent: _Sent | None = None
        state = setup.policy.initial() if task.policy is None else setup.policy.load(dict(task.policy))
        decision = Decision(codec=None, bits=0.0, density=0.0, reason="update is not finite")
        if bool(np.isfinite(update).all()):
            seen = self._observe(round_, task, trained, update, profile, download + compute)
            decision, state = setup.policy.decide(state, seen)
            if decision.codec is not None:
                try:
                    sent = self._send(decision.codec, update, round_, task.client)
                    rejected = sent.rejected
                except CodecError:
                    rejected = "cannot be encoded"
        else:
            rejected = "non-finite"

        down_joules = download_joules(task.bytes_down, profile)
        up_joules, upload, arrival = 0.0, 0.0, None
        if sent is not None:
            up_joules = upload_joules(len(sent.frame), profile)
            upload = transfer_seconds(len(sent.frame), rates.up, latency)
            turn = Turn(download, compute, codec_seconds(update.size, sent.passes, profile), upload)
            arrival = None if task.drops or rejected is not None else turn.total
        turn_fp32 = Turn(
            download=transfer_seconds(self._fp32, rates.down, latency),
            compute=compute,
            codec=0.0,
            upload=transfer_seconds(self._fp32, rates.up, latency),
        )
        report = ClientReport(
            client=task.client,
            decision=decision,
            policy=setup.policy.dump(state),
            train_loss=trained.loss,
            sections=None if sent is None else sent.sections,
            error=0.0 if sent is None else sent.error,
            download_seconds=download,
            upload_seconds=upload,
            arrival=arrival,
            arrival_fp32=None if task.drops else turn_fp32.total,
            joules=down_joules + compute_joules(flops, profile) + up_joules,
            download_joules=down_joules,
            upload_joules=up_joules,
            rejected=rejected,
        )
        return report, sent if rejected is None else None

    def _observe(
        self, round_: int, task: ClientTask, trained: Trained, update: Flat, profile: Profile, elapsed: float
    ) -> Observation:
        return Observation(
            round=round_,
            client=task.client,
            tier=profile.tier,
            samples=trained.samples,
            loss=trained.loss,
            stats=UpdateStats.of(update, self._setup.model.schema),
            deadline=self._setup.deadline,
            elapsed=elapsed,
            uplink=profile.uplink,
            latency=profile.rtt / 2,
            codec_seconds=codec_seconds(1, 1, profile),
            energy=task.battery,
            joules_per_byte=profile.joules_per_byte_up,
        )

    def _send(self, line: str, update: Flat, round_: int, client: int) -> _Sent:
        """Encode, and decode as the server will; one decoding serves the residual and the sum."""
        schema = self._setup.model.schema
        codec = Codec.parse(line)
        encoded = codec.encode(
            update,
            schema,
            key=key(self._setup.seed, "codec", round=round_, client=client),
            round=round_,
            client=client,
        )
        if encoded.sections.total != len(encoded.frame):
            raise LedgerError(
                f"round {round_}, client {client}: the sections of a `{line}` frame add up to {encoded.sections.total} "
                f"bytes, but the frame has {len(encoded.frame)}"
            )
        rejected = None
        try:
            decoded = decode(encoded.frame, schema, round=round_, client=client)
            check(decoded)
        except FrameError as refusal:
            decoded, rejected = np.zeros_like(update), refusal.reason
        residual = np.empty_like(update)
        lost, norm = _subtract(update, decoded, residual)
        error = lost / norm if norm > 0 else 0.0
        return _Sent(encoded.sections, encoded.frame, decoded, codec.passes, error, residual, rejected)


@numba.njit(cache=True, nogil=True)
def _subtract(whole: Flat, part: Flat, rest: Flat) -> tuple[float, float]:
    """Rest = whole - part; returns the squared norms of rest and whole, summed in order so that they never vary."""
    lost = 0.0
    norm = 0.0
    for i in range(whole.size):
        rest[i] = whole[i] - part[i]
        lost += np.float64(rest[i]) * np.float64(rest[i])
        norm += np.float64(whole[i]) * np.float64(whole[i])
    return lost, norm
