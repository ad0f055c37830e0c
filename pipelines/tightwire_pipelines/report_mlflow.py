"""Runs in MLflow as folders: what the server has of a run, or of a study's trials, laid out as a run leaves it.

A run whose files never arrived is made up from its metrics: it has a curve, but neither decisions nor device tiers.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tightwire.errors import ConfigError, TrackingError
from tightwire.federation.records import DecisionRow, LedgerRow
from tightwire.federation.tables import write_rows_atomically
from tightwire.studies.outcomes import TRIAL, TRIALS
from tightwire.studies.reading import ERROR
from tightwire.tracking.client import brief, connect, default_uri
from tightwire.tracking.folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_FILES = ("config.yaml", "rounds.parquet", "ledger.parquet", "decisions.parquet", "model.safetensors", "summary.json")
_COLUMNS = ("accuracy", "bytes_up", "bytes_down", "sim_seconds", "joules")
_AXIS = "tightwire.axis."
_AT_ONCE = 1000
"""Trials of a study that are asked for at once."""


def is_id(text: str) -> bool:
    """Whether a text looks like the id of a run in MLflow."""
    return re.fullmatch("[0-9a-f]{32}", text) is not None


def fetch(run_id: str, scratch: Path) -> Path:
    """Lay out what MLflow has of a run, or of a study with its trials, as folders.

    Args:
        run_id: The run's id; the server is that of MLFLOW_TRACKING_URI, or the store in the working folder.
        scratch: Where the folder goes.

    Returns:
        A run's folder, or a study's.

    Raises:
        ConfigError: There is no such run.
        TrackingError: The server does not answer, or has no rounds of the run.
    """
    uri = default_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise ConfigError(f"{run_id} is no folder, and there is no MLflow store at {uri}; set MLFLOW_TRACKING_URI")
    connect(uri)  # settles how patient MLflow is, and how silent
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        run = client.get_run(run_id)
        below = _below(client, run)
        if not below:
            return _lay_out(client, run, scratch / run_id)
        for trial in below:
            _lay_out(client, trial, scratch / run_id / TRIALS / _folder_name(trial, below))
        return scratch / run_id
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise ConfigError(f"{run_id} is no folder, and MLflow at {uri} has no run with this id") from None
        raise TrackingError(f"MLflow at {uri} did not give run {run_id} ({brief(error)})") from None


def _below(client: "MlflowClient", run: "Run") -> list["Run"]:
    """All runs below a run, however many."""
    of = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    found: list[Run] = []
    token: str | None = None
    while token is not None or not found:
        page = client.search_runs([run.info.experiment_id], of, max_results=_AT_ONCE, page_token=token)
        found += page
        token = page.token or None
        if token is None:
            break
    return found


def _folder_name(run: "Run", beside: Sequence["Run"]) -> str:
    """The run's name, or its id where the name is no folder's or is not its alone."""
    name = run.info.run_name or ""
    alone = sum((other.info.run_name or "").lower() == name.lower() for other in beside) == 1
    return name if alone and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name) else str(run.info.run_id)


def _lay_out(client: "MlflowClient", run: "Run", folder: Path) -> Path:
    folder.mkdir(parents=True)
    tags = run.data.tags
    there = {file.path for file in client.list_artifacts(run.info.run_id)}
    for name in _FILES:
        if name in there:
            client.download_artifacts(run.info.run_id, name, str(folder))
    if "rounds.parquet" not in there and "tightwire.error" not in tags:
        _from_metrics(client, run, RunFolder(folder))
    if "tightwire.error" in tags:
        (folder / ERROR).write_text(tags["tightwire.error"] + "\n", encoding="utf-8")
    (folder / "mlflow.json").write_text(json.dumps({"tags": dict(tags)}), encoding="utf-8")
    if "tightwire.variation" in tags:
        axes = {key.removeprefix(_AXIS): _value(value) for key, value in tags.items() if key.startswith(_AXIS)}
        told = {"variation": tags["tightwire.variation"], "axes": axes, "seed": int(tags.get("seed", "0"))}
        (folder / TRIAL).write_text(json.dumps(told), encoding="utf-8")
    return folder


def _from_metrics(client: "MlflowClient", run: "Run", folder: RunFolder) -> None:
    """A run's folder from metrics alone."""
    found = {
        name: {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        for name in _COLUMNS
    }
    rounds = sorted(found["bytes_up"])
    if run.info.status != "FINISHED":
        raise ConfigError(
            f"MLflow run {run.info.run_id} has not finished (it is {run.info.status}); report on it when it has"
        )
    if not rounds:
        raise TrackingError(f"MLflow run {run.info.run_id} has neither files nor rounds; is it a run of tightwire?")
    columns: dict[str, list[float | None]] = {
        name: [values.get(number, None if name == "accuracy" else 0.0) for number in rounds]
        for name, values in found.items()
    }
    table = pa.table({"round": rounds, **{name: pa.array(values, pa.float64()) for name, values in columns.items()}})
    pq.write_table(table, folder.rounds)
    write_rows_atomically(folder.ledger, [], LedgerRow)
    write_rows_atomically(folder.decisions, [], DecisionRow)
    folder.write_config(yaml.safe_dump({"name": run.info.run_name, **run.data.params}))
    folder.summary.write_text(json.dumps({"digest": run.data.tags.get("digest", "")}), encoding="utf-8")


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
