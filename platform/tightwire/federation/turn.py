"""One client's turn once it has trained: agree on a range where wanted, decide, encode, send; and what that costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs.codec import Codec, Memory, decode, fp32_frame_length
from tightwire.codecs.feedback import Feedback, for_stages
from tightwire.devices.clock import CODEC_FLOPS, Turn, codec_seconds, compute_seconds
from tightwire.devices.energy import compute_joules, download_joules, upload_joules
from tightwire.devices.links import Link, Rates, transfer_seconds
from tightwire.devices.population import Population, Profile
from tightwire.errors import CodecError, FrameError
from tightwire.federation.joint import MEASURING, Grids, Ranges, Reals
from tightwire.federation.tasks import Agreement, Broadcast, ClientReport, ClientTask, Exchange, Fate, Offer
from tightwire.keys import key
from tightwire.learning.cost import TrainingCost
from tightwire.learning.flat import FlatModel
from tightwire.learning.samples import FederatedData
from tightwire.learning.training import Trained, Training
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
    feedback: Feedback
    ranges: Ranges | None
    """What clients agree on before they send; None for nothing."""
    deadline: float | None
    memory_limit: int
    """Bytes of clients' memories that may be kept in RAM where this process keeps them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One upload, as both of its ends know it."""

    sections: Sections
    frame: bytes
    addend: AnyArray | None
    """What the server adds, see `Reals.take`; None where it refuses the frame."""
    passes: float
    error: float
    memory: Memory
    """What the client remembers if the server uses its update."""
    rejected: str
    """Why the server refuses what it decoded; empty if it does not."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A client that has trained."""

    round: int
    task: ClientTask
    trained: Trained
    vector: Flat
    """What is to be encoded."""
    pending: Memory
    finite: bool
    profile: Profile
    rates: Rates
    download: float
    compute: float
    latency: float
    joules: float
    """Spent so far."""

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return self.download + self.compute


@dataclass(frozen=True, slots=True)
class _Range:
    """A client's word on its range."""

    frame: bytes
    sections: Sections
    seconds: float
    arrival: float
    radio: float
    joules: float
    """All that the client has spent by then."""


