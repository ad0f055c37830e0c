"""What local training needs in memory, and who is refused for lack of it."""

from tightwire.devices.population import Profile

VECTORS = 4
"""Vectors of the model's length that training holds at once: weights, gradients, the received model (which
becomes the update in place), and the residual that error feedback still owes."""

BYTES_PER_VALUE = 4
"""All of them are float32."""


def training_memory(parameters: int, activation_bytes_per_sample: int, batch: int) -> int:
    """Bytes that local SGD needs: 16 a parameter, and the activations of one batch.

    Counted are the four vectors of `VECTORS` and what the backward pass keeps of the forward pass. Not
    counted are the program, the training data, and the frame, which is written out as it is encoded.

    Args:
        parameters: Parameters of the model.
        activation_bytes_per_sample: Bytes of one sample's activations that are kept for the backward pass.
        batch: Samples in a batch.

    Raises:
        ValueError: An argument is negative.
    """
    if parameters < 0 or activation_bytes_per_sample < 0 or batch < 0:
        raise ValueError(
            f"{parameters} parameters, {activation_bytes_per_sample} activation bytes a sample, "
            f"a batch of {batch}: none may be negative"
        )
    return VECTORS * BYTES_PER_VALUE * parameters + activation_bytes_per_sample * batch


def refusal(profile: Profile, needed: float) -> str | None:
    """``"memory"`` if this device cannot hold `needed` bytes of training state, None if it can take part."""
    return "memory" if needed > profile.memory else None
