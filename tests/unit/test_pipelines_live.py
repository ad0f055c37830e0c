"""What a person sees of a run while it goes."""

import io
import re

import pytest
from rich.console import Console

from tightwire.federation.records import RoundRecord
from tightwire_pipelines.live import Live

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def record(round_: int) -> RoundRecord:
    figures = (0.931, 0.2, 0.3, 120_000, 1_400_000, 0, 1, 1, 1800.0, 1800.0 * round_, 1.0, 1.0, 4.0, 0.1)
    return RoundRecord(round_, *figures, 20, 18, 1, 1, 1, 0, 0, hosts=2)


def console(width: int, *, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return ANSI.sub("", console.file.getvalue())


def last_line(console: Console) -> str:
    return re.split(r"[\r\n]+", written(console).rstrip())[-1].rstrip()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_moving_line_holds_every_figure_and_never_wraps(width: int) -> None:
    where = console(width, terminal=True)
    live = Live(where, 100, quiet=False)
    with live.shown():
        live.restored([record(n) for n in range(1, 96)])
        for n in range(96, 100):
            live.round(record(n))
    line = last_line(where)
    assert len(line) <= width
    for figure in ("round 99/100", "93.1%", "up 11.9 MB", "down 139 MB", "2 d 1 h", "2 hosts"):
        assert figure in line, line
    assert ("━" in line) == (width >= 100), line


def test_a_resumed_run_counts_on_from_the_rounds_restored() -> None:
    where = console(200, terminal=False)
    live = Live(where, 10, quiet=False)
    with live.shown():
        live.restored([record(n) for n in range(1, 10)])
        live.round(record(10))
    assert "round 10/10  accuracy 93.1%  up 1.20 MB  down 14.0 MB  clock 5 h 0 min" in written(where)


def test_the_eta_counts_no_restored_round_as_just_done(monkeypatch: pytest.MonkeyPatch) -> None:
    current = [0.0]
    live = Live(console(200, terminal=True), 100, quiet=False)
    monkeypatch.setattr(live._progress, "get_time", lambda: current[0])
    live.restored([record(n) for n in range(1, 51)])
    for n in range(51, 61):
        current[0] += 2.0
        live.round(record(n))
    assert live._progress.tasks[0].time_remaining == pytest.approx(80, abs=1)


def test_the_beginning_is_told_once_and_before_the_first_round() -> None:
    told: list[str] = []
    live = Live(console(80, terminal=False), 2, quiet=True, begun=lambda: told.append("begun"))
    assert told == []
    live.restored([])
    assert told == ["begun"]


def test_a_quiet_run_says_nothing_but_notes() -> None:
    where = console(80, terminal=True)
    live = Live(where, 1, quiet=True)
    with live.shown():
        live.restored([])
        live.round(record(1))
        live.note("the disk is [full]")
    assert written(where).strip() == "note: the disk is [full]"
