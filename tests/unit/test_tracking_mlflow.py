import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest

from tightwire.errors import TrackingError
from tightwire.federation.records import RoundRecord, Summary
from tightwire.federation.tables import write_rows_atomically
from tightwire.tracking import outbox
from tightwire.tracking.base import RunInfo
from tightwire.tracking.client import brief, chosen_uri, environment
from tightwire.tracking.delivery import METRICS_A_BATCH, PARAM_LENGTH, PARAMS_A_BATCH, Point, deliver, points
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.mlflow import MlflowTracker, Patience, sync
from tightwire.tracking.outbox import Entry, RunStatus, SendState
from tightwire.tracking.summary import summarise, write_summary

URI = "http://fake"
PATIENCE = Patience(batch=0.0, retry=0.001, longest=0.01, finish=10.0)


@dataclass
class FakeServer:
    """A server that can be away, and keeps what it is sent."""

    down: bool = False
    loses_answer_of: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    status: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    calls: int = 0
    called: threading.Event = field(default_factory=threading.Event)

    def connect(self, uri: str) -> "FakeServer":
        assert uri == URI
        return self

    def open_run(self, state: SendState) -> str:
        self._answer("")
        run_id = self.runs.setdefault(state.key, f"run-{len(self.runs)}")
        self._answer("open_run")
        return run_id

    def set_status(self, run_id: str, status: RunStatus, end_ms: int | None) -> None:
        self._answer("")
        assert run_id in self.runs.values()
        assert (end_ms is None) == (status == "running")
        self.status = status

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
    ) -> None:
        self._answer("")
        assert run_id in self.runs.values()
        self.params |= params or {}
        self.tags |= tags or {}
        self.points += [point for point in points if point not in self.points]
        self.sizes.append((len(params or {}), len(tags or {}), len(points)))
        self._answer("log" if points else "")

    def upload(self, run_id: str, file: Path, folder: str | None) -> None:
        self._answer("")
        assert run_id in self.runs.values()
        self.files.append(f"{folder}/{file.name}" if folder else file.name)

    def steps(self, key: str) -> list[int]:
        return [point.step for point in self.points if point.key == key]

    def _answer(self, call: str) -> None:
        self.calls += 1
        self.called.set()
        if self.down:
            raise ConnectionError("[Errno 111] Connection refused")
        if call and call == self.loses_answer_of:
            self.loses_answer_of = ""
            raise TimeoutError("the read timed out")


def a_round(number: int, accuracy: float | None = 0.5) -> RoundRecord:
    return RoundRecord(
        round=number,
        accuracy=accuracy,
        loss=1.0,
        train_loss=None,
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
        refused={"memory": 2, "nan": 1},
    )


def entries(number: int) -> list[Entry]:
    told: list[Entry] = []
    for n in range(1, number + 1):
        told.append(outbox.follow(told[-1] if told else None, a_round(n), 1000 * n))
    return told


def a_summary(rounds: int) -> Summary:
    return summarise(
        [a_round(n) for n in range(1, rounds + 1)],
        name="demo",
        clients=9,
        cohort=5,
        workers=1,
        seed=3,
        digest="d1",
        mlflow_run_id=None,
        wall_seconds=1.0,
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return FakeServer()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "runs", "demo")
    made.write_config("seed: 3\ntracking:\n  experiment: tests\n")
    return made


def a_tracker(server: FakeServer, folder: RunFolder, patience: Patience = PATIENCE) -> MlflowTracker:
    ticks = count(1_000_000)
    tracker = MlflowTracker(URI, "tests", patience=patience, connect=server.connect, now=lambda: next(ticks))
    tracker.start(RunInfo("demo", folder.path, {"seed": "3"}, {"extra": "tag"}))
    return tracker


