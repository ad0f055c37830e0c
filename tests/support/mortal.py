"""A model that kills the process that trains it, once: for tests of trials that go on after their process died."""

import math
import os
from pathlib import Path

import torch
from torch import Tensor, nn

DIED = Path("died")
"""In the working folder, once it has happened."""
CALLS = 150
"""Batches that it lives through."""


class Mortal(nn.Module):
    """Logistic regression."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, classes)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits; the first time that so many batches were trained on, it never returns."""
        self.calls += self.training and len(x) > 2 and torch.is_grad_enabled()
        if self.calls > CALLS and not DIED.exists():
            DIED.touch()
            os._exit(1)
        logits: Tensor = self.dense(x.flatten(1))
        return logits


def model(features: tuple[int, ...], classes: int) -> nn.Module:
    """See `Mortal`."""
    return Mortal(math.prod(features), classes)
