"""The whole run in figures."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from tightwire.errors import TrackingError
from tightwire.federation.records import RoundRecord, Summary
from tightwire.federation.tables import write_atomically


def summarise(
    records: Sequence[RoundRecord],
    *,
    name: str,
    clients: int,
    cohort: int,
    workers: int,
    seed: int,
    digest: str,
    mlflow_run_id: str | None,
    wall_seconds: float,
) -> Summary:
    """Add a run's rounds up.

    Args:
        records: Every round of the run, in order.
        name: The run's name.
        clients: Size of the population.
        cohort: Clients asked each round.
        workers: Client hosts.
        seed: The run's seed.
        digest: SHA-256, in hex, over final model, ledger and decisions.
        mlflow_run_id: The run's name in MLflow, where it has one.
        wall_seconds: Wall time of the whole run, in seconds.

    Returns:
        The summary. `accuracy` is that of the last evaluated round, `best_accuracy` the highest of all; both
        are NaN where no round was evaluated.
    """
    accuracies = [record.accuracy for record in records if record.accuracy is not None]
    last = records[-1] if records else None
    return Summary(
        name=name,
        rounds=len(records),
        clients=clients,
        cohort=cohort,
        accuracy=accuracies[-1] if accuracies else math.nan,
        best_accuracy=max(accuracies, default=math.nan),
        bytes_up=sum(record.bytes_up for record in records),
        bytes_down=sum(record.bytes_down for record in records),
        bytes_up_fp32=sum(record.bytes_up_fp32 for record in records),
        bytes_down_fp32=sum(record.bytes_down_fp32 for record in records),
        bytes_wasted=sum(record.bytes_wasted for record in records),
        sim_seconds=last.sim_seconds if last else 0.0,
        sim_seconds_fp32=last.sim_seconds_fp32 if last else 0.0,
        energy_joules=math.fsum(record.joules for record in records),
        wall_seconds=wall_seconds,
        workers=workers,
        seed=seed,
        digest=digest,
        mlflow_run_id=mlflow_run_id,
        rejected=sum(record.rejected for record in records),
        hostile=sum(record.hostile for record in records),
    )


def write_summary(path: Path, summary: Summary) -> None:
    """Write `summary.json`, atomically; numbers that are not finite become null, as JSON has none.

    Raises:
        OSError: The file could not be written.
    """
    write_atomically(path, as_text(summary))


def as_text(summary: Summary) -> str:
    """What `write_summary` writes."""
    return _text({key: _plain(value) for key, value in dataclasses.asdict(summary).items()})


def stamp_run_id(path: Path, run_id: str) -> None:
    """Put the run's MLflow id into a `summary.json` that was written before the id was known.

    Raises:
        TrackingError: The file is no summary.
        OSError: The file could not be written.
    """
    fields = _read(path)
    if fields["mlflow_run_id"] != run_id:
        _write(path, fields | {"mlflow_run_id": run_id})


def read_digest(path: Path) -> str:
    """The digest in a `summary.json`.

    Raises:
        TrackingError: The file is no summary.
    """
    return str(_read(path)["digest"])


def _read(path: Path) -> dict[str, object]:
    names = {field.name for field in dataclasses.fields(Summary)}
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrackingError(f"cannot read {path}: {error}; it should be the summary.json of a run") from error
    if not isinstance(fields, dict) or set(fields) != names:
        raise TrackingError(f"{path} is not the summary.json of a run; it should have {', '.join(sorted(names))}")
    return fields


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, fields: dict[str, object]) -> None:
    write_atomically(path, _text(fields))


def _text(fields: dict[str, object]) -> str:
    return json.dumps(fields, indent=2) + "\n"