def test_a_run_arrives_whole(server: FakeServer, folder: RunFolder) -> None:
    tracker = a_tracker(server, folder)
    for number in (1, 2, 3):
        tracker.round(a_round(number))
    write_summary(folder.summary, a_summary(3))
    (folder.plots / "policy.png").write_bytes(b"")
    assert tracker.finish(a_summary(3), status="finished") is None
    assert server.steps("bytes_up") == [1, 2, 3]
    assert server.status == "finished"
    assert server.params == {"seed": "3"}
    assert server.tags.items() >= {"extra": "tag", "digest": "d1", "seed": "3", "status": "finished"}.items()
    assert server.files == ["config.yaml", "summary.json", "plots/policy.png"]
    assert tracker.run_id == "run-0"
    assert '"mlflow_run_id": "run-0"' in folder.summary.read_text()


def test_metrics_carry_totals_and_a_series_over_simulated_seconds() -> None:
    found = {point.key: point for point in points(entries(3)[2])}
    assert (found["bytes_up"].value, found["total_bytes_up"].value, found["total_refused"].value) == (
        10,
        30,
        9,
    )
    assert found["accuracy"] == Point("accuracy", 0.5, 3000, 3)
    assert found["accuracy_by_sim_second"] == Point("accuracy_by_sim_second", 0.5, 3000, 181)
    assert "train_loss" not in found


def test_batches_stay_within_the_limits_of_mlflow(server: FakeServer, folder: RunFolder) -> None:
    state = SendState(URI, "e", "n", {f"p{n}": "v" * 9000 for n in range(250)}, {}, 0)
    last = list(deliver(server, folder, state, entries(100)))[-1]
    assert last.cursor == 100
    assert server.steps("joules") == list(range(1, 101))
    assert max(params for params, _, _ in server.sizes) == PARAMS_A_BATCH
    assert METRICS_A_BATCH - 40 < max(metrics for _, _, metrics in server.sizes) <= METRICS_A_BATCH
    assert {len(value) for value in server.params.values()} == {PARAM_LENGTH}


def test_a_delivery_that_is_repeated_from_any_step_sends_nothing_twice(folder: RunFolder) -> None:
    start = SendState(URI, "e", "n", {"a": "b"}, {"c": "d"}, 0, status="finished", end_ms=9)
    whole = FakeServer()
    steps = list(deliver(whole, folder, start, entries(70)))
    for step in steps:
        again = FakeServer(runs=dict(whole.runs), points=list(whole.points))
        assert list(deliver(again, folder, step, entries(70)))[-1:] in ([], [steps[-1]])
        assert again.points == whole.points


@pytest.mark.parametrize("call", ["open_run", "log"])
def test_an_answer_that_is_lost_makes_neither_a_second_run_nor_second_values(
    call: str, server: FakeServer, folder: RunFolder
) -> None:
    server.loses_answer_of = call
    tracker = a_tracker(server, folder)
    tracker.round(a_round(1))
    assert tracker.finish(None, status="finished") is None
    assert len(server.runs) == 1
    assert server.steps("bytes_up") == [1]


def test_a_server_that_is_away_costs_no_round_and_gets_all_later(server: FakeServer, folder: RunFolder) -> None:
    server.down = True
    tracker = a_tracker(server, folder)
    for number in range(1, 6):
        tracker.round(a_round(number))
    line = tracker.finish(a_summary(5), status="finished")
    assert line is not None
    assert "did not get 5 rounds and the run's files (connection refused)" in line
    assert f"tightwire sync {folder.path}" in line
    server.down = False
    assert sync(folder.path, connect=server.connect) == f"sent 5 rounds and 1 files to MLflow run run-0 at {URI}"
    assert server.steps("total_bytes_up") == [1, 2, 3, 4, 5]
    assert (server.status, server.tags["digest"]) == ("finished", "d1")
    assert sync(folder.path, connect=server.connect) == f"nothing was missing in MLflow run run-0 at {URI}"


def test_a_server_that_comes_back_gets_the_rest_within_the_run(server: FakeServer, folder: RunFolder) -> None:
    server.down = True
    tracker = a_tracker(server, folder)
    tracker.round(a_round(1))
    assert server.called.wait(10)
    server.down = False
    tracker.round(a_round(2))
    assert tracker.finish(None, status="failed") is None
    assert server.steps("bytes_up") == [1, 2]
    assert server.status == "failed"


