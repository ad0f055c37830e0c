"""The one place that talks to MLflow. Importing MLflow takes seconds, so it happens inside the functions."""

import logging
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tightwire.tracking.delivery import Client, Point
from tightwire.tracking.outbox import RunStatus, SendState

if TYPE_CHECKING:
    import mlflow

KEY_TAG = "tightwire.key"
"""Tag that holds a state's `key`."""

_STORE = "mlflow.db"
_ARTIFACTS = "mlruns"
_SQLITE = "sqlite:///"
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the tracker tries again by itself; MLflow would take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output may be read by programs
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a run talks to its tracking server and to nobody else
}

_ANSWER = re.compile(r"error code (\d{3})\b|too many (\d{3}) error responses|^(\d{3}) (?:Client|Server) Error")
"""How MLflow words an answer's status, by the way that the request took through it."""
_BODY = re.compile(r"Response body: '(.+?)'$")
_ADVICE = {"401": "it wants credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"}


def chosen_uri(wanted: str | None, stored: str | None = None) -> str:
    """The tracking server to use, as a URI that means the same in every folder.

    Args:
        wanted: What somebody asked for, if anybody did.
        stored: Where the run was sent to earlier, if it was.

    Returns:
        The first there is of: `wanted`, the environment variable MLFLOW_TRACKING_URI, `stored`, and a sqlite
        store `mlflow.db` in the working folder.
    """
    uri = wanted or os.environ.get("MLFLOW_TRACKING_URI") or stored or f"{_SQLITE}{_STORE}"
    if uri.startswith(_SQLITE):
        return _SQLITE + str(Path.cwd() / uri.removeprefix(_SQLITE))
    if ":" not in uri and uri != "databricks":
        return (Path.cwd() / uri).as_uri()
    return uri


def default_uri() -> str:
    """The tracking server of a new run when nobody asks for another one; see `chosen_uri`."""
    return chosen_uri(None)


def environment() -> dict[str, str]:
    """This process's settings of MLflow, credentials among them, for the process that will talk to the server."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}


def connect(uri: str) -> Client:
    """A client of a tracking server; for a store in a file, the store is made if it does not exist.

    Raises:
        Exception: Whatever MLflow raises.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # MLflow maps a relation in a way that SQLAlchemy 2.1 deprecates; nothing here uses it
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
    from mlflow import MlflowClient

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return MlflowServer(MlflowClient(uri), uri)


class MlflowServer:
    """A tracking server or store behind an MLflow client."""

    def __init__(self, client: "mlflow.MlflowClient", uri: str) -> None:
        self._client = client
        self._uri = uri

    def open_run(self, state: SendState) -> str:
        """See `Client`. A run that was deleted on the server is no longer the state's run."""
        experiment = self._experiment(state.experiment)
        found = self._client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{state.key}'")
        ids = [str(run.info.run_id) for run in found]
        if ids:
            return state.run_id if state.run_id in ids else ids[0]
        run = self._client.create_run(
            experiment, start_time=state.start_ms, tags={KEY_TAG: state.key}, run_name=state.name
        )
        return str(run.info.run_id)

    def set_status(self, run_id: str, status: RunStatus, end_ms: int | None) -> None:
        """See `Client`."""
        if status == "running":
            self._client.update_run(run_id, status="RUNNING")
        else:
            self._client.set_terminated(run_id, status.upper(), end_ms)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
    ) -> None:
        """See `Client`."""
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            params=[Param(key, value) for key, value in (params or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
            metrics=[Metric(point.key, point.value, point.wall_ms, point.step) for point in points],
        )

    def upload(self, run_id: str, file: Path, folder: str | None) -> None:
        """See `Client`."""
        self._client.log_artifact(run_id, str(file), folder)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=self._artifacts(name)))

    def _artifacts(self, experiment: str) -> str | None:
        """Files of a sqlite store lie beside it, wherever the process runs; a server decides for itself."""
        if not self._uri.startswith(_SQLITE):
            return None
        store = Path(self._uri.removeprefix(_SQLITE))
        return (store.parent / _ARTIFACTS / re.sub(r"[^\w.-]", "_", experiment)).as_uri()


def brief(error: BaseException) -> str:
    """What went wrong with a server, in a few words for one line."""
    text = " ".join(str(error).split())
    if answer := _ANSWER.search(text):
        status = next(group for group in answer.groups() if group)
        body = _BODY.search(text)
        said = _ADVICE.get(status) or (body.group(1)[:80] if body else "")
        return f"it answers {status}: {said}" if said else f"it answers {status}"
    if "refused" in text:
        return "connection refused"
    if "timed out" in text or "timeout" in text:
        return "no answer in time"
    return text if len(text) <= 160 else text[:157] + "..."


def wall_ms() -> int:
    """The wall clock in milliseconds since 1970; what is tracked carries it, what is simulated never does."""
    return time.time_ns() // 1_000_000
