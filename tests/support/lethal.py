"""A model that kills the process that trains it, for tests of hosts that die again and again."""

import math
import os

import torch
from torch import Tensor, nn


class Lethal(nn.Module):
    """Logistic regression with a fatal training mode."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; never returns when a client host is training."""
        if self.training and len(x) > 2 and torch.is_grad_enabled():
            os._exit(1)
        logits: Tensor = self.dense(x.flatten(1))
        return logits


def model(features: tuple[int, ...], classes: int) -> nn.Module:
    """See `Lethal`."""
    return Lethal(math.prod(features), classes)