def test_a_server_that_hangs_holds_nobody_up(server: FakeServer, folder: RunFolder) -> None:
    forever = threading.Event()

    def hang(uri: str) -> FakeServer:
        forever.wait(60)
        raise TimeoutError(uri)

    server.connect = hang  # type: ignore[method-assign]  # a server that takes the call and never answers
    tracker = a_tracker(server, folder, replace(PATIENCE, finish=0.05))
    for number in range(1, 4):
        tracker.round(a_round(number))
    line = tracker.finish(None, status="finished")
    forever.set()
    assert line is not None
    assert "did not get 3 rounds and the run's files (no answer in time)" in line
    assert [entry.record.round for entry in outbox.read(folder.journal)] == [1, 2, 3]


def test_a_resumed_run_goes_on_after_the_cursor_in_the_same_mlflow_run(server: FakeServer, folder: RunFolder) -> None:
    first = a_tracker(server, folder)
    for number in (1, 2, 3):
        first.round(a_round(number))
    assert first.finish(None, status="killed") is None
    sent = list(server.points)
    second = a_tracker(server, folder)
    for number in (2, 3, 4):
        second.round(a_round(number))
    assert second.finish(a_summary(4), status="finished") is None
    assert len(server.runs) == 1
    assert server.points[: len(sent)] == sent
    assert server.steps("bytes_up") == [1, 2, 3, 4]
    assert [point.value for point in server.points if point.key == "total_bytes_up"] == [10, 20, 30, 40]
    assert server.status == "finished"


def test_a_run_that_was_killed_is_closed_by_sync(server: FakeServer, folder: RunFolder) -> None:
    SendState(URI, "e", "demo", {}, {}, 5).save(folder.mlflow)
    outbox.append(folder.journal, entries(2))
    assert sync(folder.path, connect=server.connect).startswith("sent 2 rounds")
    assert (server.status, server.tags["status"]) == ("killed", "killed")


def test_a_run_that_was_never_tracked_can_be_sent(server: FakeServer, folder: RunFolder) -> None:
    write_rows_atomically(folder.rounds, [a_round(1), a_round(2)], RoundRecord)
    write_summary(folder.summary, a_summary(2))
    sync(folder.path, URI, connect=server.connect)
    assert server.steps("bytes_up") == [1, 2]
    assert server.params == {"seed": "3", "tracking.experiment": "tests"}
    assert server.tags == {"status": "finished", "digest": "d1", "seed": "3"}
    assert SendState.load(folder.mlflow).completed


def test_sync_to_another_server_sends_everything_there(server: FakeServer, folder: RunFolder) -> None:
    state = SendState("http://old", "e", "demo", {}, {}, 5, run_id="old", cursor=2, started=True, completed=True)
    replace(state, status="finished", end_ms=9).save(folder.mlflow)
    outbox.append(folder.journal, entries(2))
    assert sync(folder.path, URI, connect=server.connect).startswith("sent 2 rounds")
    assert server.steps("bytes_up") == [1, 2]


def test_sync_to_a_server_that_is_away_says_so_and_loses_nothing(server: FakeServer, folder: RunFolder) -> None:
    SendState(URI, "e", "demo", {}, {}, 5).save(folder.mlflow)
    outbox.append(folder.journal, entries(2))
    server.down = True
    with pytest.raises(TrackingError, match=r"connection refused.*try again: tightwire sync"):
        sync(folder.path, connect=server.connect)
    server.down = False
    assert sync(folder.path, connect=server.connect).startswith("sent 2 rounds")


def test_a_journal_survives_a_line_cut_off_by_a_crash(tmp_path: Path) -> None:
    journal = tmp_path / "mlflow.jsonl"
    told = entries(3)
    outbox.append(journal, told[:2])
    journal.write_bytes(journal.read_bytes()[:-40])
    assert outbox.read(journal) == told[:1]
    outbox.append(journal, told[1:])
    assert outbox.read(journal) == told


