"""One client's turn, and a share of turns: receive, train, decide, encode, send; then the server's check and sum.

The same code runs in process and inside every client host.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode, fp32_frame_length
from tightwire.codecs.feedback import compensated, settle
from tightwire.devices.clock import CODEC_FLOPS, Turn, codec_seconds, compute_seconds
from tightwire.devices.energy import compute_joules, download_joules, upload_joules
from tightwire.devices.links import Link, transfer_seconds
from tightwire.devices.population import Population, Profile
from tightwire.errors import ClientError, CodecError, FrameError, TightwireError
from tightwire.federation.aggregate import FixedPoint, check
from tightwire.federation.tasks import Broadcast, ClientReport, ClientTask, Fate, ShareResult
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
    rejected: str
    """Why the server refuses what it decoded; empty if it does not."""


class ClientRunner:
    """Carries out shares of turns; holds nothing that changes from call to call but caches."""

    def __init__(self, setup: ClientSetup) -> None:
        self._setup = setup
        schema = setup.model.schema
        self._fp32 = fp32_frame_length(schema)
        self._fp32_passes = Codec.parse("none").passes(schema)

    def run(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], residuals: Mapping[int, Flat]
    ) -> tuple[ShareResult, dict[int, Flat]]:
        """Carry out `tasks`; see `Pool.run`.

        Raises:
            ClientError: Training or encoding failed; says in which round and for which client.
        """
        setup, round_ = self._setup, broadcast.round
        fixed = FixedPoint.for_weight(broadcast.weight)
        total = fixed.zeros(broadcast.model.size)
        summed: list[int] = []
        reports: list[ClientReport] = []
        fresh: dict[int, Flat] = {}
        slowest: list[tuple[float, int, bytes]] = []

        def add(client: int, update: Flat) -> None:
            fixed.add(total, update, int(setup.data.sizes[client]))
            summed.append(client)

        trained = setup.trainer(
            setup.model, broadcast.model, self._jobs(tasks), setup.training, round=round_, seed=setup.seed
        )
        for task in tasks:
            with _at(round_, task.client, "training"):
                result = next(trained)
            with _at(round_, task.client, "sending"):
                report, sent = self._turn(round_, task, result, residuals.get(task.client))
            reports.append(report)
            if sent is None or report.arrival is None or report.fate != "arrives":
                continue
            if setup.feedback == "classic" and sent.residual.any():
                fresh[task.client] = sent.residual
            if setup.deadline is not None and report.arrival > setup.deadline:
                continue
            if not broadcast.spare:
                add(task.client, sent.decoded)
                continue
            heapq.heappush(slowest, (report.arrival, task.client, sent.frame))
            if len(slowest) > broadcast.spare:
                _, client, frame = heapq.heappop(slowest)
                add(client, decode(frame, setup.model.schema, round=round_, client=client))
        reserve = {client: frame for _, client, frame in slowest}
        return ShareResult(total, tuple(summed), tuple(reports), reserve), fresh

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
        update = compensated(trained.update, residual)

        state = setup.policy.initial() if task.policy is None else setup.policy.load(dict(task.policy))
        decision = Decision(codec=None, bits=0.0, density=0.0, reason="update is not finite")
        fate: Fate = "refused"
        reason = "non-finite"
        sent: _Sent | None = None
        if bool(np.isfinite(update).all()):
            seen = self._observe(round_, task, trained, update, profile, download + compute)
            decision, state = setup.policy.decide(state, seen)
            fate, reason = "skipped", ""
            if decision.codec is not None:
                try:
                    sent = self._send(decision.codec, update, round_, task.client)
                    fate, reason = ("rejected" if sent.rejected else "arrives"), sent.rejected
                except CodecError:
                    fate, reason = "refused", "cannot be encoded"

        down_joules = download_joules(task.bytes_down, profile)
        joules = down_joules + compute_joules(flops, profile)
        turn = Turn(download, compute, 0.0, 0.0)
        up_joules = 0.0
        if sent is not None:
            up_joules = upload_joules(len(sent.frame), profile)
            joules += up_joules + compute_joules(update.size * sent.passes * CODEC_FLOPS, profile)
            turn = Turn(
                download,
                compute,
                codec_seconds(update.size, sent.passes, profile),
                transfer_seconds(len(sent.frame), rates.up, latency),
            )
            if task.drops or joules > task.battery:
                fate, reason = "lost", ""
        turn_fp32 = Turn(
            transfer_seconds(self._fp32, rates.down, latency),
            compute,
            codec_seconds(update.size, self._fp32_passes, profile),
            transfer_seconds(self._fp32, rates.up, latency),
        )
        report = ClientReport(
            client=task.client,
            decision=decision,
            policy=setup.policy.dump(state),
            train_loss=trained.loss,
            sections=None if sent is None else sent.sections,
            error=0.0 if sent is None else sent.error,
            fate=fate,
            answered=download + compute,
            reason=reason,
            download_seconds=download,
            upload_seconds=turn.upload,
            arrival=turn.total if fate in ("arrives", "rejected") else None,
            arrival_fp32=None if task.drops else turn_fp32.total,
            joules=min(joules, task.battery),
            download_joules=down_joules,
            upload_joules=up_joules,
        )
        return report, sent

    def _observe(
        self, round_: int, task: ClientTask, trained: Trained, update: Flat, profile: Profile, elapsed: float
    ) -> Observation:
        return Observation(
            round=round_,
            client=task.client,
            tier=profile.tier,
            samples=trained.samples,
            loss=trained.loss,
            schema=self._setup.model.schema,
            measure=partial(UpdateStats.of, update, self._setup.model.schema),
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
            update, schema, key=key(self._setup.seed, "codec", round=round_, client=client), round=round_, client=client
        )
        rejected = ""
        try:
            decoded = decode(encoded.frame, schema, round=round_, client=client)
            check(decoded)
        except FrameError as refusal:
            decoded, rejected = np.zeros_like(update), refusal.reason
        residual, error = settle(update, decoded)
        return _Sent(encoded.sections, encoded.frame, decoded, codec.passes(schema), error, residual, rejected)


@contextmanager
def _at(round_: int, client: int, stage: str) -> Iterator[None]:
    """Say where an error came from that nobody raised on purpose."""
    try:
        yield
    except TightwireError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ClientError(f"round {round_}, client {client}, {stage}: {what}") from error
