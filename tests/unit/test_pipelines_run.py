"""One run in its folder: who may run it, and what a resumed one says first."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from scenarios import Quiet, run_here, small
from tightwire.errors import ConfigError
from tightwire.tracking.folder import RunFolder
from tightwire_pipelines.run import Request, start


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("""
        name: tiny
        rounds: 2
        model: {name: mlp, hidden: [8]}
        population: {clients: 10}
        participation: {cohort: 4}
        tracking: {to: nowhere, plots: false}
    """)
    return Path("tiny.yaml")


def begin(request: Request) -> RunFolder:
    return start(request, Console(file=io.StringIO()), quiet=True)[1]


def test_a_resumed_run_tells_of_the_restored_rounds_before_its_first(tmp_path: Path) -> None:
    first, second = Quiet(), Quiet()
    run_here(small(), tmp_path / "run", listener=first, stop_after=2)
    run_here(small(), tmp_path / "run", listener=second)
    assert first.earlier == []
    assert second.earlier == first.records
    assert [record.round for record in second.records] == [3, 4]


def test_a_run_that_another_process_runs_is_refused_and_nothing_of_it_is_touched(tiny: Path) -> None:
    folder = begin(Request(tiny, in_process=True))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with folder.locked():
        with pytest.raises(ConfigError, match="is being run by another process"):
            begin(Request(None, ("rounds=3",), in_process=True, resume="tiny"))
        with pytest.raises(ConfigError, match="is being run by another process"):
            run_here(small(), folder.path)
    del before[folder.config]  # run_here writes it anew
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_latest_follows_new_runs_and_resumed_ones_wherever_they_lie(tiny: Path) -> None:
    begin(Request(tiny, in_process=True))
    begin(Request(tiny, in_process=True, out=Path("far/away")))
    assert Path("runs/latest").readlink() == Path("../far/away")
    assert not Path("far/latest").exists()
    begin(Request(None, in_process=True, resume="tiny"))
    assert Path("runs/latest").readlink() == Path("tiny")
    begin(Request(None, in_process=True, resume="far/away"))
    assert Path("runs/latest").readlink() == Path("../far/away")


def test_a_run_refused_before_its_first_round_leaves_neither_folder_nor_latest(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:  # noqa: ARG001 - takes whatever it is called with
        raise ConfigError("no")

    begin(Request(tiny, in_process=True))
    monkeypatch.setattr("tightwire_pipelines.run.InProcessPool", refuse)
    with pytest.raises(ConfigError, match=r"^no$"):
        begin(Request(tiny, in_process=True))
    assert sorted(path.name for path in Path("runs").iterdir()) == ["latest", "tiny"]
    assert Path("runs/latest").readlink() == Path("tiny")
    with pytest.raises(ConfigError, match=r"^no$"):
        begin(Request(None, in_process=True, resume="tiny"))
    assert Path("runs/tiny/summary.json").exists(), "an earlier run is never removed"
