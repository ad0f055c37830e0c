"""How a dataset is divided among clients: frozen records of one keyed, pure function each.

`split` maps (labels, clients, seed) to a `Division`: for each client a view of sample indices, 8 bytes a
sample in all. Every sample belongs to exactly one client, except under `Sizes`, which may leave samples over.
A client may end with no sample at all; its size then says 0.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tightwire.arrays import Floats, Ints
from tightwire.errors import ConfigError
from tightwire.keys import generator
from tightwire.spec import Spec


@dataclass(frozen=True, slots=True)
class Division:
    """Whose sample is whose."""

    order: Ints
    """Sample indices, client after client, shape (samples given away,)."""
    offsets: Ints
    """Where each client's indices begin in `order`, and the end, shape (clients + 1,)."""

    @property
    def sizes(self) -> Ints:
        """Samples of each client, shape (clients,)."""
        return np.diff(self.offsets)

    def indices(self, client: int) -> Ints:
        """Sample indices of one client, shape (its size,), a view."""
        return self.order[self.offsets[client] : self.offsets[client + 1]]


class Iid(Spec):
    """A keyed shuffle dealt out evenly: sizes differ by at most one (McMahan et al. 2017, section 3)."""

    name: Literal["iid"] = "iid"

    def split(self, labels: Ints, clients: int, seed: int) -> Division:
        """Divide samples 0..len(labels)-1 among `clients`."""
        order = generator(seed, "partition").permutation(len(labels))
        return Division(order, _even(len(labels), clients))


class Dirichlet(Spec):
    """Each class is divided by its own draw from Dirichlet(alpha) over the clients.

    Li et al. 2022 (NIID-Bench), section 4.1, after Yurochkin et al. 2019. Small alpha gives clients of few
    classes and of very different size, some of them empty; large alpha divides each class evenly.
    """

    name: Literal["dirichlet"] = "dirichlet"
    alpha: PositiveFloat = 0.5

    def split(self, labels: Ints, clients: int, seed: int) -> Division:
        """Divide samples 0..len(labels)-1 among `clients`."""
        rng = generator(seed, "partition")
        owner = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(clients, self.alpha))
            owner[members] = np.repeat(np.arange(clients), np.diff(_proportional(shares, len(members))))
        return _owned(owner, clients)


class Shards(Spec):
    """Samples sorted by label, cut into even shards, `per_client` of them to each client.

    McMahan et al. 2017, section 3: with 2 shards a client most clients hold samples of two classes.
    """

    name: Literal["shards"] = "shards"
    per_client: PositiveInt = 2

    def split(self, labels: Ints, clients: int, seed: int) -> Division:
        """Divide samples 0..len(labels)-1 among `clients`."""
        rng = generator(seed, "partition")
        shuffled = rng.permutation(len(labels))
        by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
        shards = clients * self.per_client
        owner = np.empty(len(labels), np.int64)
        owner[by_label] = np.repeat(rng.permutation(shards) // self.per_client, np.diff(_even(len(labels), shards)))
        return _owned(owner, clients)


class Sizes(Spec):
    """Exactly so many samples to each client, whatever their labels; the rest belong to nobody."""

    name: Literal["sizes"] = "sizes"
    sizes: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]

    def split(self, labels: Ints, clients: int, seed: int) -> Division:
        """Divide samples 0..len(labels)-1 among `clients`.

        Raises:
            ConfigError: When there is not one size a client, or they ask for more samples than there are.
        """
        if len(self.sizes) != clients:
            raise ConfigError(f"partition.sizes lists {len(self.sizes)} sizes for {clients} clients; give one a client")
        offsets = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])
        if offsets[-1] > len(labels):
            raise ConfigError(
                f"partition.sizes adds up to {offsets[-1]}, the data has {len(labels)} samples; ask for less"
            )
        return Division(generator(seed, "partition").permutation(len(labels))[: offsets[-1]], offsets)


class PowerLaw(Spec):
    """Sizes proportional to rank ** -exponent, ranks dealt to clients by key, labels at random.

    Exponent 0 is an even division; the clients at the far end may get no sample.
    """

    name: Literal["power-law"] = "power-law"
    exponent: NonNegativeFloat = 1.0

    def split(self, labels: Ints, clients: int, seed: int) -> Division:
        """Divide samples 0..len(labels)-1 among `clients`."""
        rng = generator(seed, "partition")
        shares = np.power(rng.permutation(clients) + 1.0, -self.exponent)
        return Division(rng.permutation(len(labels)), _proportional(shares, len(labels)))


class Natural(Spec):
    """The division that the data came with; data that has one (``synthetic``) takes it, and no other."""

    name: Literal["natural"] = "natural"

    def split(self, labels: Ints, clients: int, seed: int) -> Division:  # noqa: ARG002 - the interface's
        """Never divides anything.

        Raises:
            ConfigError: Always: the data at hand has no clients of its own.
        """
        raise ConfigError(
            f"partition 'natural' needs data that comes divided by client; these {len(labels)} do not: "
            "choose iid, dirichlet, shards, sizes or power-law, or data 'synthetic'"
        )


AnyPartition = Annotated[
    Iid | Dirichlet | Shards | Sizes | PowerLaw | Natural, Field(discriminator="name")
]  # fmt: skip


def _even(samples: int, parts: int) -> Ints:
    """Offsets of `parts` parts that differ by at most one sample, shape (parts + 1,)."""
    return np.arange(parts + 1, dtype=np.int64) * samples // parts


def _proportional(shares: Floats, samples: int) -> Ints:
    """Offsets of parts proportional to `shares`, each within one sample of its due, shape (parts + 1,)."""
    ends = np.cumsum(shares)
    inner = np.floor(ends[:-1] * (samples / ends[-1])).astype(np.int64)
    return np.concatenate([[0], np.minimum(inner, samples), [samples]])


def _owned(owner: Ints, clients: int) -> Division:
    """The division in which sample i belongs to ``owner[i]``."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=clients))])
    return Division(np.argsort(owner, kind="stable"), offsets)
