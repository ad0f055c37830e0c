"""What a run tells a program: one JSON object a line, `tightwire run --events`; and reading it back from a job's log.

The log holds whatever else is printed too, so each line of a run begins with `{"tightwire": KIND, "n": N`, where N
counts from 0. Kinds are `opened`, `restored`, `round`, `note`, `ended` and `failed`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from tightwire.federation.records import Ended, RoundRecord, Summary

MARK = "tightwire"
"""Metadata that tells Tightwire's jobs from others; its value is the run's name."""
_HEAD = '{"tightwire": '


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run."""

    kind: str
    n: int
    """Its number in this log, from 0."""
    told: Mapping[str, Any]  # Any: JSON


class Events:
    """A listener that writes a line for all it hears."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._n = 0
        self._begun: Callable[[], None] = lambda: None

    def opened(self, *, name: str, rounds: int, text: str, folder: Path, begun: Callable[[], None]) -> None:
        """The run has a folder.

        Args:
            name: The run's name.
            rounds: How many the whole run has.
            text: The experiment in one line.
            folder: Where its results will be.
            begun: Called once the run has begun, before its first round.
        """
        self._begun = begun
        self._tell("opened", name=name, rounds=rounds, text=text, folder=str(folder))

    @contextmanager
    def shown(self) -> Iterator["Events"]:
        """As `Live.shown`; there is nothing to show."""
        yield self

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """See `tightwire.simulation.Listener`."""
        self._tell("restored", records=[asdict(record) for record in records])
        self._begun()

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        self._tell("round", record=asdict(record))

    def note(self, text: str) -> None:
        """See `tightwire.simulation.Listener`."""
        self._tell("note", text=text)

    def ended(self, ended: Ended, plots: Sequence[Path], mlflow: str) -> None:
        """The run is over: finished, or stopped and saved.

        Args:
            ended: How.
            plots: The pictures that were drawn.
            mlflow: Where MLflow's pages of the run are to be found, in words.
        """
        self._tell("ended", **asdict(ended), plots=[str(plot) for plot in plots], mlflow=mlflow)

    def failed(self, error: Exception, code: int) -> None:
        """The run ended in an error that a person can mend; the command's exit code is `code`."""
        self._tell("failed", error=str(error), code=code)

    def _tell(self, kind: str, **told: object) -> None:
        line = json.dumps(_plain({"tightwire": kind, "n": self._n, **told}))
        self._stream.write(line + "\n")  # in one piece, for others write to the same log
        self._stream.flush()
        self._n += 1


def _plain(node: object) -> object:
    """JSON has no NaN and no infinity."""
    if isinstance(node, dict):
        return {name: _plain(child) for name, child in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(child) for child in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def read(lines: Sequence[str]) -> list[Event]:
    """The events in a log; lines that are none, or were cut off, are passed over."""
    events = []
    for line in lines:
        at = line.find(_HEAD)
        if at < 0:
            continue
        try:
            told = json.loads(line[at:])
            events.append(Event(told.pop("tightwire"), told.pop("n"), told))
        except (ValueError, KeyError):
            continue
    return events


def rest(lines: Sequence[str]) -> list[str]:
    """What else the log holds."""
    return [line for line in lines if _HEAD not in line]


def record(told: Mapping[str, Any]) -> RoundRecord:
    """A round as it was told; what another version of Tightwire knows of it besides is left out."""
    return RoundRecord(**_known(told, RoundRecord))


def ended(told: Mapping[str, Any]) -> Ended:
    """The end as it was told."""
    summary = told["summary"]
    if summary is not None:
        shares = {name: math.nan if summary[name] is None else summary[name] for name in ("accuracy", "best_accuracy")}
        summary = Summary(**{**_known(summary, Summary), **shares})
    return Ended(told["round"], summary, told["late"], told["late_fp32"], told["untracked"])


def _known(told: Mapping[str, Any], record_type: type) -> dict[str, Any]:
    names = {field.name for field in fields(record_type)}
    return {name: value for name, value in told.items() if name in names}
