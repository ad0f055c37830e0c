"""The tracker against a real `mlflow server` that dies and comes back, and against a store in a file."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord, Summary
from tightwire.federation.tables import write_rows_atomically
from tightwire.tracking.base import RunInfo
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.mlflow import MlflowTracker, sync
from tightwire.tracking.outbox import SendState
from tightwire.tracking.plots import draw
from tightwire.tracking.summary import summarise, write_summary
from tracking_server import START_SECONDS, Proxy, Server

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.timeout(600)  # the first test waits for the server's start, too
FILES = ["config.yaml", "decisions.parquet", "ledger.parquet", "plots", "rounds.parquet", "summary.json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    made = RunFolder.create(tmp_path / "runs", "demo")
    made.write_config("seed: 3\n")
    return made


def a_round(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        accuracy=None if number % 2 else 0.1 * number,
        loss=None if number % 2 else 1.0 / number,
        train_loss=2.0 / number,
        bytes_up=10,
        bytes_down=20,
        bytes_wasted=3,
        bytes_up_fp32=100,
        bytes_down_fp32=200,
        seconds=60.5,
        sim_seconds=60.5 * number,
        sim_seconds_fp32=90.0 * number,
        joules=0.5,
        mean_bits=4.0,
        mean_density=0.1,
        cohort=5,
        participants=4,
        late=1,
        late_fp32=2,
        surplus=0,
        lost=0,
        skipped=0,
        refused={"memory": 2},
    )


def complete(folder: RunFolder, rounds: int) -> Summary:
    """Write what the end of a run writes."""
    records = [a_round(number) for number in range(1, rounds + 1)]
    decision = DecisionRow(1, 7, "sensor", "none", 4.0, 0.1, "fixed", None, None, None, 10, 1.0, 0.1, "used")
    bill = LedgerRow(1, 7, "sensor", "up", "none", "used", 10, 1, 2, 3, 0, 4, 0, 40, 1.5, 0.1)
    write_rows_atomically(folder.rounds, records, RoundRecord)
    write_rows_atomically(folder.decisions, [decision], DecisionRow)
    write_rows_atomically(folder.ledger, [bill], LedgerRow)
    draw(folder.plots, records, [decision], [bill])
    summary = summarise(
        records,
        name="demo",
        clients=9,
        cohort=5,
        workers=1,
        seed=3,
        digest="d1",
        mlflow_run_id=None,
        wall_seconds=1.0,
    )
    write_summary(folder.summary, summary)
    return summary


def an_mlflow_client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(uri)


def steps(uri: str, run_id: str, key: str) -> list[int]:
    return sorted(metric.step for metric in an_mlflow_client(uri).get_metric_history(run_id, key))


def start(uri: str | None, folder: RunFolder) -> MlflowTracker:
    tracker = MlflowTracker(uri, folder.path.parents[1].name)  # an experiment for each test, as the server is for all
    tracker.start(RunInfo("demo", folder.path, {"seed": "3", "training.lr": "0.1"}))
    return tracker


def assert_whole(uri: str, run_id: str, rounds: int) -> None:
    everything = list(range(1, rounds + 1))
    client = an_mlflow_client(uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "demo"
    assert run.data.params == {"seed": "3", "training.lr": "0.1"}
    assert run.data.tags.items() >= {"digest": "d1", "seed": "3", "status": "finished"}.items()
    assert "version.tightwire" in run.data.tags
    assert run.data.metrics["total_bytes_up"] == 10 * rounds
    assert steps(uri, run_id, "bytes_up") == everything
    assert steps(uri, run_id, "total_bytes_up") == everything
    assert steps(uri, run_id, "accuracy") == everything[1::2]
    assert steps(uri, run_id, "accuracy_by_sim_second") == [int(60.5 * number) for number in everything[1::2]]
    assert [file.path for file in client.list_artifacts(run_id)] == FILES
    assert len(client.list_artifacts(run_id, "plots")) == 4
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_run_is_in_mlflow_whole_and_the_terminal_stays_quiet(
    server: Server, folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = start(server.uri, folder)
    for number in range(1, 51):
        tracker.round(a_round(number))
    assert tracker.finish(complete(folder, 50), status="finished") is None
    assert tuple(capfd.readouterr()) == ("", "")
    assert tracker.run_id is not None
    assert_whole(server.uri, tracker.run_id, 50)
    assert sync(folder.path).startswith("nothing was missing")


def test_a_server_that_dies_costs_no_round_and_sync_sends_the_rest_once(server: Server, folder: RunFolder) -> None:
    tracker = start(server.uri, folder)
    tracker.round(a_round(1))
    end = time.monotonic() + START_SECONDS
    while '"cursor": 1' not in folder.mlflow.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    server.kill()
    for number in range(2, 7):
        begun = time.monotonic()
        tracker.round(a_round(number))
        assert time.monotonic() - begun < 0.5
    line = tracker.finish(complete(folder, 6), status="finished")
    assert line is not None
    assert "did not get 5 rounds and the run's files (connection refused)" in line
    assert line.endswith("tightwire sync runs/demo")

    server.start()
    assert tracker.run_id is not None
    sent = sync(Path("runs/demo"))
    assert sent == f"sent 5 rounds and 9 files to MLflow run {tracker.run_id} at {server.uri}"
    assert_whole(server.uri, tracker.run_id, 6)


def test_a_server_that_is_dead_from_the_start_gets_the_run_from_sync(proxy: Proxy, folder: RunFolder) -> None:
    proxy.go()
    tracker = start(proxy.uri, folder)
    for number in range(1, 5):
        tracker.round(a_round(number))
    line = tracker.finish(complete(folder, 4), status="finished")
    assert line is not None
    assert "connection refused" in line
    assert tracker.run_id is None
    proxy.come()
    assert sync(folder.path).startswith("sent 4 rounds")
    run_id = str(SendState.load(folder.mlflow).run_id)
    assert_whole(proxy.uri, run_id, 4)
    assert f'"mlflow_run_id": "{run_id}"' in folder.summary.read_text()


def test_sending_everything_a_second_time_duplicates_nothing(server: Server, folder: RunFolder) -> None:
    tracker = start(server.uri, folder)
    for number in range(1, 41):
        tracker.round(a_round(number))
    assert tracker.finish(complete(folder, 40), status="finished") is None
    replace(SendState.load(folder.mlflow), cursor=-1, completed=False).save(folder.mlflow)
    assert sync(folder.path).startswith("sent 40 rounds")
    assert tracker.run_id is not None
    assert_whole(server.uri, tracker.run_id, 40)


def test_a_resume_goes_on_in_the_same_run_of_a_store_in_the_working_folder(
    folder: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = start(None, folder)
    for number in (1, 2, 3):
        first.round(a_round(number))
    assert first.finish(None, status="killed") is None
    second = start(None, folder)
    for number in (3, 4):
        second.round(a_round(number))
    assert second.finish(complete(folder, 4), status="finished") is None
    assert tuple(capfd.readouterr()) == ("", "")
    assert second.run_id == first.run_id
    assert second.run_id is not None
    assert_whole(f"sqlite:///{tmp_path}/mlflow.db", second.run_id, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlruns", "runs"]


def test_the_commit_of_the_working_folder_is_told(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init")
    assert "git_commit" not in environment_tags(tmp_path)
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    tags = environment_tags(tmp_path)
    assert (tags["git_commit"], tags["git_dirty"]) == (git("rev-parse", "HEAD").strip(), "false")
    (tmp_path / "a").write_text("2")
    assert environment_tags(tmp_path)["git_dirty"] == "true"
