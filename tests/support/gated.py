"""A model that stands still while there is a file `gate` in the working folder, for a test to catch it at work."""

import math
import time
from pathlib import Path

from torch import Tensor, nn

GATE = Path("gate")


class Gated(nn.Module):
    """Logistic regression."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        while GATE.exists():
            time.sleep(0.05)
        logits: Tensor = self.dense(x.flatten(1))
        return logits


def model(features: tuple[int, ...], classes: int) -> nn.Module:
    """See `Gated`."""
    return Gated(math.prod(features), classes)
