"""A model with a fault of its user's making."""

import math

from torch import Tensor, nn


class Faulty(nn.Module):
    """Works when it is tried out on two samples, and fails in training."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or an error."""
        logits: Tensor = self.dense(x.flatten(1))
        return logits * (1 / 0) if len(x) > 2 else logits


def model(features: tuple[int, ...], classes: int) -> nn.Module:
    """See `Faulty`."""
    return Faulty(math.prod(features), classes)
