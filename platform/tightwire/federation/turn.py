"""One client's turn once it has trained: agree on a range where wanted, decide, encode, send; and what that costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from tightwire.arrays import AnyArray, Flat
from tightwire.attacks.attack import Attack, Sending
from tightwire.codecs.codec import Codec, Memory, fp32_frame_length
from tightwire.codecs.feedback import Feedback, for_stages
from tightwire.codecs.sums import norms
from tightwire.devices.clock import CODEC_FLOPS, codec_seconds, compute_seconds
from tightwire.devices.codec_cost import encode_flops
from tightwire.devices.energy import compute_joules, download_joules, idle_joules, tail_joules, upload_joules
from tightwire.devices.links import AnyLink, Channels
from tightwire.devices.memory import workspace
from tightwire.devices.population import Population, Profile
from tightwire.errors import CodecError, FrameError
from tightwire.federation.intake import Intake, LongUpdateError
from tightwire.federation.joint import MEASURING, Ranges
from tightwire.federation.passage import Upload, alone, passages
from tightwire.federation.tasks import Agreement, Broadcast, ClientReport, ClientTask, Exchange, Fate, Offer, Passage
from tightwire.keys import key
from tightwire.learning.cost import TrainingCost
from tightwire.learning.flat import FlatModel
from tightwire.learning.samples import FederatedData
from tightwire.learning.training import Trained, Training
from tightwire.policies.base import Observation, Policy, skip
from tightwire.wire import authentication
from tightwire.wire.frame import peek
from tightwire.wire.ledger import Sections

_HELD = 3
"""Vectors of the model's length that a client holds while it encodes: model, vector and residual."""

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
    link: AnyLink
    shared: bool
    """Whether clients share the server's link, so that only the server knows when uploads arrive."""
    policy: Policy[Any]
    feedback: Feedback
    ranges: Ranges | None
    """What clients agree on before they send; None for nothing."""
    deadline: float | None
    memory_limit: int
    """Bytes of clients' memories that may be kept in RAM where this process keeps them."""
    attack: Attack = field(default_factory=Attack)
    """What hostile clients do."""
    keys: Callable[[int], bytes] | None = None
    """Client -> the key that authenticates its frames; None where nothing is authenticated."""

    def hostile(self, client: int) -> bool:
        """Whether a client means harm."""
        return self.attack.hostile(client, clients=self.population.clients, seed=self.seed)

    @property
    def tag(self) -> int:
        """Bytes of authentication behind each frame that a client sends."""
        return 0 if self.keys is None else authentication.TAG

    def signed(self, frame: bytes, client: int, *, holds_key: bool = True) -> bytes:
        """A frame as it travels: with the tag that its sender puts behind it, where frames are authenticated.

        Args:
            frame: In whose header is the round, and the client that it claims to be from.
            client: Who sends it.
            holds_key: Whether the sender has the client's key; if not, it guesses.
        """
        if self.keys is None:
            return frame
        return authentication.seal(frame, self.keys(client) if holds_key else bytes(32), *peek(frame))


@dataclass(frozen=True, slots=True)
class Sent:
    """One upload, as both of its ends know it."""

    sections: Sections
    """Of the whole message."""
    frame: bytes
    """What the server finds in the message."""
    addend: AnyArray | None
    """What the server adds, see `Taken`; None where it refuses the message."""
    error: float
    memory: Memory
    """What the client remembers if the server uses its update."""
    rejected: str
    """Why the server refuses it; empty if it does not."""
    norm: float | None
    """See `ClientReport.norm`."""


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
    link: Channels
    clock: float
    """Simulated seconds at the start of the round."""
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
class _Needs:
    """What encoding with a line takes on any device."""

    flops: float
    """In training FLOPs."""
    workspace: float
    """Bytes of memory."""


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


def ended(report: ClientReport, passage: Passage, *, provisional: bool = False) -> ClientReport:
    """A turn with what became of its upload; `provisional` if only the server will know when it arrives."""
    fate = report.fate
    if passage.arrival is None and not provisional:
        fate = "lost"
    return replace(report, passage=passage, fate=fate)


