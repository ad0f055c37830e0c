"""Real runs on a tracking server that is in trouble: they end as they would have, and sync completes them in MLflow."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scenarios import Quiet, digest_of, run_here, small
from tightwire.config import Experiment
from tightwire.errors import TrackingError
from tightwire.federation.records import RoundRecord
from tightwire.tracking.mlflow import MlflowTracker, Patience, environment, sync
from tightwire.tracking.sync import DEFAULT_EXPERIMENT
from tracking_server import LATENCY_SECONDS, Proxy, Server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.timeout(600)  # the first test waits for the server's start, too
ROUNDS = 4
FILES = 6
"""What a run leaves: six files and four plots."""


class Timed(MlflowTracker):
    """Knows how long the rounds had to wait for it."""

    waited = 0.0

    def round(self, record: RoundRecord) -> None:
        """See `MlflowTracker`."""
        begun = time.monotonic()
        super().round(record)
        self.waited += time.monotonic() - begun


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return small()


@pytest.fixture(scope="module")
def undisturbed(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest_of(run_here(experiment, tmp_path_factory.mktemp("untracked") / "small"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "small"


def wrong_password(server: Server, proxy: Proxy, patch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - all alike
    patch.setenv("MLFLOW_TRACKING_PASSWORD", "a wrong one")


def no_password(server: Server, proxy: Proxy, patch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - all alike
    patch.delenv("MLFLOW_TRACKING_USERNAME")


def errors(server: Server, proxy: Proxy, patch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - all alike
    proxy.manner = "answers 500"


def silence(server: Server, proxy: Proxy, patch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - all alike
    patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.manner = "never answers"


def slowness(server: Server, proxy: Proxy, patch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - all alike
    proxy.manner = "slow"


Trouble = Callable[[Server, Proxy, pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (wrong_password, "it answers 401: it wants credentials; set MLFLOW_TRACKING_USERNAME"),
        (no_password, "it answers 401: it wants credentials; set MLFLOW_TRACKING_USERNAME"),
        (errors, "it answers 500"),
        (silence, "no answer in time"),
        (slowness, "no answer in time"),
    ],
)
def test_a_server_in_trouble_costs_a_run_one_line_and_sync_sends_the_rest_once(
    trouble: Trouble,
    reason: str,
    server: Server,
    proxy: Proxy,
    experiment: Experiment,
    undisturbed: str,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # a server that is merely slow is given up by the clock, all others by themselves
    finish = 3.0 if trouble is slowness else 120.0
    tracker = Timed(proxy.uri, trouble.__name__, patience=Patience(retry=0.1, longest=0.5, finish=finish))
    with pytest.MonkeyPatch.context() as patch:
        trouble(server, proxy, patch)
        listener = Quiet()
        ended = run_here(experiment, folder, listener=listener, tracker=tracker)
        assert digest_of(ended) == undisturbed
        assert tracker.waited < LATENCY_SECONDS
        assert ended.untracked is not None
        assert reason in ended.untracked
        assert ended.untracked.endswith("send them with: tightwire sync runs/small")
        assert "\n" not in ended.untracked
        assert proxy.requests > 0
        leave(proxy)
    sync(folder)
    assert_whole(server, trouble.__name__, undisturbed)
    assert sync(folder).startswith("nothing was missing")
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_server_that_is_killed_and_comes_back_in_a_run_gets_all_of_it_once(
    server: Server, proxy: Proxy, experiment: Experiment, undisturbed: str, folder: Path
) -> None:
    tracker = MlflowTracker(proxy.uri, "comeback", patience=Patience(batch=0.0, retry=0.1, longest=0.5, finish=200.0))

    class Watching(Quiet):
        def round(self, record: RoundRecord) -> None:
            super().round(record)
            if record.round == 1:
                wait_until(lambda: '"cursor": 1' in (folder / "mlflow.json").read_text())
                server.kill()
            if record.round == ROUNDS - 1:
                server.start()

    ended = run_here(experiment, folder, listener=Watching(), tracker=tracker)
    assert ended.untracked is None
    assert digest_of(ended) == undisturbed
    assert_whole(server, "comeback", undisturbed)


def test_sync_with_wrong_credentials_says_so_and_loses_nothing(
    server: Server, experiment: Experiment, undisturbed: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(experiment, folder)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_PASSWORD", "a wrong one")
        with pytest.raises(TrackingError, match=r"it answers 401: it wants credentials.*try again: tightwire sync"):
            sync(folder, server.uri)
    sync(folder, server.uri)
    assert_whole(server, DEFAULT_EXPERIMENT, undisturbed)


def test_credentials_of_whoever_starts_a_run_reach_the_process_that_tracks_it(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = environment()
    for name in taken:
        monkeypatch.delenv(name)
    tracker = MlflowTracker(server.uri, "elsewhere", environment=taken)
    try:
        ended = run_here(small(rounds=1), folder, tracker=tracker)
    finally:
        for name in set(os.environ) & set(taken):
            monkeypatch.delenv(name)
    assert ended.untracked is None


def leave(proxy: Proxy) -> None:
    """End the trouble once the tracker has given up for good, so that only sync sends from now on."""
    threads = [thread for thread in threading.enumerate() if thread.name == "tightwire-mlflow"]
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    proxy.recover()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_whole(server: Server, experiment: str, digest: str) -> None:
    """The experiment has one run, with all that the run recorded."""
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    run = only_run(client, experiment)
    assert run.info.status == "FINISHED"
    assert run.data.tags.items() >= {"digest": digest, "seed": "0", "status": "finished"}.items()
    assert run.data.params["rounds"] == str(ROUNDS)
    for key in ("bytes_up", "total_bytes_up"):
        history = client.get_metric_history(run.info.run_id, key)
        assert sorted(metric.step for metric in history) == list(range(1, ROUNDS + 1))
    top = client.list_artifacts(run.info.run_id)
    files = [file for file in top if not file.is_dir] + client.list_artifacts(run.info.run_id, "plots")
    assert len(files) == FILES


def only_run(client: "MlflowClient", experiment: str) -> "Run":
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert len(runs) == 1
    run: Run = runs[0]
    return run
