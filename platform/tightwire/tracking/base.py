"""What the coordinator tells the world, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tightwire.federation.records import RoundRecord, Summary


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run before its first round."""

    name: str
    folder: Path
    params: Mapping[str, str]
    """The resolved config, flat: ``{"training.lr": "0.1", ...}``."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Versions, git commit and the like."""


class Tracker(Protocol):
    """A place where a run is recorded while it goes.

    No method may raise because a server is away, or block a round.
    """

    def start(self, info: RunInfo) -> None:
        """A run begins, or goes on after a resume."""
        ...

    def round(self, record: RoundRecord) -> None:
        """A round has closed."""
        ...

    def finish(self, summary: Summary | None, *, status: str) -> str | None:
        """The run has ended: ``finished``, ``failed`` or ``killed``; the run's folder is complete.

        Returns:
            None when everything was recorded, or one line that says what was not and which command sends it.
        """
        ...

    @property
    def run_id(self) -> str | None:
        """The tracker's own name for this run, once it has one."""
        ...


class NullTracker:
    """Records nothing."""

    run_id: str | None = None

    def start(self, info: RunInfo) -> None:
        """Do nothing."""

    def round(self, record: RoundRecord) -> None:
        """Do nothing."""

    def finish(self, summary: Summary | None, *, status: str) -> str | None:  # noqa: ARG002 - the interface's
        """Do nothing."""
        return None
