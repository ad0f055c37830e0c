"""What a run still owes its tracking server, kept in the run's folder.

Two files hold it. The journal has one line for every round that was told to the tracker, with the wall
time at which it was; it only ever grows. The state says which run of which server these belong to, and
which round arrived last. Whoever has both can send the rest, and sending something twice is harmless
because times and values stay the same.
"""

import dataclasses
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from tightwire.errors import TrackingError
from tightwire.federation.records import RoundRecord
from tightwire.federation.tables import write_atomically

RunStatus = Literal["running", "finished", "failed", "killed"]

NOTHING_SENT = -1
"""The cursor before the first round has arrived."""

ADDED = (
    "bytes_up",
    "bytes_down",
    "bytes_wasted",
    "bytes_up_fp32",
    "bytes_down_fp32",
    "joules",
    "participants",
    "late",
    "surplus",
    "lost",
    "skipped",
    "refused",
    "wall_seconds",
)
"""Metrics of a round that are also kept as running totals."""


@dataclass(frozen=True, slots=True)
class SendState:
    """How far a tracking server has followed a run; written as `mlflow.json`."""

    tracking_uri: str
    experiment: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    start_ms: int
    """Wall time of the run's start, in milliseconds since 1970."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """A tag by which a run is found again that the server made although its answer was lost."""
    run_id: str | None = None
    cursor: int = NOTHING_SENT
    """Number of the last round that arrived."""
    started: bool = False
    """Whether the run is open on the server, with its params and first tags."""
    status: RunStatus = "running"
    """What became of the run itself."""
    end_ms: int | None = None
    """Wall time of the run's end."""
    completed: bool = False
    """Whether everything has arrived, files and status too."""

    def save(self, path: Path) -> None:
        """Write the state, atomically.

        Raises:
            OSError: The file could not be written.
        """
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "SendState":
        """Read what `save` wrote.

        Raises:
            TrackingError: The file is missing or is something else.
        """
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            message = f"cannot read {path}: {error}; it should be the mlflow.json of a run"
            raise TrackingError(message) from error


@dataclass(frozen=True, slots=True)
class Entry:
    """A round as it was told to the tracker."""

    record: RoundRecord
    wall_ms: int
    """Wall time of the telling, in milliseconds since 1970."""
    totals: Mapping[str, float]
    """Sums of the `ADDED` metrics over the rounds told so far, this one included."""


def run_status(status: str) -> RunStatus:
    """Check the word for what became of a run.

    Raises:
        TrackingError: The word is none of running, finished, failed and killed.
    """
    words = get_args(RunStatus)
    if status not in words:
        raise TrackingError(f"a run's status cannot be {status!r}; use one of {', '.join(words)}")
    return cast("RunStatus", status)


def round_metrics(record: RoundRecord) -> dict[str, float]:
    """The metrics of one round by name; what was not measured, such as accuracy in some rounds, is absent."""
    found = dataclasses.asdict(record) | {"refused": sum(record.refused.values())}
    del found["round"]
    return {name: float(value) for name, value in found.items() if value is not None}


def follow(previous: Entry | None, record: RoundRecord, wall_ms: int) -> Entry:
    """The entry of a round that comes after `previous`, or is the first."""
    metrics = round_metrics(record)
    before = previous.totals if previous else dict.fromkeys(ADDED, 0.0)
    return Entry(record, wall_ms, {name: before[name] + metrics[name] for name in ADDED})


def append(journal: Path, entries: Sequence[Entry]) -> None:
    """Add entries to a journal; a line that an earlier process left unfinished is closed first.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    lines = "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in entries).encode()
    with journal.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, 2)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines
        file.write(lines)


def read(journal: Path) -> list[Entry]:
    """A journal's entries in order of their rounds; a line cut off by a crash is skipped."""
    entries: dict[int, Entry] = {}
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    for line in lines:
        try:
            fields = json.loads(line)
            entry = Entry(RoundRecord(**fields["record"]), int(fields["wall_ms"]), fields["totals"])
        except (ValueError, TypeError, KeyError):
            continue
        entries.setdefault(entry.record.round, entry)
    return [entries[number] for number in sorted(entries)]
