"""A model whose process dies at a moment of a test's choice, once.

The folder that DEADLY names holds an empty file for each death to come: ``training`` (of a client), ``upload`` (when an
update has been encoded) or ``checkpoint`` (when that after round 4 lacks its manifest alone). Whoever takes the file
away dies. Processes without DEADLY live.
"""

import math
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tightwire.codecs.codec import Codec

WISHES = os.environ.get("DEADLY")


def die(moment: str) -> None:
    """Kill -9 of this process, if that is wished."""
    try:
        (Path(str(WISHES)) / moment).unlink()  # of several processes one alone gets it
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(nn.Module):
    """Logistic regression."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.dense(x.flatten(1))
        if WISHES is not None and self.training and len(x) > 2 and torch.is_grad_enabled():
            die("training")
        return logits


def model(features: tuple[int, ...], classes: int) -> nn.Module:
    """See `Deadly`."""
    return Deadly(math.prod(features), classes)


def _wrap() -> None:
    encode, replace = Codec.encode, Path.replace

    def encoding(self: Codec, *given: Any, **named: Any) -> Any:  # Any: whatever encode takes and gives
        encoded = encode(self, *given, **named)
        die("upload")
        return encoded

    def replacing(self: Path, target: Path) -> Path:
        if target.name == "manifest-000004.json":
            die("checkpoint")
        return replace(self, target)

    Codec.encode, Path.replace = encoding, replacing  # type: ignore[method-assign,assignment]


if WISHES is not None:
    _wrap()
