"""What training one sample costs a device, counted from the module itself."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
        FlopCounterMode(display=False) as counter,
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        module(torch.zeros(1, *features))
    return TrainingCost(
        flops_per_sample=float(BACKWARD_AND_FORWARD * counter.get_total_flops()),
        activation_bytes_per_sample=sum(storage.nbytes() for storage in saved.values()),
        parameters=sum(math.prod(p.shape) for p in module.parameters()),
    )
