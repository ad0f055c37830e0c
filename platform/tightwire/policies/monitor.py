"""What a client learns of its uplink by watching its own uploads."""

import math
from dataclasses import dataclass, replace

from tightwire.policies.base import Outcome

_WIDEST = 32.0
"""An upload counts as at most so many times slower or faster than expected."""


@dataclass(frozen=True, slots=True)
class Link:
    """The state of a policy that needs to know how fast its client's uplink really is."""

    rate: float = 0.0
    """bit/s that uploads got: moving average of the seconds a bit took; 0 before anything is known."""

    def known(self, promised: float) -> "Link":
        """The same, or what is promised where nothing is known yet.

        Args:
            promised: bit/s.
        """
        return self if self.rate > 0 else replace(self, rate=promised)

    def after(self, outcome: Outcome, memory: float) -> "Link":
        """What is known after an upload, whether it was used, late or lost.

        Args:
            outcome: What became of it.
            memory: Weight of the past, in [0, 1).
        """
        seconds = outcome.seconds - outcome.latency
        if outcome.bytes <= 0 or not 0 < seconds < math.inf:
            return self
        seen = 8 * outcome.bytes / seconds
        if self.rate > 0:
            seen = min(max(seen, self.rate / _WIDEST), self.rate * _WIDEST)
        return self._mixed(seen, memory)

    def faded(self, promised: float, memory: float) -> "Link":
        """Nearer to what is promised: who sends nothing learns nothing, so a bad memory must fade by itself.

        Args:
            promised: bit/s.
            memory: Weight of the past, in [0, 1).
        """
        return self._mixed(promised, memory)

    def seconds(self, size: float) -> float:
        """Seconds that so many bytes should take, latency not included; infinite on a dead link."""
        return 8 * size / self.rate if self.rate > 0 else math.inf

    def _mixed(self, rate: float, memory: float) -> "Link":
        if not 0 < rate < math.inf:
            return self
        if self.rate <= 0:
            return replace(self, rate=rate)
        return replace(self, rate=1 / (memory / self.rate + (1 - memory) / rate))
