"""A listener that is told the same things several times, and passes each on once."""

from collections.abc import Sequence

from tightwire.federation.records import RoundRecord
from tightwire.simulation import Listener


class Once:
    """Stands between a listener and the coordinators that carry out its run one after another.

    Where one died, the next goes back to a checkpoint and redoes rounds that the listener has heard of.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._begun = False
        self.round_told = 0
        """The last round that the listener has heard of."""

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """See `tightwire.simulation.Listener`."""
        if self._begun:
            for record in records:
                self.round(record)
            return
        self._begun = True
        self.round_told = len(records)
        self._listener.restored(records)

    def round(self, record: RoundRecord) -> None:
        """See `tightwire.simulation.Listener`."""
        if record.round > self.round_told:
            self.round_told = record.round
            self._listener.round(record)

    def note(self, text: str) -> None:
        """See `tightwire.simulation.Listener`."""
        self._listener.note(text)