def test_a_full_disk_costs_no_round(server: FakeServer, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tightwire.tracking.outbox.append", full)
    monkeypatch.setattr("tightwire.tracking.outbox.write_atomically", full)
    tracker = a_tracker(server, folder)
    tracker.round(a_round(1))
    assert tracker.finish(None, status="finished") is None
    assert server.steps("bytes_up") == [1]


def test_a_state_that_is_damaged_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.json").write_text("{")
    with pytest.raises(TrackingError, match=r"mlflow\.json of a run"):
        SendState.load(tmp_path / "mlflow.json")


def test_a_status_that_is_none_is_refused(server: FakeServer, folder: RunFolder) -> None:
    tracker = a_tracker(server, folder)
    with pytest.raises(TrackingError, match="cannot be 'done'"):
        tracker.finish(None, status="done")
    tracker.finish(None, status="killed")


def test_a_tracker_travels_to_another_process_before_it_starts() -> None:
    assert pickle.loads(pickle.dumps(MlflowTracker(URI, "e"))).run_id is None  # noqa: S301 - made one word before


@pytest.mark.parametrize(
    ("wanted", "environment", "stored", "chosen"),
    [
        ("http://a", "http://b", "http://c", "http://a"),
        (None, "http://b", "http://c", "http://b"),
        (None, "", "http://c", "http://c"),
        (None, "", None, "sqlite:///{here}/mlflow.db"),
        ("sqlite:///x.db", "", None, "sqlite:///{here}/x.db"),
        ("sqlite:////x.db", "", None, "sqlite:////x.db"),
        ("store", "", None, "file://{here}/store"),
    ],
)
def test_the_server_is_chosen_in_order_and_named_absolutely(
    wanted: str | None,
    environment: str,
    stored: str | None,
    chosen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert chosen_uri(wanted, stored) == chosen.format(here=tmp_path)


def test_a_long_error_becomes_one_short_line() -> None:
    assert brief(ConnectionError("a\nlong story: [Errno 111] Connection refused')")) == "connection refused"
    assert brief(ValueError("x\n" * 300)).endswith("...")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "API request to endpoint /api/2.0/x failed with error code 401 != 200. Response body: 'You are not in'",
            "it answers 401: it wants credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ),
        (
            "API request to endpoint /api/2.0/x failed with error code 403 != 200. Response body: 'Permission denied'",
            "it answers 403: Permission denied",
        ),
        (
            "Max retries exceeded with url: /x (Caused by ResponseError('too many 500 error responses'))",
            "it answers 500",
        ),
        ("404 Client Error: NOT FOUND for url: http://127.0.0.1/x", "it answers 404"),
        ("HTTPConnectionPool: Read timed out. (read timeout=10)", "no answer in time"),
    ],
)
def test_what_a_server_answered_is_said_with_what_helps(raised: str, said: str) -> None:
    assert brief(RuntimeError(raised)) == said


def test_only_settings_of_mlflow_are_taken_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("OTHER_PASSWORD", "other")
    taken = environment()
    assert taken["MLFLOW_TRACKING_PASSWORD"] == "secret"  # noqa: S105 - made up
    assert "OTHER_PASSWORD" not in taken


def test_nothing_is_sent_any_more_once_a_run_has_given_up(server: FakeServer, folder: RunFolder) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow(uri: str) -> FakeServer:
        assert uri == URI
        asked.set()
        answer.wait(60)
        return server

    server.connect = slow  # type: ignore[method-assign]  # a server that takes its time
    tracker = a_tracker(server, folder, replace(PATIENCE, finish=0.05))
    assert asked.wait(10)
    tracker.round(a_round(1))
    assert tracker.finish(None, status="finished") is not None
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "tightwire-mlflow":
            thread.join(10)
    assert server.points == []
    assert server.files == []


def test_mlflow_and_matplotlib_are_not_imported_before_they_are_needed() -> None:
    program = (
        "import sys, tightwire.tracking.mlflow, tightwire.tracking.plots;"
        "print(sorted({'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
