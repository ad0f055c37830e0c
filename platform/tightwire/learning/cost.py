"""What training one sample costs a device, counted from the module itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # where torch's documentation has users take it from
from torch.utils.flop_counter import flop_registry

BACKWARD_AND_FORWARD = 3
"""A training step costs three forward passes: itself, the gradients of inputs, and those of weights."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The figures on which the simulated clock and the memory check rest."""

    flops_per_sample: float
    """Floating-point operations to train on one sample: 2 a multiply-accumulate, forward and backward."""
    activation_bytes_per_sample: int
    """Bytes kept for the backward pass of one sample, its input included, parameters excluded."""
    parameters: int


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its making of subclasses untyped
    """Counts what torch's own `FlopCounterMode` does, which takes a second and a half to import the compiler first."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first operation imports the compiler, only to be left alone by it

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # Any: whatever the operation takes and gives
        kwargs = kwargs or {}
        count: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if count is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return out


def training_cost(module: nn.Module, features: tuple[int, ...]) -> TrainingCost:
    """Count one sample's training cost.

    FLOPs are those of matrix products, convolutions and attention, as torch's own counter sees them, times
    `BACKWARD_AND_FORWARD`; work linear in the activations is left out, as is usual. Activations are the
    distinct storages that autograd saves in one forward pass.

    Args:
        module: Any module from (samples, *features); its parameters are left as they are.
        features: Shape of one input.
    """
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage  # held, so that no later tensor has the same address
        return tensor

    with (
        _Counter() as counter,
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        module(torch.zeros(1, *features))
    return TrainingCost(
        flops_per_sample=float(BACKWARD_AND_FORWARD * counter.flops),
        activation_bytes_per_sample=sum(storage.nbytes() for storage in saved.values()),
        parameters=sum(math.prod(p.shape) for p in module.parameters()),
    )
