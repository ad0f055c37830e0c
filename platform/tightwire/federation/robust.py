"""How a round's updates become one, also when some of them are hostile.

`mean` and `norm_bounded` are linear: hosts add what they decode. The others need all updates at once, so that hosts
send frames back and the server decodes them: O(cohort x model) of memory for one round, which is inherent to them.
They count every update once, as in their papers, however many samples are behind it; the linear ones weigh by samples.

Results do not depend on which host did what or what came first: rows are in ascending order of clients, sums over rows
are taken in that order in float64, and ties go to the lower number.
"""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tightwire.arrays import Flat, Floats
from tightwire.codecs.sums import norms
from tightwire.spec import Spec

Rows = npt.NDArray[np.float32]
"""Updates, one a row, ascending by client, shape (updates, parameters); finite."""

BLOCK = 8192
"""Coordinates that are looked at together."""


class Mean(Spec):
    """The mean, weighted by samples (FedAvg, McMahan et al. 2017, algorithm 1). One hostile update moves it at will."""

    name: Literal["mean"] = "mean"
    gathers: ClassVar[bool] = False


class NormBounded(Spec):
    """The mean, weighted by samples, of updates scaled down to a norm (Sun et al. 2019, arXiv 1911.07963)."""

    name: Literal["norm_bounded"] = "norm_bounded"
    gathers: ClassVar[bool] = False
    bound: float | None = Field(default=None, gt=0)
    """Longest Euclidean norm; null takes the median norm of recent rounds' updates, of the first round's own in it."""


class Gathering(Spec):
    """An aggregator that looks at all updates at once."""

    gathers: ClassVar[bool] = True

    @property
    @abstractmethod
    def least(self) -> int:
        """Fewest updates that it can be asked about."""

    @property
    def wants(self) -> str:
        """`least` in words, and why."""
        return f"at least {self.least} updates"

    @abstractmethod
    def combine(self, rows: Rows) -> tuple[Flat, tuple[int, ...]]:
        """Make one update of many.

        Args:
            rows: At least `least` of them.

        Returns:
            The update, shape (parameters,), and the numbers of the rows that went into it, ascending.
        """


class Median(Gathering):
    """The median of each coordinate (Yin et al. 2018, arXiv 1803.01498, definition 1).

    Of an even number of values, it is the mean of the two in the middle. Where fewer than half of the updates have a
    value at all, as after `topk`, it is 0.
    """

    name: Literal["median"] = "median"

    @property
    def least(self) -> int:
        """One."""
        return 1

    def combine(self, rows: Rows) -> tuple[Flat, tuple[int, ...]]:
        """The coordinate-wise median; of all rows."""
        return _middle(rows, (len(rows) - 1) // 2), tuple(range(len(rows)))


class TrimmedMean(Gathering):
    """The mean of each coordinate without its largest and smallest values (Yin et al. 2018, definition 2)."""

    name: Literal["trimmed_mean"] = "trimmed_mean"
    share: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of the values that is left out at each end, rounded down: as many hostile updates are harmless."""

    @property
    def least(self) -> int:
        """So many that something is cut off, or nothing would protect the mean."""
        return math.ceil(1 / self.share - 1e-9)

    @property
    def wants(self) -> str:
        """As `Gathering.wants`."""
        return f"at least {self.least} updates to cut off a share of {self.share:g}"

    def combine(self, rows: Rows) -> tuple[Flat, tuple[int, ...]]:
        """The coordinate-wise trimmed mean; of all rows."""
        return _middle(rows, min(math.floor(self.share * len(rows) + 1e-9), (len(rows) - 1) // 2)), tuple(
            range(len(rows))
        )


class Krum(Gathering):
    """The one update nearest to its neighbours (Blanchard et al. 2017, arXiv 1703.02757).

    An update's score is the sum of its squared distances to its n - attackers - 2 nearest others.
    """

    name: Literal["krum"] = "krum"
    attackers: int = Field(ge=1)
    """Hostile updates in a round at most."""

    @property
    def least(self) -> int:
        """2 attackers + 3, by the paper's condition 2 f + 2 < n."""
        return 2 * self.attackers + 3

    @property
    def wants(self) -> str:
        """As `Gathering.wants`."""
        return f"at least {self.least} updates (2 attackers + 3) against {self.attackers} attackers"

    def combine(self, rows: Rows) -> tuple[Flat, tuple[int, ...]]:
        """The update of the lowest score."""
        (best,) = _nearest(rows, self.attackers, 1)
        return rows[best].copy(), (best,)


class MultiKrum(Gathering):
    """The mean of the updates with Krum's lowest scores (m-Krum in Blanchard et al. 2017)."""

    name: Literal["multi_krum"] = "multi_krum"
    attackers: int = Field(ge=1)
    """Hostile updates in a round at most."""
    kept: int | None = Field(default=None, ge=1)
    """Updates that are kept, m in the paper; null keeps all but `attackers`."""

    @property
    def least(self) -> int:
        """2 attackers + 3, or `kept` + attackers where that is more."""
        return max(2 * self.attackers + 3, self.attackers + (self.kept or 0))

    @property
    def wants(self) -> str:
        """As `Gathering.wants`."""
        return f"at least {self.least} updates (2 attackers + 3, kept + attackers) against {self.attackers} attackers"

    def combine(self, rows: Rows) -> tuple[Flat, tuple[int, ...]]:
        """The mean of the updates of the lowest scores."""
        chosen = _nearest(rows, self.attackers, self.kept or len(rows) - self.attackers)
        total = np.zeros(rows.shape[1])
        for row in chosen:
            total += rows[row]
        return (total / len(chosen)).astype(np.float32), chosen


AnyAggregator = Annotated[
    Mean | NormBounded | Median | TrimmedMean | Krum | MultiKrum,
    Field(discriminator="name"),
]


def scores(rows: Rows, attackers: int) -> Floats:
    """Krum's score of each update, shape (updates,)."""
    count, size = rows.shape
    squares = np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1, count):
            squares[i, j] = squares[j, i] = norms(rows[i] - rows[j], size)[0] ** 2
    np.fill_diagonal(squares, math.inf)  # the farthest of all: an update is not its own neighbour
    nearest = np.sort(squares, axis=1)[:, : count - attackers - 2]
    total = np.zeros(count)
    for column in nearest.T:
        total += column
    return total


def _nearest(rows: Rows, attackers: int, kept: int) -> tuple[int, ...]:
    order = np.argsort(scores(rows, attackers), kind="stable")
    return tuple(sorted(order[:kept].tolist()))


def _middle(rows: Rows, cut: int) -> Flat:
    """The mean of each coordinate's values but the `cut` largest and the `cut` smallest, shape (parameters,)."""
    count, size = rows.shape
    out = np.empty(size, np.float32)
    for start in range(0, size, BLOCK):
        ordered = np.sort(rows[:, start : start + BLOCK].T, axis=1)
        kept = np.ascontiguousarray(ordered[:, cut : count - cut].T)
        # + 0.0, since how zeros of both signs are ordered is up to the machine
        out[start : start + BLOCK] = np.add.reduce(kept, axis=0, dtype=np.float64) / (count - 2 * cut) + 0.0
    return out
