"""Live progress of a run in the terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tightwire.federation.records import RoundRecord
from tightwire_pipelines.units import clock, megabytes

PLAIN_SECONDS = 5.0
"""Where there is no terminal, one line at most so often."""
PACE_SECONDS = 3600.0
"""The ETA goes by the rounds of the last so many wall seconds."""
BAR = range(8, 41)
"""Widths that the bar may have; where there is no room for the smallest, there is none."""


class Live:
    """Shows a run's rounds as they close: a moving line on a terminal, plain lines elsewhere.

    Args:
        console: Where to.
        rounds: How many the whole run has.
        quiet: Show notes alone.
        begun: Called once the run has begun, before its first round.
    """

    def __init__(self, console: Console, rounds: int, *, quiet: bool, begun: Callable[[], None] = lambda: None) -> None:
        self._console = console
        self._rounds = rounds
        self._quiet = quiet
        self._begun = begun
        self._moving = console.is_terminal and not quiet
        self._up = 0
        self._down = 0
        self._accuracy: float | None = None
        self._last_plain = -PLAIN_SECONDS
        self._progress = Progress(
            _Line(console), console=console, disable=not self._moving, speed_estimate_period=PACE_SECONDS
        )
        self._task = self._progress.add_task("run", total=rounds, facts=("starting",))

    @contextmanager
    def shown(self) -> Iterator["Live"]:
        """The progress, while the block runs."""
        with self._progress:
            yield self

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """See `tightwire.simulation.Listener`."""
        for record in records:
            self._add(record)
        facts = self._facts(records[-1]) if records else ("first round",)
        self._progress.reset(self._task, completed=len(records), facts=facts)
        self._begun()

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        self._add(record)
        if self._moving:
            self._progress.update(self._task, completed=record.round, facts=self._facts(record))
        elif not self._quiet:
            self._plain(record)

    def note(self, text: str) -> None:
        """See `tightwire.simulation.Listener`."""
        self._progress.console.print(f"note: {text}", highlight=False, soft_wrap=True, markup=False)

    def _add(self, record: RoundRecord) -> None:
        self._up += record.bytes_up
        self._down += record.bytes_down
        if record.accuracy is not None:
            self._accuracy = record.accuracy

    def _plain(self, record: RoundRecord) -> None:
        now = time.monotonic()
        if now - self._last_plain >= PLAIN_SECONDS or record.round == self._rounds:
            self._last_plain = now
            line = f"round {record.round}/{self._rounds}  {'  '.join(self._facts(record))}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _facts(self, record: RoundRecord) -> tuple[str, ...]:
        return (
            "accuracy " + ("-" if self._accuracy is None else f"{self._accuracy:.1%}"),
            f"up {megabytes(self._up)}",
            f"down {megabytes(self._down)}",
            f"clock {clock(record.sim_seconds)}",
            f"{record.hosts} host" + ("s" if record.hosts != 1 else ""),
        )


class _Line(ProgressColumn):
    """The whole line. What a narrow terminal has no room for goes in this order: the bar, words, the end."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Table:
        """The line as wide as the terminal is now."""
        head = f"round {task.completed:.0f}/{task.total:.0f}"
        tail = "  ".join(task.fields["facts"])
        if task.time_remaining:
            tail = f"ETA {_eta(task.time_remaining)}  {tail}"
        room = self._console.width - len(head) - len(tail) - 4
        if room < BAR.start:
            tail = tail.replace("accuracy ", "acc ").replace("clock ", "")
            room = self._console.width - len(head) - len(tail) - 4
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        if room >= BAR.start:
            bar = ProgressBar(total=task.total, completed=task.completed, width=min(room, BAR[-1]))
            line.add_row(Text(head, no_wrap=True), bar, Text(tail, no_wrap=True, overflow="ellipsis"))
        else:
            line.add_row(Text(f"{head}  {tail}", no_wrap=True, overflow="ellipsis"))
        return line


def _eta(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else clock(seconds)
