"""`tightwire watch` and `tightwire stop`: a job's run on this terminal, as if it were run here."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from rich.console import Console

from tightwire.errors import ConfigError
from tightwire.federation.records import Summary
from tightwire_actors.jobs import AwayError, Job, Jobs
from tightwire_pipelines.jobs import status
from tightwire_pipelines.jobs_events import MARK, Event, ended, read, record, rest
from tightwire_pipelines.live import Live
from tightwire_pipelines.terminal import opening, report

POLL_SECONDS = 1.0
TAIL = 200
"""Lines asked for at once; where more have come since, the whole log is read."""
LAST_WORDS = 20
"""Lines shown of a log whose job died without saying why."""
STOPPED = 130
"""Exit code of a run that was stopped and can go on, by the shell's convention for Ctrl-C."""


class Follower:
    """Reads a job's events, each once and in order, however long the cluster is away in between."""

    def __init__(self, jobs: Jobs, id: str, note: Callable[[str], None]) -> None:
        self._jobs = jobs
        self._id = id
        self._note = note
        self._next = 0
        self._away = False
        self.events: list[Event] = []
        """All that were read."""
        self.job = jobs.get(id)
        """The job, as it was last."""

    def __iter__(self) -> Iterator[list[Event]]:
        """The events at first, then those that have come since, about once a second, until the job is over."""
        while True:
            try:
                self.job = self._jobs.get(self._id)
                news = self._news()
            except AwayError as error:
                if not self._away:
                    self._note(f"{error}; trying again, the job goes on without this terminal")
                self._away = True
            else:
                if self._away:
                    self._note("the cluster answers again")
                self._away = False
                yield news
                if self.job.over:
                    return
            time.sleep(POLL_SECONDS)

    def last_words(self) -> list[str]:
        """The end of the job's log, without its events."""
        return rest(self._jobs.log(self._id, LAST_WORDS))

    def _news(self) -> list[Event]:
        lines = self._jobs.log(self._id, TAIL)
        found = read(lines)
        if len(lines) >= TAIL and (not found or found[0].n > self._next):
            found = read(self._jobs.log(self._id, -1))
        news = [event for event in found if event.n >= self._next]
        if news:
            self._next = news[-1].n + 1
            self.events += news
        return news


def watch(jobs: Jobs, id: str, console: Console, *, quiet: bool) -> tuple[int, Summary | None]:
    """Show a job's run from its first round on, stay until it ends, and say how it ended.

    Args:
        jobs: The cluster's jobs.
        id: Which.
        console: Where to.
        quiet: Show notes alone.

    Returns:
        The exit code: 0 when the run has finished, 130 when it was stopped, and that of the job's command, or 1, when
        it failed; and the run's summary if it has finished.

    Raises:
        ConfigError: There is no such job.
        KeyboardInterrupt: Somebody has seen enough; the job goes on.
    """
    follower = Follower(jobs, id, lambda text: _say(f"note: {text}", console))
    _ours(follower.job)
    if follower.job.status == "waiting" and not quiet:
        _say(f"{id} waits for the cluster to start it", console)
    try:
        with ExitStack() as shown:
            view: Live | None = None
            for news in follower:
                view = _feed(view, news, jobs.url, console, shown, quiet=quiet)
    except KeyboardInterrupt:
        _say(f"left; the job goes on, see it again with: tightwire watch {id}", console)
        raise
    return _conclude(follower, console, quiet=quiet)


def stop(jobs: Jobs, id: str, console: Console) -> int:
    """Have a job end after the round under way, with a checkpoint, and wait until it has.

    Returns:
        The exit code: 0 when it has stopped, or finished with that round; else that of the job's command, or 1.

    Raises:
        ConfigError: There is no such job, or it is over.
        KeyboardInterrupt: Nobody waits for it; it stops all the same.
    """
    job = jobs.get(id)
    _ours(job)
    if job.over:
        became = status(job, read(jobs.log(id, TAIL)))
        raise ConfigError(f"{id}: has {became.replace('stopped', 'been stopped')} already; there is nothing to stop")
    follower = Follower(jobs, id, lambda text: _say(f"note: {text}", console))
    jobs.stop(id)
    _say(f"{id} ends after the round under way and saves a checkpoint; waiting for it", console)
    try:
        for _ in follower:
            pass
    except KeyboardInterrupt:
        _say(f"left; it stops all the same, see it with: tightwire watch {id}", console)
        raise
    code, _ = _conclude(follower, console, quiet=True)
    return 0 if code in (0, STOPPED) else code


def _ours(job: Job) -> None:
    if MARK not in job.metadata:
        raise ConfigError(f"{job.id}: is no job of tightwire; `tightwire jobs` lists those")


def _feed(
    view: Live | None,
    news: list[Event],
    url: str,
    console: Console,
    shown: ExitStack,
    *,
    quiet: bool,
) -> Live | None:
    """Show what is new; rounds that were closed before this terminal came do not count for the time that is left."""
    first = view is None
    records = []
    for event in news:
        told = event.told
        if event.kind == "opened":
            if not quiet:
                opening(told["name"], f"on {url}", told["text"], console)
            view = shown.enter_context(Live(console, told["rounds"], quiet=quiet).shown())
        elif event.kind == "restored":
            records = [record(one) for one in told["records"]]
            if not first and view is not None:
                view.restored(records)
        elif event.kind == "round" and first:
            records.append(record(told["record"]))
        elif event.kind == "round" and view is not None:
            view.round(record(told["record"]))
        elif event.kind == "note":
            if view is None:
                _say(f"note: {told['text']}", console)
            else:
                view.note(told["text"])
    if first and view is not None and any(event.kind == "restored" for event in news):
        view.restored(records[:-1])
        if records:
            view.round(records[-1])
    return view


def _conclude(follower: Follower, console: Console, *, quiet: bool) -> tuple[int, Summary | None]:
    """Say how a job that is over has ended."""
    job = follower.job
    again = f"tightwire submit --resume {job.id}"
    last = follower.events[-1] if follower.events else None
    if last is not None and last.kind == "ended":
        end = ended(last.told)
        place = next((event.told["folder"] for event in follower.events if event.kind == "opened"), "")
        pages = last.told["mlflow"].replace("open with:", "open on the head node with:")
        report(end, place, last.told["plots"], pages, again, console, quiet=quiet, host="; on the head node")
        return (STOPPED if end.summary is None else 0), end.summary
    if last is not None and last.kind == "failed":
        _say(f"{job.id} failed: {last.told['error']}", console)
        if any(event.kind == "restored" for event in follower.events):
            _say(f"what it had saved stays; go on with: {again}", console)
        return int(last.told["code"]), None
    if job.status == "stopped" and last is None:
        _say("stopped before it began; to have it run, submit it anew", console)
        return STOPPED, None
    if job.status == "stopped" and not any(event.kind == "restored" for event in follower.events):
        _say(f"stopped before its first round; go on with: {again}", console)
        return STOPPED, None
    for line in follower.last_words():
        _say(f"  {line}", console)
    reason = "" if job.exit_code is None else f" (exit code {job.exit_code})"
    _say(f"{job.id} died without saying why{reason}; what it had saved stays; go on with: {again}", console)
    return job.exit_code if job.exit_code and job.exit_code > 0 else 1, None


def _say(line: str, console: Console) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