class Turns:
    """Carries out turns; holds nothing that changes."""

    def __init__(self, setup: ClientSetup) -> None:
        self._setup = setup
        schema = setup.model.schema
        self._fp32 = fp32_frame_length(schema)
        self._fp32_passes = Codec.parse("none").passes(schema)

    def offer(self, round_: int, task: ClientTask, trained: Trained, memory: Memory) -> Offer:
        """What a client says when ranges are agreed on."""
        ready = self._ready(round_, task, trained, memory)
        said = self._range(ready)
        if said is None:
            return Offer(task.client, None, ready.elapsed)
        if said.joules > task.battery:
            return Offer(task.client, None, None)
        return Offer(task.client, said.frame, said.arrival)

    def send(
        self, broadcast: Broadcast, sums: Reals | Grids, task: ClientTask, trained: Trained, memory: Memory
    ) -> tuple[ClientReport, Sent | None]:
        """The rest of a client's turn.

        Args:
            broadcast: The round.
            sums: How the server takes frames in.
            task: The client's.
            trained: What came of its training.
            memory: What it remembers.
        """
        setup, round_ = self._setup, broadcast.round
        ready = self._ready(round_, task, trained, memory)
        size, profile, joules = ready.vector.size, ready.profile, ready.joules
        began, exchange, fate, reason = ready.elapsed, None, None, ""
        if broadcast.agreement is not None:
            began, joules, exchange, fate, reason = self._exchange(ready, broadcast.agreement)
        state = setup.policy.initial() if task.policy is None else setup.policy.load(dict(task.policy))
        decision = Decision(codec=None, bits=0.0, density=0.0, reason="the round's range was agreed without it")
        sent: Sent | None = None
        if not ready.finite:
            fate, reason = "refused", "non-finite"
            decision = Decision(codec=None, bits=0.0, density=0.0, reason="update is not finite")
        elif fate is None:
            decision, state = setup.policy.decide(state, self._observe(ready, began))
            fate, reason = "skipped", ""
            if decision.codec is not None:
                try:
                    sent = self._encode(decision.codec, ready, memory, broadcast.agreement, sums)
                    fate, reason = ("rejected" if sent.rejected else "arrives"), sent.rejected
                except CodecError:
                    fate, reason = "refused", "cannot be encoded"

        turn = Turn(ready.download, ready.compute, 0.0, 0.0)
        up_joules = 0.0
        if sent is not None:
            up_joules = upload_joules(len(sent.frame), profile)
            joules += up_joules + compute_joules(size * sent.passes * CODEC_FLOPS, profile)
            turn = Turn(
                ready.download,
                ready.compute,
                codec_seconds(size, sent.passes, profile),
                transfer_seconds(len(sent.frame), ready.rates.up, ready.latency),
            )
            if task.drops or joules > task.battery:
                fate, reason = "lost", ""
        arrival = turn.total if exchange is None else began + turn.codec + turn.upload
        turn_fp32 = Turn(
            transfer_seconds(self._fp32, ready.rates.down, ready.latency),
            ready.compute,
            codec_seconds(size, self._fp32_passes, profile),
            transfer_seconds(self._fp32, ready.rates.up, ready.latency),
        )
        report = ClientReport(
            client=task.client,
            decision=decision,
            policy=setup.policy.dump(state),
            train_loss=trained.loss,
            sections=None if sent is None else sent.sections,
            error=0.0 if sent is None else sent.error,
            fate=fate,
            answered=began,
            reason=reason,
            download_seconds=ready.download,
            upload_seconds=turn.upload,
            arrival=arrival if fate in ("arrives", "rejected") else None,
            arrival_fp32=None if task.drops else turn_fp32.total,
            joules=min(joules, task.battery),
            download_joules=download_joules(task.bytes_down, profile),
            upload_joules=up_joules,
            exchange=exchange,
        )
        return report, sent

    def _ready(self, round_: int, task: ClientTask, trained: Trained, memory: Memory) -> _Ready:
        setup = self._setup
        profile = setup.population.profile(task.client, setup.seed)
        rates = setup.link.rates(profile, round=round_, client=task.client, seed=setup.seed)
        flops = setup.cost.flops_per_sample * trained.samples * setup.training.epochs
        latency = profile.rtt / 2
        vector, pending = setup.feedback.owed(trained.update, memory)
        return _Ready(
            round=round_,
            task=task,
            trained=trained,
            vector=vector,
            pending=pending,
            finite=bool(np.isfinite(vector).all()),
            profile=profile,
            rates=rates,
            download=transfer_seconds(task.bytes_down, rates.down, latency),
            compute=compute_seconds(flops, profile),
            latency=latency,
            joules=download_joules(task.bytes_down, profile) + compute_joules(flops, profile),
        )

    def _range(self, ready: _Ready) -> _Range | None:
        """What a client sends before ranges are agreed on; None when it has nothing to send at all."""
        ranges = self._setup.ranges
        if ranges is None or not ready.finite:
            return None
        said = ranges.say(ranges.measure(ready.vector), round=ready.round, client=ready.task.client)
        size, profile = ready.vector.size, ready.profile
        seconds = transfer_seconds(len(said.frame), ready.rates.up, ready.latency)
        radio = upload_joules(len(said.frame), profile)
        return _Range(
            said.frame,
            said.sections,
            seconds,
            ready.elapsed + codec_seconds(size, MEASURING, profile) + seconds,
            radio,
            ready.joules + radio + compute_joules(size * MEASURING * CODEC_FLOPS, profile),
        )

    def _exchange(self, ready: _Ready, agreement: Agreement) -> tuple[float, float, Exchange | None, Fate | None, str]:
        """A client's part in the agreement.

        Returns:
            Seconds from the start of the round, and joules, when it is over; its bill; and if the client may not send,
            its fate and the reason.
        """
        said = self._range(ready)
        if said is None:
            return ready.elapsed, ready.joules, None, None, ""
        sent = said.sections, said.seconds, said.radio
        if said.joules > ready.task.battery:
            return said.arrival, said.joules, Exchange(*sent, "lost"), "lost", ""
        outcome = agreement.outcomes[ready.task.client]
        if outcome == "late":
            return said.arrival, said.joules, Exchange(*sent, "late"), "late", ""
        if outcome:
            return said.arrival, said.joules, Exchange(*sent, "rejected"), "refused", outcome
        size = agreement.answer.total
        seconds = transfer_seconds(size, ready.rates.down, ready.latency)
        radio = download_joules(size, ready.profile)
        exchange = Exchange(*sent, "used", agreement.answer, seconds, radio)
        return agreement.seconds + seconds, said.joules + radio, exchange, None, ""

    def _observe(self, ready: _Ready, elapsed: float) -> Observation:
        setup, profile, schema = self._setup, ready.profile, self._setup.model.schema
        return Observation(
            round=ready.round,
            client=ready.task.client,
            tier=profile.tier,
            samples=ready.trained.samples,
            loss=ready.trained.loss,
            schema=schema,
            measure=partial(UpdateStats.of, ready.vector, schema),
            deadline=setup.deadline,
            elapsed=elapsed,
            uplink=profile.uplink,
            latency=ready.latency,
            codec_seconds=codec_seconds(1, 1, profile),
            energy=ready.task.battery,
            joules_per_byte=profile.joules_per_byte_up,
        )

    def _encode(
        self, line: str, ready: _Ready, memory: Memory, agreement: Agreement | None, sums: Reals | Grids
    ) -> Sent:
        """Encode, and take in as the server will; one decoding serves the client's memory and the sum."""
        setup, client = self._setup, ready.task.client
        schema, codec = setup.model.schema, Codec.parse(line)
        agreed: Memory = {}
        if agreement is not None and setup.ranges is not None:
            agreed = setup.ranges.memory(agreement.steps)
        encoded = codec.encode(
            ready.vector,
            schema,
            key=key(setup.seed, "codec", round=ready.round, client=client),
            round=ready.round,
            client=client,
            memory={**for_stages(memory), **agreed},
        )
        rejected, addend = "", None
        decoded = np.zeros_like(ready.vector)
        try:
            addend = sums.take(encoded.frame, client)
            decoded = addend if isinstance(sums, Reals) else decode(encoded.frame, schema)
        except FrameError as refusal:
            rejected = refusal.reason
        remembered, error = setup.feedback.settle(ready.vector, decoded, ready.pending)
        left = {name: array for name, array in encoded.memory.items() if name not in agreed}
        return Sent(
            encoded.sections, encoded.frame, addend, codec.passes(schema), error, {**left, **remembered}, rejected
        )
