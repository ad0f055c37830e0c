"""What a watcher makes of a job's log, on a cluster that is only pretended."""

import io
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from scenarios import Quiet, run_here, small
from tightwire.errors import ConfigError
from tightwire.federation.records import Ended
from tightwire_actors.jobs import AwayError, Job, Jobs
from tightwire_pipelines.interrupts import none_lost
from tightwire_pipelines.jobs import rows
from tightwire_pipelines.jobs_events import Events
from tightwire_pipelines.jobs_watch import TAIL, Follower, stop, watch

JOB = Job("small-1", "running", {"tightwire": "small", "out": "/out"}, 1000.0, None, "", None)


class Pretended(Jobs):
    """Answers with what it was given: at each look a log, or None for a cluster that is away; the last one stays."""

    def __init__(self, *looks: str | None, end: Job) -> None:
        self._looks = list(looks)
        self._end = end
        self.asked: list[int] = []

    @property
    def url(self) -> str:
        return "http://head"

    def all(self) -> list[Job]:
        return [self._end, replace(JOB, id="somebody's", metadata={})]

    def get(self, id: str) -> Job:  # noqa: ARG002 - there is but one
        if self._looks[0] is None:
            self._looks.pop(0)
            raise AwayError("the cluster at http://head does not answer")
        return JOB if len(self._looks) > 1 else self._end

    def log(self, id: str, lines: int) -> list[str]:  # noqa: ARG002 - there is but one
        self.asked.append(lines)
        log = self._looks.pop(0) if len(self._looks) > 1 and lines > 0 else self._looks[0]
        found = str(log).splitlines()
        return found if lines < 0 else found[-lines:]

    def stop(self, id: str) -> None:
        pass


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightwire_pipelines.jobs_watch.POLL_SECONDS", 0.0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of three rounds and their end."""
    stream, quiet = io.StringIO("Runtime env is setting up.\n"), Quiet()
    stream.seek(0, io.SEEK_END)
    ended = run_here(small(rounds=3), tmp_path_factory.mktemp("run"), listener=quiet)
    told = Events(stream)
    told.opened(name="small", rounds=3, text="digits", folder=Path("/out"), begun=lambda: None)
    told.restored([])
    for record in quiet.records:
        told.round(record)
    told.ended(ended, [], "open with: mlflow ui")
    return stream.getvalue()


def seen(jobs: Jobs) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    code, _ = watch(jobs, JOB.id, console, quiet=False)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_every_event_is_read_once_although_lines_are_cut_and_the_cluster_goes_away(log: str) -> None:
    looks = [log[:300], log[:900], None, None, log[: len(log) // 2], log]
    notes: list[str] = []
    follower = Follower(Pretended(log[:10], *looks, end=replace(JOB, status="finished")), JOB.id, notes.append)
    numbers = [event.n for news in follower for event in news]
    assert numbers == list(range(6))
    assert notes == [
        "the cluster at http://head does not answer; trying again, the job goes on without this terminal",
        "the cluster answers again",
    ]


def test_the_whole_log_is_read_where_its_end_is_not_enough(log: str) -> None:
    noise = "noise\n" * TAIL
    jobs = Pretended(log + noise, end=replace(JOB, status="finished"))
    notes: list[str] = []
    assert len(next(iter(Follower(jobs, JOB.id, notes.append)))) == 6
    assert jobs.asked == [TAIL, -1]


def test_who_comes_late_sees_where_the_run_is_and_how_it_ended(log: str) -> None:
    code, text = seen(Pretended(log, end=replace(JOB, status="finished")))
    assert code == 0
    assert "small on http://head: digits" in text
    assert text.count("round 3/3") == 1
    assert "results  /out/ (tables, model, summary.json; on the head node)" in text


def test_the_exit_code_is_that_of_the_run(log: str) -> None:
    stream = io.StringIO()
    Events(stream).ended(Ended(2, None), [], "")
    assert seen(Pretended(stream.getvalue(), end=replace(JOB, status="failed", exit_code=130)))[0] == 130
    stream = io.StringIO()
    Events(stream).failed(ConfigError("no such data"), 2)
    code, text = seen(Pretended(stream.getvalue(), end=replace(JOB, status="failed", exit_code=2)))
    assert (code, "small-1 failed: no such data" in text) == (2, True)
    died = log.replace('{"tightwire": "ended"', '{"else": "ended"') + "Killed\n"
    code, text = seen(Pretended(died, end=replace(JOB, status="failed", exit_code=-9)))
    assert code == 1
    assert "  Killed\n" in text
    assert "died without saying why (exit code -9)" in text
    code, text = seen(Pretended("Runtime env is setting up.\n", end=replace(JOB, status="stopped")))
    assert (code, "submit it anew" in text) == (130, True)


def test_a_ctrl_c_that_comes_while_an_object_is_cleared_away_is_not_lost(log: str) -> None:
    class Unlucky:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    class Clearing(Pretended):
        def get(self, id: str) -> Job:
            if len(self.asked) == 1:
                Unlucky()
            return super().get(id)

    console = Console(file=io.StringIO(), width=120)
    watched = Clearing(log[:300], log[:300], end=JOB)
    with pytest.raises(KeyboardInterrupt), none_lost():
        watch(watched, JOB.id, console, quiet=False)
    assert len(watched.asked) > 1, "it was dropped, and came again"
    assert isinstance(console.file, io.StringIO)
    assert "left; the job goes on" in console.file.getvalue()


def test_jobs_of_others_are_left_out_and_left_alone(log: str) -> None:
    (row,) = rows(Pretended(log, end=replace(JOB, status="finished", ended=1060.0)), now=2000.0)
    assert (row.id, row.status, row.round, row.rounds, row.seconds) == ("small-1", "finished", 3, 3, 60.0)
    other = Pretended("", end=replace(JOB, metadata={}))
    with pytest.raises(ConfigError, match="is no job of tightwire"):
        stop(other, JOB.id, Console(file=io.StringIO()))
    over = Pretended(log, end=replace(JOB, status="stopped"))
    with pytest.raises(ConfigError, match="has been stopped already"):
        stop(over, JOB.id, Console(file=io.StringIO()))
