"""Who is asked in each round, and who drops out of it."""

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field, PositiveInt

from tightwire.arrays import Ints
from tightwire.keys import generator, key
from tightwire.spec import Spec


class Participation(Spec):
    """Uniform random selection without replacement, with over-selection and drop-outs.

    The latter two after Bonawitz et al. 2019.
    """

    cohort: PositiveInt = 20
    """Updates that the server waits for in a round."""
    over: float = Field(default=0.0, ge=0)
    """Share of clients asked beyond the cohort, against stragglers and drop-outs; Bonawitz et al. use 0.3."""
    drop: float = Field(default=0.05, ge=0, le=1)
    """Probability that a selected client drops out: it trains, but its upload breaks off at a random point."""

    @property
    def invited(self) -> int:
        """Clients asked in a round: cohort * (1 + over), rounded up."""
        return math.ceil(round(self.cohort * (1 + self.over), 6))

    def select(
        self, eligible: Ints, round: int, seed: int, available: Callable[[int], bool] | None = None
    ) -> tuple[int, ...]:
        """The clients asked in one round: a uniform sample of `invited`, or all if there are not so many.

        Takes time and memory of the order of the cohort, whatever the length of `eligible` (for a cohort
        above a fiftieth of it, of the order of `eligible`, which is then as large).

        Args:
            eligible: Clients that can be asked, ascending, shape (eligible,).
            round: Round number.
            seed: The run's seed.
            available: Whether a client is there now; None if all are. It is asked of a few clients more than are
                found, or of all when hardly any are there.

        Returns:
            Client numbers, ascending.

        Raises:
            ValueError: The clients drawn show that `eligible` is not strictly ascending.
        """
        count = min(self.invited, eligible.size)
        rng = generator(seed, "select", round=round)
        picked = eligible[np.sort(rng.choice(eligible.size, count, replace=False, shuffle=False))]
        if np.any(picked[1:] <= picked[:-1]):
            raise ValueError("`eligible` is not ascending or has duplicates; pass it through np.unique")
        if available is None:
            return tuple(picked.tolist())
        found = [client for client in picked.tolist() if available(client)]
        if len(found) < count:
            found += self._others(eligible, set(picked.tolist()), count - len(found), available, rng)
        return tuple(sorted(found))

    @staticmethod
    def _others(
        eligible: Ints, asked: set[int], wanted: int, available: Callable[[int], bool], rng: np.random.Generator
    ) -> list[int]:
        """`wanted` more clients that are there, in random order, each asked once; fewer if there are not so many."""
        found: list[int] = []
        while len(found) < wanted and 2 * len(asked) < eligible.size:
            client = int(eligible[rng.integers(eligible.size)])
            if client not in asked:
                asked.add(client)
                if available(client):
                    found.append(client)
        if len(found) < wanted:
            for client in rng.permutation(eligible).tolist():
                if client not in asked and available(client):
                    found.append(client)
                    if len(found) == wanted:
                        break
        return found

    def drops(self, client: int, round: int, seed: int) -> float | None:
        """The share of its upload after which `client`, if selected in `round`, drops out; None if it does not."""
        if key(seed, "drop", round=round, client=client) >= self.drop * 2**64:
            return None
        return key(seed, "drop point", round=round, client=client) / 2**64