class Turns:
    """Carries out turns; holds nothing that changes."""

    def __init__(self, setup: ClientSetup) -> None:
        self._setup = setup
        schema = setup.model.schema
        self._fp32 = fp32_frame_length(schema)

        @lru_cache(maxsize=4096)  # by the line, whose hash is a hundred times cheaper than that of its codec
        def needs(line: str) -> _Needs:
            codec = Codec.parse(line)
            return _Needs(encode_flops(codec, schema), workspace(codec, schema))

        self._needs = needs

    def offer(self, broadcast: Broadcast, task: ClientTask, trained: Trained, memory: Memory) -> Offer:
        """What a client says when ranges are agreed on."""
        ready = self._ready(broadcast, task, trained, memory)
        if ready.elapsed >= task.leaves:
            return Offer(task.client, None, None)
        said = self._range(ready)
        if said is None:
            return Offer(task.client, None, ready.elapsed)
        if said.joules > task.battery or said.arrival > task.leaves:
            return Offer(task.client, None, None)
        return Offer(task.client, said.frame, said.arrival)

    def send(
        self, broadcast: Broadcast, door: Intake, task: ClientTask, trained: Trained, memory: Memory
    ) -> tuple[ClientReport, Sent | None, Memory]:
        """The rest of a client's turn.

        Args:
            broadcast: The round.
            door: How the server takes frames in.
            task: The client's.
            trained: What came of its training.
            memory: What it remembers.

        Returns:
            What became of it, the upload if there was any, and what the client remembers if the server uses its update,
            or if by its policy's decision it sent none.
        """
        setup = self._setup
        ready = self._ready(broadcast, task, trained, memory)
        began, exchange, reason = ready.elapsed, None, ""
        fate: Fate | None = "lost" if ready.elapsed >= task.leaves or ready.joules > task.battery else None
        joules = ready.joules
        if fate is None and broadcast.agreement is not None:
            began, joules, exchange, fate, reason = self._exchange(ready, broadcast.agreement)
        state = setup.policy.initial() if task.policy is None else setup.policy.load(dict(task.policy))
        decision = skip("gone before it could decide")
        if broadcast.agreement is not None:
            decision = skip("the round's range was agreed without it")
        sent: Sent | None = None
        if fate is None and not ready.finite:
            fate, reason, decision = "refused", "non-finite", skip("update is not finite")
        elif fate is None:
            decision, state = setup.policy.decide(state, self._observe(ready, began, joules))
            fate, reason = "skipped", ""
            if decision.codec is not None:
                fate, reason = "refused", "memory"
                try:
                    if self._needs(decision.codec).workspace <= self._room(ready.profile):
                        sent = self._encode(decision.codec, ready, memory, broadcast.agreement, door)
                        fate, reason = ("rejected" if sent.rejected else "arrives"), sent.rejected
                except CodecError:
                    fate, reason = "refused", "cannot be encoded"
        codec = 0.0
        if sent is not None and decision.codec is not None:
            codec = self._encoding(decision.codec, ready.profile)
            joules += compute_joules(codec * ready.profile.flops, ready.profile)
        begins_fp32 = self._begins_fp32(ready)
        report = ClientReport(
            client=task.client,
            decision=decision,
            policy=setup.policy.dump(state),
            train_loss=trained.loss,
            sections=None if sent is None else sent.sections,
            error=0.0 if sent is None else sent.error,
            fate=fate,
            answered=min(began, task.leaves),
            received=self._received(ready),
            download_seconds=min(ready.download, task.leaves),
            begins=began + codec,
            begins_fp32=begins_fp32,
            joules=min(joules, task.battery),
            download_joules=self._download_joules(ready),
            passage=Passage(),
            passage_fp32=Passage(),
            reason=reason,
            exchange=exchange,
            norm=None if sent is None else sent.norm,
        )
        whole = self.upload_fp32(report, task, ready.profile, ready.link)
        report = replace(report, passage_fp32=passages([whole], broadcast.clock, None)[0])
        if sent is None:
            return report, None, self._unsent(ready, memory) if fate == "skipped" else {}
        upload = self.upload(report, task, ready.profile, ready.link)
        passage = passages([upload], broadcast.clock, None)[0]
        return ended(report, passage, provisional=setup.shared), sent, sent.memory

    def _unsent(self, ready: _Ready, memory: Memory) -> Memory:
        """What a client remembers that sent nothing: error feedback owes all of it."""
        remembered, _ = self._setup.feedback.settle(ready.vector, np.zeros_like(ready.vector), ready.pending)
        return {**for_stages(memory), **remembered}

    def upload(self, report: ClientReport, task: ClientTask, profile: Profile, link: Channels) -> Upload:
        """A client's frame on its way; the server asks for it again where its link is shared."""
        size = 0 if report.sections is None else report.sections.total
        return Upload(
            size=size,
            resent=self._setup.link.resent(size),
            begins=report.begins,
            latency=profile.rtt / 2,
            channel=link.up,
            leaves=task.leaves,
            drops=task.drops,
            joules=task.battery - report.joules,
            joules_per_byte=profile.joules_per_byte_up,
            joules_per_second=profile.idle_watts,
            tail=tail_joules(profile, 1),
        )

    def upload_fp32(self, report: ClientReport, task: ClientTask, profile: Profile, link: Channels) -> Upload:
        """The same client's upload had it been fp32; its battery never runs empty."""
        size = self._fp32 + self._setup.tag
        resent = self._setup.link.resent(size)
        return Upload(size, resent, report.begins_fp32, profile.rtt / 2, link.up, leaves=task.leaves, drops=task.drops)

    def resent(self, size: int) -> int:
        """Bytes that a link loses besides `size` that get through."""
        return self._setup.link.resent(size)

    def channels(self, round_: int, client: int) -> tuple[Profile, Channels]:
        """A client's device, and its link in a round."""
        setup = self._setup
        profile = setup.population.profile(client, setup.seed)
        return profile, setup.link.channels(profile, round=round_, client=client, seed=setup.seed)

    def _ready(self, broadcast: Broadcast, task: ClientTask, trained: Trained, memory: Memory) -> _Ready:
        setup = self._setup
        profile, link = self.channels(broadcast.round, task.client)
        flops = setup.cost.flops_per_sample * trained.samples * setup.training.epochs
        latency = profile.rtt / 2
        vector, pending = setup.feedback.owed(trained.update, memory)
        size = task.bytes_down + setup.link.resent(task.bytes_down)
        download = alone(link.down, broadcast.clock, 0.0, size, latency) if task.download is None else task.download
        compute = compute_seconds(flops, profile)
        ready = _Ready(
            round=broadcast.round,
            task=task,
            trained=trained,
            vector=vector,
            pending=pending,
            finite=bool(np.isfinite(vector).all()),
            profile=profile,
            link=link,
            clock=broadcast.clock,
            download=download,
            compute=compute,
            latency=latency,
            joules=0.0,
        )
        working = max(0.0, min(1.0, (task.leaves - download) / compute)) if compute > 0 else 0.0
        return replace(ready, joules=self._download_joules(ready) + compute_joules(flops * working, profile))

    def _received(self, ready: _Ready) -> int:
        """Bytes of the model that got through before the client went away."""
        size, leaves = ready.task.bytes_down, ready.task.leaves
        if leaves >= ready.download or ready.download <= ready.latency:
            return size
        return int(size * max(0.0, leaves - ready.latency) / (ready.download - ready.latency))

    def _download_joules(self, ready: _Ready) -> float:
        received = self._received(ready)
        seconds = min(ready.download, ready.task.leaves)
        radio = download_joules(received + self._setup.link.resent(received), ready.profile)
        return radio + tail_joules(ready.profile, 1) + idle_joules(ready.profile, seconds)

    def _begins_fp32(self, ready: _Ready) -> float:
        """When this client's upload would begin had both directions carried fp32."""
        download = ready.task.download_fp32
        if download is None:
            whole = self._fp32 + self._setup.link.resent(self._fp32)
            download = alone(ready.link.down, ready.clock, 0.0, whole, ready.latency)
        return download + ready.compute + self._fp32_codec(ready.profile)

    def _fp32_codec(self, profile: Profile) -> float:
        return self._encoding("none", profile)

    def _encoding(self, line: str, profile: Profile) -> float:
        """Seconds in which a device encodes an update."""
        return compute_seconds(self._needs(line).flops, profile)

    def _room(self, profile: Profile) -> float:
        """Bytes that a device has for encoding: all but the model and the client's own vectors."""
        return profile.memory - _HELD * 4 * self._setup.cost.parameters

    def _range(self, ready: _Ready) -> _Range | None:
        """What a client sends before ranges are agreed on; None when it has nothing to send at all."""
        ranges = self._setup.ranges
        if ranges is None or not ready.finite:
            return None
        said = ranges.say(ranges.measure(ready.vector), round=ready.round, client=ready.task.client)
        message = self._setup.signed(said.frame, ready.task.client)
        size, profile = ready.vector.size, ready.profile
        measuring = codec_seconds(size, MEASURING, profile)
        begins = ready.elapsed + measuring
        seconds = alone(ready.link.up, ready.clock, begins, len(message), ready.latency)
        radio = upload_joules(len(message), profile)
        return _Range(
            message,
            said.sections + Sections(check=self._setup.tag),
            seconds,
            begins + seconds,
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
        if said.joules > ready.task.battery or said.arrival > ready.task.leaves:
            return said.arrival, said.joules, Exchange(*sent, "lost"), "lost", ""
        outcome = agreement.outcomes[ready.task.client]
        if outcome == "late":
            return said.arrival, said.joules, Exchange(*sent, "late"), "late", ""
        if outcome:
            return said.arrival, said.joules, Exchange(*sent, "rejected"), "refused", outcome
        size = agreement.answer.total
        seconds = alone(ready.link.down, ready.clock, agreement.seconds, size, ready.latency)
        radio = download_joules(size, ready.profile)
        exchange = Exchange(*sent, "used", agreement.answer, seconds, radio)
        return agreement.seconds + seconds, said.joules + radio, exchange, None, ""

    def _observe(self, ready: _Ready, elapsed: float, joules: float) -> Observation:
        setup, profile, schema = self._setup, ready.profile, self._setup.model.schema

        def future(size: int, begins: float) -> float:
            return begins + alone(ready.link.up, ready.clock, begins, size + setup.link.resent(size), ready.latency)

        return Observation(
            round=ready.round,
            client=ready.task.client,
            tier=profile.tier,
            samples=ready.trained.samples,
            loss=ready.trained.loss,
            schema=schema,
            vector=lambda: ready.vector,
            deadline=setup.deadline,
            downloaded=ready.download,
            computed=ready.compute,
            elapsed=elapsed,
            uplink=profile.uplink,
            latency=ready.latency,
            encoding=lambda line: self._encoding(line, profile),
            workspace=lambda line: self._needs(line).workspace,
            memory=self._room(profile),
            energy=ready.task.battery - joules,
            joules_per_byte=profile.joules_per_byte_up + 8 * profile.idle_watts / profile.uplink,
            joules_per_upload=tail_joules(profile, 1),
            residual=lambda: float(norms(ready.vector - ready.trained.update, schema.size)[0]),
            told=ready.task.told,
            future=future if setup.policy.clairvoyant else None,
            draws=key(setup.seed, "policy"),
            tag=setup.tag,
        )

    def _encode(self, line: str, ready: _Ready, memory: Memory, agreement: Agreement | None, door: Intake) -> Sent:
        """Encode, send, and take in as the server will; one decoding serves the client's memory and the sum."""
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
        frame, sections, left, holds_key = encoded.frame, encoded.sections, encoded.memory, True
        if setup.hostile(client):
            clients, seed = setup.population.clients, setup.seed
            sending = Sending(encoded, ready.vector, codec, schema, ready.round, client, clients, seed, memory)
            tampered = setup.attack.tampered(sending)
            frame, sections, holds_key = tampered.frame, tampered.sections, tampered.signed
            left = {**left, **tampered.remembered}
        message = setup.signed(frame, client, holds_key=holds_key)
        rejected, norm, addend = "", None, None
        decoded = np.zeros_like(ready.vector)
        try:
            frame = door.opened(message, client)
            taken = door.take(frame, client)
            addend, decoded = taken.addend, taken.update
            norm = taken.norm if door.bounds is not None else None
        except LongUpdateError as refusal:
            rejected, norm = refusal.reason, refusal.norm
        except FrameError as refusal:
            rejected = refusal.reason
        remembered, error = setup.feedback.settle(ready.vector, decoded, ready.pending)
        left = {name: array for name, array in left.items() if name not in agreed}
        sections += Sections(check=setup.tag)
        return Sent(sections, frame, addend, error, {**left, **remembered}, rejected, norm)
