"""The synthetic federated dataset of FedProx, generated client by client when it is asked for."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from tightwire.arrays import Ints
from tightwire.errors import ConfigError
from tightwire.keys import generator
from tightwire.learning.partition import AnyPartition, Natural
from tightwire.learning.samples import Batch
from tightwire.spec import Spec

FEATURES: Final = 60
CLASSES: Final = 10


class Synthetic(Spec):
    """Synthetic(alpha, beta) of FedProx (Li et al. 2020, section 5.1 and appendix C.1).

    Client k labels by its own model, ``y = argmax(softmax(W x + b))`` with every weight from N(u_k, 1), on
    inputs from N(v_k, diag(j ** -1.2)), each element of v_k from N(B_k, 1). u_k is from N(0, alpha), B_k from
    N(0, beta), where alpha and beta are standard deviations, as in the authors' generator. Sizes are
    50 + lognormal(4, 2), as there, but bounded. Everything is keyed by (seed, client): clients are made when
    asked for, and a client of a population of a hundred is the same in one of a million.
    """

    name: Literal["synthetic"] = "synthetic"
    alpha: NonNegativeFloat = 1.0
    """How much the clients' labelling models differ."""
    beta: NonNegativeFloat = 1.0
    """How much the clients' inputs differ."""
    max_samples: PositiveInt = 10_000
    """No client has more samples than this: of a million, the lognormal's tail would give some 500,000."""
    test_clients: PositiveInt = 100
    """So many clients, drawn by key, give test samples: a ninth of what they train on, at most 200 each."""

    def load(self, seed: int, clients: int, partition: AnyPartition) -> "SyntheticData":
        """The population; costs 8 bytes a client.

        Raises:
            ConfigError: When `partition` is not ``natural``.
        """
        if not isinstance(partition, Natural):
            raise ConfigError(
                f"data 'synthetic' comes divided by client and cannot be divided by {partition.name!r}; "
                "set partition to {name: natural}"
            )
        drawn = generator(seed, "synthetic-sizes").lognormal(4, 2, clients)
        sizes = np.minimum(drawn + 50, self.max_samples).astype(np.int64)
        among = generator(seed, "synthetic-test-clients")
        chosen = np.sort(among.choice(clients, min(clients, self.test_clients), replace=False))
        parts = [_draw(self, seed, int(c), int(np.clip(sizes[c] // 9, 1, 200)), "synthetic-test") for c in chosen]
        test = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
        return SyntheticData(spec=self, seed=seed, sizes=sizes, test=test)


@dataclass(frozen=True, slots=True)
class SyntheticData:
    """The `FederatedData` of `Synthetic`."""

    spec: Synthetic
    seed: int
    sizes: Ints
    test: Batch
    features: tuple[int, ...] = (FEATURES,)
    classes: int = CLASSES

    def shard(self, client: int) -> Batch:
        """The training samples of one client, generated afresh."""
        return _draw(self.spec, self.seed, client, int(self.sizes[client]), "synthetic-train")


def _draw(spec: Synthetic, seed: int, client: int, samples: int, purpose: str) -> Batch:
    model = generator(seed, "synthetic-model", client=client)
    u, centre = model.normal(0, spec.alpha), model.normal(0, spec.beta)
    weights, bias = model.normal(u, 1, (FEATURES, CLASSES)), model.normal(u, 1, CLASSES)
    mean = model.normal(centre, 1, FEATURES)
    deviation = np.power(np.arange(1.0, FEATURES + 1), -0.6)
    x = mean + deviation * generator(seed, purpose, client=client).standard_normal((samples, FEATURES))
    return x.astype(np.float32), np.argmax(x @ weights + bias, axis=1)
