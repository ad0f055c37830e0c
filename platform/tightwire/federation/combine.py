"""What the server makes of the frames that hosts sent back to it: a part of a sum, or one update from all of them."""

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tightwire.arrays import Flat, Ints, Sums
from tightwire.errors import FrameError
from tightwire.federation.intake import Intake
from tightwire.federation.robust import AnyAggregator, Gathering, NormBounded, Rows
from tightwire.federation.store import SpillError
from tightwire.federation.tasks import Bounds, ClientReport

WINDOW = 5
"""Rounds whose norms count as recent."""

FEW = "too few"
"""Reason for which updates are rejected where there are too few of them for the aggregator: the model stays."""

OUTLIER = "outlier"
"""Reason for which an update is rejected that Krum does not choose."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server does with a round's updates."""

    aggregator: AnyAggregator
    max_norm: float | None = None
    """Longer updates are refused; None for no such bound."""
    max_norm_times: float | None = None
    """Updates longer than so many times the recent median are refused; None for no such bound."""
    memory: int = 1 << 30
    """Bytes of gathered updates in RAM; more of them are in a temporary file."""

    @property
    def adapts(self) -> bool:
        """Whether bounds follow the norms of recent rounds."""
        clips = isinstance(self.aggregator, NormBounded) and self.aggregator.bound is None
        return clips or self.max_norm_times is not None

    def bounds(self, recent: Sequence[float]) -> Bounds | None:
        """Of a round.

        Args:
            recent: Median norms of the last rounds; none before the first, when bounds that adapt do not bind yet.
        """
        if not isinstance(self.aggregator, NormBounded) and self.max_norm is None and self.max_norm_times is None:
            return None
        typical = statistics.median(recent) if recent else None
        refusals = [] if self.max_norm is None else [self.max_norm]
        if self.max_norm_times is not None and typical is not None:
            refusals.append(self.max_norm_times * typical)
        clip = typical
        if not isinstance(self.aggregator, NormBounded):
            clip = None
        elif self.aggregator.bound is not None:
            clip = self.aggregator.bound
        return Bounds(min(refusals, default=None), clip)

    def gathers(self, recent: Sequence[float]) -> bool:
        """Whether hosts send frames back in a round: always, or until there are recent norms to bound updates by."""
        return self.aggregator.gathers or (self.adapts and not recent)


def recent_norms(before: tuple[float, ...], reports: Sequence[ClientReport]) -> tuple[float, ...]:
    """Median norms of the last `WINDOW` rounds after one more; those of updates refused for their norm count as well.

    They have to, or bounds that adapt could only shrink; a median does not care for the hostile half's lesser part.

    Args:
        before: Those before.
        reports: Of the updates that came in time.
    """
    norms = [report.norm for report in reports if report.norm is not None]
    return (*before, statistics.median(norms))[-WINDOW:] if norms else before


@dataclass(frozen=True, slots=True)
class Combined:
    """What came of frames."""

    total: Sums | None = None
    """Their weighted sum, fixed point, shape (parameters,), where the aggregator is linear."""
    update: Flat | None = None
    """The round's update, shape (parameters,), where it is not; None if there is none."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Client -> why its update has no part in it."""


def summed(door: Intake, frames: Mapping[int, bytes], sizes: Ints) -> Combined:
    """Add frames up, weighted by the samples of their clients."""
    total = door.fixed.zeros(door.schema.size)
    refused: dict[int, str] = {}
    for client, frame in frames.items():
        try:
            door.add(total, door.take(frame, client).addend, int(sizes[client]))
        except FrameError as refusal:
            refused[client] = refusal.reason
    door.conclude(total)
    return Combined(total, refused=refused)


def gathered(aggregator: Gathering, door: Intake, frames: Mapping[int, bytes], memory: int) -> Combined:
    """Decode all frames and have the aggregator look at them together.

    Args:
        aggregator: Which.
        door: Of the round.
        frames: By client, in any order.
        memory: Bytes of updates in RAM; more are in a temporary file.

    Raises:
        SpillError: The temporary file could not be made.
    """
    refused: dict[int, str] = {}
    clients: list[int] = []
    with _rows(len(frames), door.schema.size, memory) as rows:
        for client in sorted(frames):
            try:
                rows[len(clients)] = door.take(frames[client], client).addend
            except FrameError as refusal:
                refused[client] = refusal.reason
            else:
                clients.append(client)
        if len(clients) < aggregator.least:
            return Combined(refused={**refused, **dict.fromkeys(clients, FEW)})
        update, chosen = aggregator.combine(rows[: len(clients)])
    left = set(clients) - {clients[row] for row in chosen}
    return Combined(update=update, refused={**refused, **dict.fromkeys(sorted(left), OUTLIER)})


@contextmanager
def _rows(count: int, size: int, memory: int) -> Iterator[Rows]:
    """Room for updates, in RAM or else in a file that nobody sees."""
    needed = 4 * count * size
    if needed <= memory:
        yield np.empty((count, size), np.float32)
        return
    try:
        with tempfile.TemporaryFile(prefix="tightwire-updates-") as file:
            os.posix_fallocate(file.fileno(), 0, needed)  # or a full disk would kill the process later
            yield np.memmap(file, np.float32, "r+", shape=(count, size))
    except OSError as error:
        raise SpillError(
            f"{tempfile.gettempdir()}: {count} updates of {size} values do not fit in hosts.memory_mb and could not be "
            f"written ({error.strerror}); free some space, raise hosts.memory_mb, or use an aggregator that does not "
            "gather updates: mean or norm_bounded"
        ) from error
