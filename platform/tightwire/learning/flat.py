"""A module whose parameters lie in one vector."""

import numpy as np
import torch
from torch import Tensor, nn

from tightwire.arrays import Flat
from tightwire.errors import ConfigError
from tightwire.wire.schema import Schema, TensorSpec


class FlatModel:
    """A module that reads and writes all its parameters as one contiguous float32 vector.

    The parameters become views into the vector, in the order of ``named_parameters()``, so loading a model is
    one copy. The module now belongs to this object; do not move or cast it.

    Modules with buffers (such as BatchNorm's running statistics) are refused: clients' statistics are not
    updates to add up, and federated work uses GroupNorm or LayerNorm instead (Hsieh et al. 2020).
    """

    module: nn.Module
    schema: Schema
    """Names and shapes of the parameters, in the order in which they lie in the vector."""

    def __init__(self, module: nn.Module) -> None:
        """Take over a module.

        Raises:
            ConfigError: When it has no parameters, has buffers, or one is frozen or not float32 on cpu.
        """
        _check(module)
        named = list(module.named_parameters())
        self.module = module
        self.schema = Schema(tensors=tuple(TensorSpec(name, tuple(p.shape)) for name, p in named))
        self.parameters = tuple(p for _, p in named)
        # torch's allocations are aligned to 64 bytes, on which the bits of matrix products may depend
        self._vector = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.views = self.shaped(self._vector)
        """The parameters' values, outside autograd; writing to them changes the model."""
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.data = view
        self._numbers: Flat = self._vector.numpy()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self._numbers)

    def shaped(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Views of a vector of shape (parameters,) in the shapes of the parameters."""
        pieces = torch.split(vector, [p.numel() for p in self.parameters])
        return tuple(piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True))

    def read(self) -> Flat:
        """A copy of all parameters, shape (parameters,)."""
        return self._numbers.copy()

    def write(self, flat: Flat) -> None:
        """Load all parameters.

        Args:
            flat: float32, shape (parameters,); it is copied and may be read-only.

        Raises:
            ValueError: When shape or type differ.
        """
        if flat.shape != self._numbers.shape or flat.dtype != np.float32:
            raise ValueError(
                f"got {flat.dtype} of shape {flat.shape}; this model takes float32 of shape ({self.size},)"
            )
        np.copyto(self._numbers, flat)

    def since(self, start: Flat) -> Flat:
        """What was added to the model since it was `start`: a fresh array, shape (parameters,)."""
        return np.subtract(self._numbers, start)


def _check(module: nn.Module) -> None:
    for name, _ in module.named_buffers():
        raise ConfigError(
            f"the model has a buffer {name!r}, which is not trained; use GroupNorm or LayerNorm for BatchNorm"
        )
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            raise ConfigError(f"the model's parameter {name!r} is frozen; every parameter must require a gradient")
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise ConfigError(
                f"the model's {name!r} is {parameter.dtype} on {parameter.device}; use torch.float32 on cpu"
            )
    if not any(True for _ in module.parameters()):
        raise ConfigError("the model has no parameters; give one that can be trained")
