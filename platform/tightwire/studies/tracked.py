"""A study in MLflow: a parent run for the study, a child run for each of its trials.

What is sent comes from the study's folder, so sending can be done by anybody, at any time and again. A study sends from
a thread of its own while it runs; no trial ever waits for a server.
"""

import os
import queue
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tightwire import config as configs
from tightwire.errors import TrackingError
from tightwire.studies.folder import ERROR, StudyFolder, read_error, read_summary, status
from tightwire.studies.plan import Trial, plan
from tightwire.tracking.client import brief, chosen_uri, connect, wall_ms
from tightwire.tracking.delivery import PARAM_LENGTH, Client, Point
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.outbox import RunStatus, SendState
from tightwire.tracking.sync import sync

PARENT_TAG = "mlflow.parentRunId"
"""By this tag MLflow's pages show a run below another."""
FINISH_SECONDS = 60.0
"""How long the end of a study waits for what is still on its way."""
REPORT = "report.html"

Connect = Callable[[str], Client]


class StudySender:
    """Sends one study, a step at a time; what did not arrive is sent with the next step.

    Args:
        folder: The study's folder.
        trials: All its trials.
        uri: The tracking server.
        experiment: Name of the MLflow experiment.
        connect: Makes a client for a URI; it may block or raise.
    """

    def __init__(
        self, folder: StudyFolder, trials: Sequence[Trial], uri: str, experiment: str, connect: Connect = connect
    ) -> None:
        self._folder = folder
        self._trials = {trial.name: trial for trial in trials}
        self._connect = connect
        self._client: Client | None = None
        self._environment = environment_tags(Path.cwd())
        self._opened = False
        self.state = self._parent(uri, experiment)

    @property
    def path(self) -> str:
        """The study's folder, to be typed in the working folder."""
        return shlex.quote(os.path.relpath(self._folder.path))

    def _parent(self, uri: str, experiment: str) -> SendState:
        tags = {**self._environment, "tightwire.study": self._folder.name, "status": "running"}
        if self._folder.mlflow.is_file():
            earlier = SendState.load(self._folder.mlflow)
            tags = {**earlier.tags, **tags}
            return replace(earlier, tracking_uri=uri, tags=tags, status="running", end_ms=None, completed=False)
        study = self._folder.read()
        variations = ", ".join(dict.fromkeys(trial.variation for trial in self._trials.values()))
        params = {
            "trials": str(len(self._trials)),
            "variations": variations[:PARAM_LENGTH],
            "seeds": ", ".join(map(str, study.seeds)),
        }
        if study.target is not None:
            params["target"] = str(study.target)
        return SendState(uri, experiment, self._folder.name, params, tags, wall_ms())

    def send(self, names: Sequence[str]) -> list[str]:
        """Send trials that have ended.

        Returns:
            Those that had not arrived before and now have.

        Raises:
            Exception: Whatever the client raises; what arrived is noted.
        """
        client = self._open()
        return [name for name in names if self._send(client, self._trials[name])]

    def close(self, became: RunStatus, end_ms: int) -> None:
        """Send the study's own files and say what became of it.

        Raises:
            Exception: Whatever the client raises.
        """
        client = self._open()
        run_id = str(self.state.run_id)
        for file in self._files():
            client.upload(run_id, file, None)
        ended = [status(self._folder.trial(name)) for name in self._trials]
        counts = {f"trials_{word}": float(ended.count(word)) for word in ("finished", "failed")}
        client.log(
            run_id,
            tags={"status": became},
            points=[Point(key, count, end_ms, 0) for key, count in counts.items()],
        )
        client.set_status(run_id, became, end_ms)
        tags = {**self.state.tags, "status": became}
        self._keep(replace(self.state, tags=tags, status=became, end_ms=end_ms, completed=True))

    def _files(self) -> list[Path]:
        path = self._folder.path
        top = [self._folder.study, path / REPORT, *sorted(path.glob("report*.png"))]
        return [file for file in top if file.is_file()]

    def _open(self) -> Client:
        """The way to the server, with the parent run open there."""
        if self._client is None:
            self._client = self._connect(self.state.tracking_uri)
        if not self._opened:
            run_id = self._client.open_run(self.state)
            self._keep(replace(self.state, run_id=run_id))
            self._client.set_status(run_id, "running", None)
            self._client.log(run_id, params=self.state.params, tags=self.state.tags)
            self._keep(replace(self.state, started=True))
            self._opened = True
        return self._client

    def _keep(self, state: SendState) -> None:
        self.state = state
        state.save(self._folder.mlflow)

    def _send(self, client: Client, trial: Trial) -> bool:
        folder = self._folder.trial(trial.name)
        if status(folder) == "open":
            return False
        earlier = SendState.load(folder.mlflow) if folder.mlflow.is_file() else None
        wanted = self._child(folder, trial, earlier)
        if wanted == earlier:
            return False
        wanted.save(folder.mlflow)
        sync(folder.path, self.state.tracking_uri, connect=lambda _: client)
        return True

    def _child(self, folder: RunFolder, trial: Trial, earlier: SendState | None) -> SendState:
        """What the server should have of a trial; `earlier` itself where it has all of it."""
        became: RunStatus = "finished" if status(folder) == "finished" else "failed"
        mine = {
            PARENT_TAG: str(self.state.run_id),
            "tightwire.study": self._folder.name,
            "tightwire.variation": trial.variation,
            "tightwire.seed": str(trial.seed),
            "seed": str(trial.seed),
            "status": became,
            **{f"tightwire.axis.{axis}": str(value) for axis, value in trial.axes.items()},
        }
        seconds = 0.0
        if became == "finished":
            summary = read_summary(folder)
            seconds = summary.wall_seconds
            mine["digest"] = summary.digest
            end_ms = folder.summary.stat().st_mtime_ns // 1_000_000
        else:
            mine["tightwire.error"] = read_error(folder)
            end_ms = (folder.path / ERROR).stat().st_mtime_ns // 1_000_000
        if earlier is not None:
            there = earlier.completed and earlier.tracking_uri == self.state.tracking_uri
            if there and mine.items() <= earlier.tags.items():
                return earlier
            return replace(
                earlier,
                tracking_uri=self.state.tracking_uri,
                tags={**earlier.tags, **mine},
                status=became,
                end_ms=end_ms,
                started=False,
                completed=False,
            )
        return SendState(
            tracking_uri=self.state.tracking_uri,
            experiment=self.state.experiment,
            name=trial.name,
            params=configs.flat(trial.config),
            tags={**self._environment, **mine},
            start_ms=end_ms - round(seconds * 1000),
            status=became,
            end_ms=end_ms,
        )


