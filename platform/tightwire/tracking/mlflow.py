"""The MLflow tracker: a run is followed from a thread of its own, and no round ever waits for a server.

`MlflowTracker.round` only adds to the journal in the run's folder. The thread connects, sends in batches and
tries again, less and less often, while the server does not answer; `sync` sends later what it could not.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from tightwire.federation.records import RoundRecord, Summary
from tightwire.tracking import outbox
from tightwire.tracking.base import RunInfo
from tightwire.tracking.client import brief, chosen_uri, connect, default_uri, environment, wall_ms
from tightwire.tracking.delivery import Client, deliver
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.outbox import SendState
from tightwire.tracking.sync import sync, sync_command

__all__ = ["PATIENCE", "MlflowTracker", "Patience", "default_uri", "environment", "sync"]

Connect = Callable[[str], Client]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the tracker waits for what, in wall seconds."""

    batch: float = 3.0
    """Between two batches; rounds that close meanwhile travel together."""
    retry: float = 0.5
    """After the first failure; doubled with each further one."""
    longest: float = 30.0
    """The longest pause after a failure."""
    finish: float = 20.0
    """For everything to arrive once the run has ended."""
    last_tries: int = 2
    """Failures in a row after which an ended run gives up: a server that refuses is not worth waiting for."""


PATIENCE = Patience()


class MlflowTracker:
    """Records a run in MLflow; see `Tracker` for what the methods promise.

    Args:
        uri: The tracking server or store of a new run, None for `default_uri`; a resumed run stays where it is.
        experiment: Name of the MLflow experiment.
        patience: Waiting times.
        connect: Makes a client for a URI; it may block or raise.
        now: The wall clock, in milliseconds since 1970.
        environment: MLflow's settings of the process that started the run, such as the credentials of a server, where
            they are not those of the process that carries it out; see `environment`.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        *,
        patience: Patience = PATIENCE,
        connect: Connect = connect,
        now: Callable[[], int] = wall_ms,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._uri = chosen_uri(uri)
        self._experiment = experiment
        self._patience = patience
        self._connect = connect
        self._now = now
        self._environment = dict(environment)
        self._sender: _Sender | None = None

    @property
    def run_id(self) -> str | None:
        """The MLflow run's id, once the server has given one."""
        return self._sender.state.run_id if self._sender else None

    def start(self, info: RunInfo) -> None:
        """A run begins, or goes on after a resume, then in the same MLflow run."""
        os.environ.update(self._environment)
        folder = RunFolder(info.folder)
        tags = {**environment_tags(Path.cwd()), **info.tags, "status": "running"}
        if "seed" in info.params:
            tags["seed"] = info.params["seed"]
        if folder.mlflow.is_file():
            earlier = SendState.load(folder.mlflow)
            state = replace(
                earlier,
                tags={**earlier.tags, **tags},
                started=False,
                status="running",
                end_ms=None,
                completed=False,
            )
        else:
            state = SendState(
                tracking_uri=self._uri,
                experiment=self._experiment,
                name=info.name,
                params=dict(info.params),
                tags=tags,
                start_ms=self._now(),
            )
        self._sender = _Sender(folder, state, self._patience, self._connect, self._now)

    def round(self, record: RoundRecord) -> None:
        """A round has closed; one that an earlier life of the run has told already is passed over."""
        if self._sender:
            self._sender.tell(record)

    def finish(self, summary: Summary | None, *, status: str) -> str | None:
        """The run has ended: wait a bounded time for everything to arrive.

        Raises:
            TrackingError: The status is none of finished, failed and killed.
        """
        if self._sender is None:
            return None
        tags = {"status": status}
        if summary is not None:
            tags |= {"digest": summary.digest, "seed": str(summary.seed)}
        return self._sender.finish(tags, status)


class _Sender:
    """The thread that sends, and what it shares with the run: the state and the rounds not sent yet."""

    def __init__(
        self,
        folder: RunFolder,
        state: SendState,
        patience: Patience,
        connect: Connect,
        now: Callable[[], int],
    ) -> None:
        entries = outbox.read(folder.journal)
        self.state = state
        self._folder = folder
        self._patience = patience
        self._connect = connect
        self._now = now
        self._unsent = [entry for entry in entries if entry.record.round > state.cursor]
        self._last = entries[-1] if entries else None
        self._problem = ""
        self._changed = threading.Condition()
        self._ending = False
        self._given_up = False
        self._save()
        self._thread = threading.Thread(target=self._work, name="tightwire-mlflow", daemon=True)
        self._thread.start()

    def tell(self, record: RoundRecord) -> None:
        if self._last is not None and record.round <= self._last.record.round:
            return
        entry = outbox.follow(self._last, record, self._now())
        try:
            outbox.append(self._folder.journal, [entry])
        except OSError as error:
            self._problem = brief(error)
        with self._changed:
            self._last = entry
            self._unsent.append(entry)
            self._changed.notify_all()

    def finish(self, tags: Mapping[str, str], status: str) -> str | None:
        with self._changed:
            self.state = replace(
                self.state,
                status=outbox.run_status(status),
                tags={**self.state.tags, **tags},
                end_ms=self._now(),
            )
            self._ending = True
            self._save()
            self._changed.notify_all()
        self._thread.join(self._patience.finish)
        with self._changed:
            self._given_up = True  # what sync will send is not to be sent from here at the same time
            return None if self.state.completed else self._missing()

    def _missing(self) -> str:
        rounds = f"{len(self._unsent)} rounds and the run's files" if self._unsent else "all of the run's files"
        reason = self._problem or "no answer in time"
        return (
            f"MLflow at {self.state.tracking_uri} did not get {rounds} ({reason}); "
            f"send them with: {sync_command(self._folder)}"
        )

    def _work(self) -> None:
        client: Client | None = None
        failures = 0
        ended = False
        while not self._given_up and not (ended and (self.state.completed or failures >= self._patience.last_tries)):
            self._pause(failures)
            ended = self._ending
            try:
                client = client or self._connect(self.state.tracking_uri)
                self._send(client)
            except Exception as error:
                self._problem = brief(error)
                failures += 1
            else:
                self._problem = ""
                failures = 0

    def _pause(self, failures: int) -> None:
        """Wait until there is something to send and it may be tried; not at all once the run has ended."""
        patience = self._patience
        with self._changed:
            if failures:
                pause = min(patience.retry * 2 ** min(failures - 1, 16), patience.longest)
                self._changed.wait_for(lambda: self._ending, timeout=pause)
            elif self.state.started:
                self._changed.wait_for(lambda: self._ending, timeout=patience.batch)
                self._changed.wait_for(lambda: self._ending or bool(self._unsent))

    def _send(self, client: Client) -> None:
        with self._changed:
            state, entries = self.state, list(self._unsent)
        for step in deliver(client, self._folder, state, entries):
            with self._changed:
                self.state = replace(
                    self.state,
                    run_id=step.run_id,
                    cursor=step.cursor,
                    started=step.started,
                    completed=step.completed,
                )
                self._unsent = [entry for entry in self._unsent if entry.record.round > step.cursor]
                self._save()
                if self._given_up:
                    return

    def _save(self) -> None:
        try:
            self.state.save(self._folder.mlflow)
        except OSError as error:
            self._problem = brief(error)
