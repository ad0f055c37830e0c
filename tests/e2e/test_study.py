"""A study from its file to its report and its MLflow runs, and what happens to it when something goes wrong."""

import io
import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rich.console import Console

from scenarios import SMALL, digest_of, run_here
from tightwire import config as configs
from tightwire.errors import ConfigError, TrackingError
from tightwire.federation.records import LedgerRow
from tightwire.federation.server import Server
from tightwire.federation.tables import read_rows
from tightwire.studies.folder import StudyFolder, read_error, read_summary
from tightwire.studies.outcomes import TrialResult
from tightwire.studies.tracked import sync_study
from tightwire_pipelines.study import StudyEnded, StudyRequest, start_study
from tightwire_pipelines.study_live import StudyLive

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = {key: value for key, value in SMALL.items() if key not in ("name", "tracking", "rounds")}
STUDY: dict[str, Any] = {
    "name": "tiny",
    "experiment": {**EXPERIMENT, "rounds": 3, "checkpoints": {"every": 1}},
    "seeds": 2,
    "target": 0.3,
    "variations": [
        {"name": "four bits", "set": {"policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}}},
        {"name": "eight bits", "set": {"policy": {"name": "fixed", "codec": "topk(0.1) | uniform(8) | rans"}}},
    ],
    "report": {"title": "How many bits?"},
}
NOWHERE = "tracking={to: nowhere, plots: false}"


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float | None]]:
    """Works in a folder of its own; the reports asked for, by title, trials and target."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("tiny.yaml").write_text(yaml.safe_dump(STUDY))
    asked: list[tuple[str, int, float | None]] = []

    def write_report(
        folder: Path,
        trials: Sequence[TrialResult],
        title: str,
        target: float | None,
        **_: object,
    ) -> Path:
        asked.append((title, len(trials), target))
        path = folder / "report.html"
        path.write_text(title)
        return path

    stand_in = types.ModuleType("tightwire_pipelines.report")
    stand_in.write_report = write_report  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "tightwire_pipelines.report", stand_in)
    return asked


def study(*overrides: str, terminal: bool = False, **request: Any) -> tuple[StudyEnded, str]:
    said = io.StringIO()
    file = None if "resume" in request else Path("tiny.yaml")
    console = Console(file=said, width=200, force_terminal=terminal)
    return start_study(StudyRequest(file, overrides, in_process=True, **request), console), said.getvalue()


def trial_folders(ended: StudyEnded) -> list[Path]:
    return sorted((ended.folder / "trials").iterdir())


def test_a_study_gives_the_bits_of_single_runs_on_common_random_numbers(
    reports: list[tuple[str, int, float | None]],
) -> None:
    ended, said = study(NOWHERE)
    assert (ended.code, ended.finished, ended.failed, ended.open) == (0, 4, 0, 0)
    assert reports == [("How many bits?", 4, 0.3)]
    assert "four bits" in said
    assert "report   studies/tiny/report.html" in said
    folder = StudyFolder(ended.folder)
    for path in trial_folders(ended):
        config = configs.load(path / "config.yaml")
        alone = digest_of(run_here(config, Path("alone") / path.name))
        assert read_summary(folder.trial(path.name)).digest == alone
    for seed in (0, 1):
        asked = [
            [(row.round, row.client, row.tier, row.status == "lost") for row in rows if row.direction == "up"]
            for rows in (
                read_rows(folder.trial(f"{bits}-bits-s{seed}").ledger, LedgerRow) for bits in ("four", "eight")
            )
        ]
        assert asked[0] == asked[1], "the same cohorts and the same drop-outs"
        assert asked[0]
    digests = [read_summary(folder.trial(path.name)).digest for path in trial_folders(ended)]
    assert len(set(digests)) == 4


def test_a_failed_trial_stops_no_other_and_resuming_runs_what_is_not_finished(
    reports: list[tuple[str, int, float | None]],
) -> None:
    tree = {**STUDY, "variations": [*STUDY["variations"][:1], {"name": "moody", "set": {}}]}
    tree["variations"][1]["set"] = {
        "model": {"name": "custom", "function": "moody:model"},
        "policy": {"name": "fixed"},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(tree))
    moods = types.ModuleType("moody")
    moods.model = __import__("faulty").model  # type: ignore[attr-defined]  # a module made here
    sys.modules["moody"] = moods
    try:
        ended, said = study(NOWHERE)
        assert (ended.code, ended.finished, ended.failed, ended.open) == (1, 2, 2, 0)
        folder = StudyFolder(ended.folder)
        assert "ZeroDivisionError" in read_error(folder.trial("moody-s0"))
        assert "moody-s1 failed: round 1, client" in said
        assert "--resume studies/tiny" in said
        assert reports[-1][1] == 2
        before = {path: path.stat().st_mtime_ns for path in folder.trial("four-bits-s0").path.rglob("*")}
        moods.model = __import__("mortal").model  # type: ignore[attr-defined]  # likewise
        Path("died").touch()  # it has: the model is harmless
        ended, said = study(resume="tiny")
    finally:
        del sys.modules["moody"]
    assert (ended.code, ended.finished, ended.failed, ended.open) == (0, 4, 0, 0)
    assert "2 of them finished before" in said
    assert not (folder.trial("moody-s0").path / "error.txt").exists()
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {folder.trial("four-bits-s0").path / "trial.json"}, "a finished trial is not run again"
    assert reports[-1][1] == 4


def test_a_trial_that_was_broken_off_goes_on_from_its_checkpoint(
    reports: list[tuple[str, int, float | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, rounds = Server.step, []
    last = 6

    def watched(self: Any, state: Any) -> Any:
        rounds.append(state.round)
        if len(rounds) == last:
            raise KeyboardInterrupt
        return step(self, state)

    monkeypatch.setattr(Server, "step", watched)
    with pytest.raises(KeyboardInterrupt):
        study(NOWHERE, seeds=1)
    assert rounds == [1, 2, 3, 1, 2, 3]
    ended, _ = study(resume="tiny")
    assert rounds[6:] == [3], "two rounds had been saved, and the other trial was finished"
    assert (ended.code, ended.finished) == (0, 2)
    monkeypatch.undo()
    path = ended.folder / "trials" / "eight-bits-s0"
    alone = digest_of(run_here(configs.load(path / "config.yaml"), ended.folder.parent / "alone"))
    assert json.loads((path / "summary.json").read_text())["digest"] == alone
    assert len(reports) == 1


def test_what_is_asked_for_wrongly_is_refused_and_leaves_nothing(reports: list[tuple[str, int, float | None]]) -> None:
    for overrides, request, line in (
        (("training.lr=x",), {}, r"variation 'four bits': training\.lr"),
        (("data={name: mnist, folder: nowhere}",), {}, r"variation 'four bits': .*nowhere"),
        (("wire.downlink=fp8 | x",), {}, r"variation 'four bits': wire\.downlink"),
        ((), {"resume": "none"}, "none is no study's folder"),
        ((), {"out": Path()}, "is there already"),
        ((), {"workers": 2}, "--in-process has no workers"),
    ):
        with pytest.raises(ConfigError, match=line):
            study(*overrides, **request)
    assert not Path("studies").exists()
    assert not reports


def test_the_report_is_written_where_the_study_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(STUDY | {"report": {"title": "How many?", "baseline": "eight bits"}}))
    ended, said = study(NOWHERE)
    assert ended.report == ended.folder / "report.html"
    page = ended.report.read_text()
    for words in ("How many?", "four bits", "eight bits"):
        assert words in page
    assert "report   studies/tiny/report.html" in said


@pytest.mark.usefixtures("reports")
def test_a_terminal_shows_what_is_running_and_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    table = StudyLive._table

    def seen(self: StudyLive) -> Any:
        drawn = Console(file=io.StringIO(), width=100, record=True)
        drawn.print(table(self))
        shown.append(drawn.export_text())
        return table(self)

    monkeypatch.setattr(StudyLive, "_table", seen)
    advanced = StudyLive.advanced

    def told(self: StudyLive, trial: str, round: int) -> None:
        advanced(self, trial, round)
        seen(self)

    monkeypatch.setattr(StudyLive, "advanced", told)
    ended, said = study(NOWHERE, terminal=True)
    assert ended.code == 0
    assert "means over 2 seeds" in said
    begun, last = shown[1], shown[-1]
    assert "0/4 trials  1 running" in begun
    assert any("1/4 trials  1 running  ETA" in text for text in shown)
    assert any("four-bits-s0" in text and "2/3" in text for text in shown)
    assert "4/4 trials  0 running" in last


def test_a_report_that_cannot_be_written_hides_no_result(
    reports: list[tuple[str, int, float | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Path:
        raise OSError("the disk is full")

    monkeypatch.setattr(sys.modules["tightwire_pipelines.report"], "write_report", full)
    ended, said = study(NOWHERE, seeds=1)
    assert (ended.code, ended.finished, ended.report) == (1, 2, None)
    assert "the report could not be written (OSError: the disk is full)" in said
    assert "means over 1 seed" in said
    monkeypatch.undo()
    assert not reports


def runs(client: "MlflowClient", parent: str | None) -> "list[Run]":
    experiment = client.get_experiment_by_name("tightwire")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent]


def test_mlflow_has_a_run_for_the_study_and_one_below_it_for_each_trial_also_after_a_resume(
    reports: list[tuple[str, int, float | None]],
) -> None:
    from mlflow import MlflowClient

    ended, said = study(seeds=1)
    assert "note:" not in said
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    (parent,) = runs(client, None)
    assert (parent.info.run_name, parent.info.status, parent.data.params["seeds"]) == ("tiny", "FINISHED", "0")
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"report.html", "study.yaml"}
    children = runs(client, parent.info.run_id)
    assert {run.info.run_name: run.data.tags["tightwire.variation"] for run in children} == {
        "four-bits-s0": "four bits",
        "eight-bits-s0": "eight bits",
    }
    for run in children:
        summary = read_summary(StudyFolder(ended.folder).trial(run.info.run_name))
        assert summary.mlflow_run_id == run.info.run_id
        assert run.data.tags["digest"] == summary.digest
        assert (run.data.tags["tightwire.study"], run.data.tags["tightwire.seed"]) == ("tiny", "0")
        assert run.data.metrics["total_bytes_up"] == summary.bytes_up
        history = client.get_metric_history(run.info.run_id, "sim_seconds")
        assert [point.step for point in history] == [1, 2, 3]
        assert run.data.params["policy.name"] == "fixed"
    ended, _ = study(resume="tiny", seeds=2)
    assert [run.info.run_id for run in runs(client, None)] == [parent.info.run_id]
    again = runs(client, parent.info.run_id)
    assert len(again) == 4
    assert {run.info.run_id for run in children} < {run.info.run_id for run in again}
    assert [asked[1] for asked in reports] == [2, 4]


@pytest.mark.usefixtures("reports")
def test_a_tracking_server_that_is_away_costs_a_note_and_gets_everything_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ended, said = study(seeds=1)
    assert (ended.code, ended.finished) == (0, 2)
    assert "did not get all of the study (connection refused)" in said
    assert "tightwire sync studies/tiny" in said
    with pytest.raises(TrackingError, match="try again"):
        sync_study(ended.folder)
    store = f"sqlite:///{Path.cwd()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert "sent 2 trials" in sync_study(ended.folder)
    assert "sent 0 trials" in sync_study(ended.folder)
    (parent,) = runs(MlflowClient(store), None)
    assert parent.info.status == "FINISHED"
    assert len(runs(MlflowClient(store), parent.info.run_id)) == 2
