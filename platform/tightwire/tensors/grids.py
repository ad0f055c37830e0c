"""Groups of values on a device, and where they lie on the even grids of `tightwire.codecs.affine`."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tightwire.arrays import AnyArray


def rows(values: Tensor, length: int) -> Iterator[tuple[slice, Tensor]]:
    """Groups of `length` values as rows, and which groups they are: all whole ones, and the shorter last one.

    Args:
        values: Shape (n,), contiguous.
        length: 1 to n.
    """
    whole = values.numel() // length
    yield slice(0, whole), values[: whole * length].view(whole, length)
    if values.numel() > whole * length:
        yield slice(whole, whole + 1), values[whole * length :].view(1, -1)


def column(numbers: AnyArray, device: torch.device) -> Tensor:
    """One number a group, shape (groups,), as a column beside the groups' values."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(device)[:, None]


def scaled(
    values: Tensor, length: int, low: AnyArray, inverse: AnyArray, shift: float, least: int, most: int
) -> Tensor:
    """(value - low) * inverse + shift, kept from least to most: shape (n,), in the type of `low` and `inverse`.

    What is no number goes to the least.

    Args:
        values: Shape (n,), contiguous float32.
        length: Values in a group; the last may be shorter.
        low: Shape (groups,), float32 or float64.
        inverse: Likewise.
        shift: Added to what is multiplied.
        least: The smallest result.
        most: The largest.
    """
    start, factor = column(low, values.device), column(inverse, values.device)
    found = torch.empty(values.numel(), dtype=start.dtype, device=values.device)
    for (groups, part), (_, into) in zip(rows(values, length), rows(found, length), strict=True):
        torch.sub(part, start[groups], out=into)
        into.mul_(factor[groups])
    if shift:
        found.add_(shift)
    return found.clamp_(least, most).nan_to_num_(nan=least)
