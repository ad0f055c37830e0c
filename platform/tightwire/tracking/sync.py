"""Sending later what a tracking server did not get while the run went."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from tightwire.errors import TrackingError
from tightwire.federation.records import RoundRecord
from tightwire.federation.tables import read_rows
from tightwire.tracking import outbox
from tightwire.tracking.client import brief, chosen_uri, connect
from tightwire.tracking.delivery import Client, deliver
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.outbox import Entry, SendState
from tightwire.tracking.summary import read_digest

DEFAULT_EXPERIMENT = "tightwire"


def sync(path: Path, uri: str | None = None, *, connect: Callable[[str], Client] = connect) -> str:
    """Send whatever MLflow does not have of a run that has ended or stopped.

    A run that nobody finished is closed as killed; should it be resumed, it goes on in the same MLflow run.
    A run that was never tracked gets its MLflow run now.

    Args:
        path: The run's folder.
        uri: The server; None takes MLFLOW_TRACKING_URI, or else the one that the run was tracked on.
        connect: Makes a client for a URI.

    Returns:
        One line that says what was sent, and where.

    Raises:
        TrackingError: There is no such run, or the server did not take everything; what it took is noted.
    """
    folder = RunFolder.open(path)
    stored = SendState.load(folder.mlflow) if folder.mlflow.is_file() else None
    server = chosen_uri(uri, stored.tracking_uri if stored else None)
    entries = _entries(folder)
    state = _ended(stored or _untracked(folder, server, entries), entries)
    if state.tracking_uri != server:
        state = replace(state, tracking_uri=server, started=False, completed=False)
    if state.completed:
        return f"nothing was missing in MLflow run {state.run_id} at {server}"
    before = state
    try:
        for step in deliver(connect(server), folder, before, entries):
            state = step
            state.save(folder.mlflow)
    except Exception as error:
        message = f"MLflow at {server} did not take everything ({brief(error)}); try again: {sync_command(folder)}"
        raise TrackingError(message) from error
    cursor = before.cursor if before.run_id == state.run_id else outbox.NOTHING_SENT
    rounds = sum(entry.record.round > cursor for entry in entries)
    files = len(folder.artifacts())
    return f"sent {rounds} rounds and {files} files to MLflow run {state.run_id} at {server}"


def sync_command(folder: RunFolder) -> str:
    """The command that sends what is missing of a run, to be typed in the working folder."""
    path = folder.path.absolute()
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"tightwire sync {shlex.quote(str(shown))}"


def _entries(folder: RunFolder) -> list[Entry]:
    """The run's rounds; those that no tracker was told go to the journal, to settle their times."""
    entries = outbox.read(folder.journal)
    if not folder.rounds.is_file():
        return entries
    last = entries[-1] if entries else None
    told = last.record.round if last else outbox.NOTHING_SENT
    untold = [record for record in read_rows(folder.rounds, RoundRecord) if record.round > told]
    new = list(_follow(last, untold, folder.rounds.stat().st_mtime_ns // 1_000_000))
    if new:
        outbox.append(folder.journal, new)
    return entries + new


def _follow(last: Entry | None, records: list[RoundRecord], end_ms: int) -> Iterator[Entry]:
    """Entries of rounds whose wall times are only known by their lengths, counted back from the end."""
    remaining = sum(record.wall_seconds for record in records)
    for record in records:
        remaining -= record.wall_seconds
        last = outbox.follow(last, record, end_ms - round(remaining * 1000))
        yield last


def _ended(state: SendState, entries: list[Entry]) -> SendState:
    if state.status != "running":
        return state
    return replace(
        state,
        status="killed",
        end_ms=entries[-1].wall_ms if entries else state.start_ms,
        tags={**state.tags, "status": "killed"},
    )


def _untracked(folder: RunFolder, uri: str, entries: list[Entry]) -> SendState:
    """The state of a run that ran without this tracker, from its files."""
    config = yaml.safe_load(folder.config.read_bytes())
    params = dict(_leaves(config, ""))
    finished = folder.summary.is_file()
    end_ms = entries[-1].wall_ms if entries else folder.config.stat().st_mtime_ns // 1_000_000
    tags = {"status": "finished" if finished else "killed"}
    if finished:
        tags["digest"] = read_digest(folder.summary)
    if "seed" in params:
        tags["seed"] = params["seed"]
    return SendState(
        tracking_uri=uri,
        experiment=params.get("tracking.experiment", DEFAULT_EXPERIMENT),
        name=folder.name,
        params=params,
        tags=tags,
        start_ms=end_ms - round(sum(entry.record.wall_seconds for entry in entries) * 1000),
        status="finished" if finished else "killed",
        end_ms=end_ms,
    )


def _leaves(node: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from _leaves(child, f"{prefix}.{name}" if prefix else str(name))
    elif prefix:
        yield prefix, str(node)