class StudyRecorder:
    """Sends a study while it runs, from a thread of its own.

    Args:
        sender: Does the sending.
        finish_seconds: How long `finish` waits, in wall seconds.
    """

    def __init__(self, sender: StudySender, finish_seconds: float = FINISH_SECONDS) -> None:
        self._sender = sender
        self._seconds = finish_seconds
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._unsent: list[str] = []
        self._became: RunStatus = "killed"
        self._end_ms = 0
        self._problem: str | None = "no answer in time"
        self._thread = threading.Thread(target=self._work, name="tightwire-study-mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The parent run's id, once the server has given one."""
        return self._sender.state.run_id

    def ended(self, trial: str) -> None:
        """A trial has ended."""
        self._news.put(trial)

    def finish(self, became: RunStatus) -> str | None:
        """The study has ended, its report is there: wait a bounded time for everything to arrive.

        Returns:
            None when everything has arrived, or one line that says that it has not, and what to do.
        """
        self._became, self._end_ms = became, wall_ms()
        self._news.put(None)
        self._thread.join(self._seconds)
        if self._problem is None:
            return None
        return (
            f"MLflow at {self._sender.state.tracking_uri} did not get all of the study ({self._problem}); nothing is "
            f"lost, send it with: tightwire sync {self._sender.path}"
        )

    def _work(self) -> None:
        self._try([])  # the parent run is there from the start
        while (name := self._news.get()) is not None:
            self._unsent.append(name)
            self._try(self._unsent)
        try:
            self._sender.send(self._unsent)
            self._sender.close(self._became, self._end_ms)
        except Exception as error:
            self._problem = brief(error)
        else:
            self._problem = None

    def _try(self, names: list[str]) -> None:
        try:
            self._sender.send(names)
        except Exception as error:
            self._problem = brief(error)
        else:
            names.clear()


def sync_study(path: Path, uri: str | None = None, *, connect: Connect = connect) -> str:
    """Send whatever MLflow does not have of a study that has ended or stopped.

    Args:
        path: The study's folder.
        uri: The server; None takes MLFLOW_TRACKING_URI, or else the one that the study was tracked on.
        connect: Makes a client for a URI.

    Returns:
        One line that says what was sent, and where.

    Raises:
        ConfigError: There is no such study.
        TrackingError: The server did not take everything; what it took is noted.
    """
    folder = StudyFolder.open(path)
    planned = plan(folder.read())
    stored = SendState.load(folder.mlflow) if folder.mlflow.is_file() else None
    server = chosen_uri(uri, stored.tracking_uri if stored else None)
    sender = StudySender(folder, planned.trials, server, planned.tracking.experiment, connect)
    names = [trial.name for trial in planned.trials]
    over = all(status(folder.trial(name)) != "open" for name in names)
    end_ms = stored.end_ms if stored is not None and stored.end_ms is not None else wall_ms()
    try:
        sent = sender.send(names)
        sender.close("finished" if over else "killed", end_ms)
    except Exception as error:
        raise TrackingError(
            f"MLflow at {server} did not take everything ({brief(error)}); try again: tightwire sync {sender.path}"
        ) from error
    return f"sent {len(sent)} trials and the study's files to MLflow run {sender.state.run_id} at {server}"
