"""Live progress of a run in the terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tightwire.federation.records import RoundRecord
from tightwire_pipelines.units import clock, megabytes

PLAIN_SECONDS = 5.0
"""Where there is no terminal, one line at most so often."""


class Live:
    """Shows a run's rounds as they close: a moving line on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, rounds: int, *, quiet: bool) -> None:
        self._console = console
        self._rounds = rounds
        self._quiet = quiet
        self._moving = console.is_terminal and not quiet
        self._up = 0
        self._down = 0
        self._accuracy: float | None = None
        self._last_plain = -PLAIN_SECONDS
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=24),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            _Facts(),
            console=console,
            disable=not self._moving,
        )
        self._task = self._progress.add_task("run", total=rounds, facts="")

    @contextmanager
    def shown(self) -> Iterator["Live"]:
        """The progress, while the block runs."""
        with self._progress:
            yield self

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        self._up += record.bytes_up
        self._down += record.bytes_down
        if record.accuracy is not None:
            self._accuracy = record.accuracy
        if self._moving:
            self._progress.update(self._task, completed=record.round, facts=self._facts(record))
        elif not self._quiet:
            self._plain(record)

    def note(self, text: str) -> None:
        """See `tightwire.simulation.Listener`."""
        self._progress.console.print(f"note: {text}", highlight=False, soft_wrap=True, markup=False)

    def _plain(self, record: RoundRecord) -> None:
        now = time.monotonic()
        if now - self._last_plain >= PLAIN_SECONDS or record.round == self._rounds:
            self._last_plain = now
            line = f"round {record.round}/{self._rounds}  {self._facts(record)}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _facts(self, record: RoundRecord) -> str:
        accuracy = "-" if self._accuracy is None else f"{self._accuracy:.1%}"
        hosts = f"{record.hosts} host" + ("s" if record.hosts != 1 else "")
        return (
            f"accuracy {accuracy}  up {megabytes(self._up)}  down {megabytes(self._down)}  "
            f"clock {clock(record.sim_seconds)}  {hosts}"
        )


class _Facts(ProgressColumn):
    """The figures behind the bar; narrow terminals cut them off rather than wrap."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["facts"], no_wrap=True, overflow="ellipsis")
