"""`tightwire jobs`: what a cluster has of this project's jobs, in a table."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tightwire_actors.jobs import Job, Jobs
from tightwire_pipelines.jobs_events import MARK, Event, read
from tightwire_pipelines.units import clock

TAIL = 60
"""Lines of a log's end in which a job's progress is looked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job as people see it."""

    id: str
    name: str
    status: str
    round: int | None
    """The last round that has closed."""
    rounds: int | None
    accuracy: float | None
    started: float
    """Seconds since 1970."""
    seconds: float
    """Wall seconds that it has taken."""
    out: str
    """Its folder on the cluster's head node."""


def rows(jobs: Jobs, now: float) -> list[Row]:
    """A row for each of Tightwire's jobs, the latest first.

    Args:
        jobs: The cluster's jobs.
        now: Seconds since 1970.

    Raises:
        AwayError: The cluster does not answer.
    """
    ours = [job for job in jobs.all() if MARK in job.metadata]
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(lambda job: jobs.log(job.id, TAIL), ours))
    return [_row(job, read(log), now) for job, log in zip(ours, logs, strict=True)]


def status(job: Job, events: Sequence[Event]) -> str:
    """A job's status in a word; one whose command was told to stop by somebody else than Ray has stopped too."""
    stopped = any(event.kind == "ended" and event.told["summary"] is None for event in events)
    return "stopped" if job.status == "failed" and stopped else job.status


def _row(job: Job, events: Sequence[Event], now: float) -> Row:
    closed, accuracy = None, None
    rounds = int(job.metadata["rounds"]) if "rounds" in job.metadata else None
    for event in events:
        told = event.told
        if event.kind == "opened":
            rounds, closed = told["rounds"], 0
        records = [told["record"]] if event.kind == "round" else told["records"] if event.kind == "restored" else []
        for record in records:
            closed = record["round"]
            accuracy = accuracy if record["accuracy"] is None else record["accuracy"]
        if event.kind == "ended":
            closed = told["round"]
            accuracy = accuracy if told["summary"] is None else told["summary"]["accuracy"]
    return Row(
        id=job.id,
        name=job.metadata[MARK],
        status=status(job, events),
        round=closed,
        rounds=rounds,
        accuracy=accuracy,
        started=job.started,
        seconds=max(0.0, (job.ended or now) - job.started),
        out=job.metadata["out"],
    )


def as_json(found: Sequence[Row]) -> list[dict[str, object]]:
    """The rows for programs."""
    return [asdict(row) for row in found]


def show(found: Sequence[Row], url: str, console: Console) -> None:
    """Print the rows."""
    if not found:
        console.print(f"the cluster at {url} has no jobs of tightwire", highlight=False, soft_wrap=True, markup=False)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("job", no_wrap=True)
    table.add_column("name", no_wrap=True)
    table.add_column("status", no_wrap=True, min_width=8)
    for heading in ("round", "accuracy", "started", "took"):
        table.add_column(heading, justify="right", no_wrap=True)
    colours = {"failed": "red", "running": "green", "stopped": "yellow"}
    for row in found:
        table.add_row(
            row.id,
            row.name,
            row.status,
            f"{'-' if row.round is None else row.round}/{row.rounds or '-'}",
            "-" if row.accuracy is None else f"{row.accuracy:.1%}",
            f"{datetime.fromtimestamp(row.started):%b %d %H:%M}",
            clock(row.seconds),
            style=colours.get(row.status),
        )
    console.print(table)
