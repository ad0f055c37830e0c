"""The rows that a run records: the ledger of every frame, every decision, and every round."""

from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]
Status = Literal["used", "late", "surplus", "lost", "rejected"]
"""What became of a frame: used; late (missed the deadline); surplus (over-selection had enough); lost (drop-out);
rejected (the server refused it). All but the first are wasted bytes."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One frame on the simulated wire. The sections add up to `bytes`, which is the frame's length.

    Where clients agree on a shared range (the stage `joint`), what they say and are answered has rows of its own, with
    the codec ``range``.
    """

    round: int
    client: int
    tier: str
    direction: Direction
    codec: str
    status: Status
    bytes: int
    header: int
    scales: int
    indices: int
    tables: int
    codes: int
    check: int
    bytes_fp32: int
    """Exact length of the same update's frame under the codec ``none``; 0 where it would not have been sent at all."""
    seconds: float
    """Simulated seconds that the transfer took, latency included."""
    joules: float
    """Energy that the client's radio spent on it."""
    frames: int = 1
    """Frames that this row stands for: a returning client may be sent several missed deltas."""
    plain: int = 0
    """The section of small tensors, which are sent as they are."""
    partial: int = 0
    """What was sent of a frame that was cut short: the client went away, or its battery ran empty."""
    resent: int = 0
    """Bytes besides the frame that the link lost and that were sent again; in seconds and joules, not in `bytes`."""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One client's decision in one round, what it predicted and what came."""

    round: int
    client: int
    tier: str
    codec: str
    """Empty when the client skipped its upload."""
    bits: float
    density: float
    reason: str
    predicted_bytes: float | None
    """Length of the frame, as the policy expected it."""
    predicted_seconds: float | None
    """Simulated seconds of the upload, as the policy expected them."""
    predicted_error: float | None
    """NMSE, as the policy expected it."""
    bytes: int
    """Length of the frame; 0 when nothing was sent."""
    seconds: float
    """Simulated seconds that the upload took, latency included."""
    error: float
    """Real squared error over squared norm (NMSE) of what was encoded."""
    status: str
    """A `Status`, or ``"skipped"``, or ``"refused: <reason>"`` where what was trained could not be sent."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round in figures. Seconds are simulated unless the name says wall."""

    round: int
    accuracy: float | None
    """Test accuracy in [0, 1] after this round; None in rounds without evaluation."""
    loss: float | None
    """Mean test loss; None in rounds without evaluation."""
    train_loss: float | None
    """Mean local loss of the clients that trained; None when none did."""
    bytes_up: int
    """Bytes of the frames sent by clients this round, used or wasted."""
    bytes_down: int
    bytes_wasted: int
    """Bytes up of frames that were not used: late, lost, surplus or rejected; of those cut short, what was sent."""
    bytes_up_fp32: int
    bytes_down_fp32: int
    seconds: float
    """Length of this round by the simulated clock."""
    sim_seconds: float
    """The clock at the end of this round."""
    sim_seconds_fp32: float
    """The same clock had every frame been fp32, and had the server waited past the deadline, where it must, until as
    many updates were there as this run used."""
    joules: float
    """Energy of all clients of the cohort, for computing and for their radios."""
    mean_bits: float
    """Mean quantiser bits over this round's uploads; 0 when there was none."""
    mean_density: float
    cohort: int
    """Clients selected."""
    participants: int
    """Clients whose update was used."""
    late: int
    late_fp32: int
    """Clients that would have missed the deadline had every frame been fp32."""
    surplus: int
    """Clients that arrived in time when over-selection had enough."""
    lost: int
    """Clients whose upload got lost: drop-outs and empty batteries."""
    skipped: int
    """Clients whose policy sent nothing. With `participants`, `late`, `surplus`, `lost` and `refused` this adds up to
    `cohort`."""
    bytes_resent: int = 0
    """Bytes that links lost, up and down, and that were sent again; not in `bytes_up` and `bytes_down`."""
    refused: dict[str, int] = field(default_factory=dict)
    """Clients that could not take part or whose update was refused, by reason, such as ``{"memory": 2}``."""
    rejected: int = 0
    """Clients whose update arrived in time and was rejected; those in `refused` by reason."""
    hostile: int = 0
    """Hostile clients among `participants`: the truth, which the simulated server does not know."""
    wall_seconds: float = 0.0
    hosts: int = 1
    """Client hosts alive at the end of the round."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole run in figures; written as ``summary.json``."""

    name: str
    rounds: int
    clients: int
    cohort: int
    accuracy: float
    best_accuracy: float
    bytes_up: int
    bytes_down: int
    bytes_up_fp32: int
    bytes_down_fp32: int
    bytes_wasted: int
    sim_seconds: float
    sim_seconds_fp32: float
    energy_joules: float
    wall_seconds: float
    workers: int
    seed: int
    digest: str
    mlflow_run_id: str | None
    rejected: int = 0
    """Updates that arrived in time and were rejected."""
    hostile: int = 0
    """Updates of hostile clients that were used."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: with a summary, or stopped on request after round `round`."""

    round: int
    summary: Summary | None
    late: int = 0
    """Uploads that missed the deadline."""
    late_fp32: int = 0
    """Uploads that would have missed it had every frame been fp32."""
    untracked: str | None = None
    """One line on what the tracker could not send, or None."""
