"""Live progress of a study in the terminal."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tightwire.studies.folder import StudyFolder, read_error, read_summary, status
from tightwire_pipelines.units import clock, megabytes

SHOWN = 8
"""Running trials that have a line of their own."""


class StudyLive:
    """Shows a study's trials: a moving table on a terminal, a line for each trial that ends elsewhere.

    Args:
        console: Where to.
        folder: The study's folder.
        rounds: Rounds of each trial that is to run, by name.
        before: Trials that had finished before.
    """

    def __init__(self, console: Console, folder: StudyFolder, rounds: Mapping[str, int], before: int) -> None:
        self._console = console
        self._folder = folder
        self._rounds = rounds
        self._before = before
        self._closed: dict[str, int] = {}
        self._running: dict[str, None] = {}
        self._begun_with: dict[str, int] = {}
        self._finished = 0
        self._failed = 0
        self._began = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator["StudyLive"]:
        """The progress, while the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(console=self._console, get_renderable=self._table, refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def started(self, trial: str) -> None:
        """See `tightwire.studies.trial.Watcher`."""
        self._running[trial] = None

    def advanced(self, trial: str, round: int) -> None:
        """See `tightwire.studies.trial.Watcher`."""
        self._begun_with.setdefault(trial, round if round < self._rounds[trial] else 0)
        self._closed[trial] = round

    def ended(self, trial: str) -> None:
        """See `tightwire.studies.trial.Watcher`."""
        self._running.pop(trial, None)
        folder = self._folder.trial(trial)
        became = status(folder)
        if became == "open":
            return
        self._closed[trial] = self._rounds[trial]
        if became == "failed":
            self._failed += 1
            self._print(f"{self._head(trial)} failed: {read_error(folder)}")
            return
        self._finished += 1
        if self._live is None:
            summary = read_summary(folder)
            facts = (
                f"accuracy {summary.accuracy:.1%}",
                f"up {megabytes(summary.bytes_up)}",
                f"clock {clock(summary.sim_seconds)}",
            )
            eta = self._eta()
            self._print(f"{self._head(trial)}  {'  '.join(facts)}{f'  ETA {eta}' if eta else ''}")

    def note(self, text: str) -> None:
        """See `tightwire.studies.trial.Watcher`."""
        self._print(f"note: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _head(self, trial: str) -> str:
        done = self._before + self._finished + self._failed
        return f"trial {done}/{self._before + len(self._rounds)} {trial}"

    def _eta(self) -> str:
        """Wall time left, by the rounds that this command has run."""
        run = sum(self._closed.values()) - sum(self._begun_with.get(trial, 0) for trial in self._closed)
        left = sum(self._rounds.values()) - sum(self._closed.values())
        if run <= 0 or left <= 0:
            return ""
        seconds = (time.monotonic() - self._began) * left / run
        return f"{seconds:.0f} s" if seconds < 60 else clock(seconds)

    def _table(self) -> Group:
        trials = self._before + len(self._rounds)
        words = [f"{self._before + self._finished}/{trials} trials", f"{len(self._running)} running"]
        if self._failed:
            words.append(f"{self._failed} failed")
        if eta := self._eta():
            words.append(f"ETA {eta}")
        line = Table.grid(padding=(0, 2, 0, 0))
        done, total = sum(self._closed.values()), max(1, sum(self._rounds.values()))
        line.add_row(Text("  ".join(words), no_wrap=True), ProgressBar(total=total, completed=done, width=24))
        rows = Table.grid(padding=(0, 2, 0, 0))
        for trial in list(self._running)[:SHOWN]:
            closed, rounds = self._closed.get(trial, 0), self._rounds[trial]
            bar = ProgressBar(total=rounds, completed=closed, width=16)
            rows.add_row(Text(f"  {trial}", no_wrap=True, overflow="ellipsis"), bar, f"{closed}/{rounds}")
        if len(self._running) > SHOWN:
            rows.add_row(Text(f"  and {len(self._running) - SHOWN} more"))
        return Group(line, rows)
