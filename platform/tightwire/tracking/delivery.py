"""Sending a run to a tracking server, one acknowledged step after the other.

Nothing here waits, retries or imports MLflow: `deliver` sends what a state says is missing, through a client,
and yields the new state after each step that arrived; if the client raises, what was yielded is what arrived.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tightwire.tracking.folder import RunFolder
from tightwire.tracking.outbox import NOTHING_SENT, Entry, RunStatus, SendState, round_metrics
from tightwire.tracking.summary import stamp_run_id

PARAMS_A_BATCH = 100
"""MLflow's limit on params, and on tags, in one request."""
METRICS_A_BATCH = 1000
"""MLflow's limit on metric values in one request."""
PARAM_LENGTH = 6000
"""MLflow's limit on the characters of a param's value."""
TAG_LENGTH = 8000
"""MLflow's limit on the characters of a tag's value."""

BY_SIM_SECOND = ("accuracy", "loss")
"""Metrics that are also sent over simulated seconds, under `..._by_sim_second`."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric; equal points are one to a server, however often they are sent."""

    key: str
    value: float
    wall_ms: int
    step: int


class Client(Protocol):
    """The calls that a delivery makes; each either arrives or raises."""

    def open_run(self, state: SendState) -> str:
        """The id of the state's run: the one it names, or else one with its key, or else a new one."""
        ...

    def set_status(self, run_id: str, status: RunStatus, end_ms: int | None) -> None:
        """Say what became of the run."""
        ...

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
    ) -> None:
        """Send one batch, within the limits on its size."""
        ...

    def upload(self, run_id: str, file: Path, folder: str | None) -> None:
        """Send one file, into a folder of the run's files or to their top."""
        ...


def deliver(client: Client, folder: RunFolder, state: SendState, entries: Sequence[Entry]) -> Iterator[SendState]:
    """Send what is missing.

    Args:
        client: The way to the server.
        folder: The run's folder; its files are sent once the run has ended.
        state: What the server has; the run has ended when its status is not ``running``.
        entries: The run's rounds in order; those up to the state's cursor are passed over.

    Yields:
        The state after each step that arrived; only its `run_id`, `cursor`, `started` and `completed` change.

    Raises:
        Exception: Whatever the client raises.
    """
    if not state.started:
        run_id = client.open_run(state)
        # a new run, though there was one: on another server, or the old one was deleted
        cursor = state.cursor if run_id == state.run_id else NOTHING_SENT
        state = replace(state, run_id=run_id, cursor=cursor)
        yield state
        client.set_status(run_id, "running", None)
        for params in _parts(_cut(state.params, PARAM_LENGTH)):
            client.log(run_id, params=params)
        for tags in _parts(_cut(state.tags, TAG_LENGTH)):
            client.log(run_id, tags=tags)
        state = replace(state, started=True)
        yield state
    run_id = str(state.run_id)
    for batch in _batches([entry for entry in entries if entry.record.round > state.cursor]):
        client.log(run_id, points=[point for entry in batch for point in points(entry)])
        state = replace(state, cursor=batch[-1].record.round)
        yield state
    if state.status != "running" and not state.completed:
        if folder.summary.is_file():
            stamp_run_id(folder.summary, run_id)
        for file in folder.artifacts():
            client.upload(run_id, file, None if file.parent == folder.path else file.parent.name)
        for tags in _parts(_cut(state.tags, TAG_LENGTH)):
            client.log(run_id, tags=tags)
        client.set_status(run_id, state.status, state.end_ms)
        yield replace(state, completed=True)


def points(entry: Entry) -> list[Point]:
    """A round's points: metrics and totals at step = round, and some at step = simulated second as well."""
    record, wall_ms = entry.record, entry.wall_ms
    metrics = round_metrics(record)
    by_round = metrics | {f"total_{name}": value for name, value in entry.totals.items()}
    by_second = {f"{name}_by_sim_second": metrics[name] for name in BY_SIM_SECOND if name in metrics}
    second = int(record.sim_seconds)
    return [Point(name, value, wall_ms, record.round) for name, value in by_round.items()] + [
        Point(name, value, wall_ms, second) for name, value in by_second.items()
    ]


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Whole rounds, as many together as one request may hold."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        more = len(points(entry))
        if batch and size + more > METRICS_A_BATCH:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += more
    if batch:
        yield batch


def _parts(pairs: Mapping[str, str]) -> Iterator[dict[str, str]]:
    items = list(pairs.items())
    for start in range(0, len(items), PARAMS_A_BATCH):
        yield dict(items[start : start + PARAMS_A_BATCH])


def _cut(pairs: Mapping[str, str], length: int) -> dict[str, str]:
    return {key: value if len(value) <= length else value[: length - 3] + "..." for key, value in pairs.items()}
