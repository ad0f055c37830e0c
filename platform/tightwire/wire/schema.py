"""What an update looks like: the names and shapes of its tensors, in the order in which they lie in the flat vector."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

from tightwire.errors import CodecError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape of one tensor."""

    name: str
    shape: tuple[int, ...]
    """Lengths of the axes; none for a scalar, and 0 makes an empty tensor."""

    def __post_init__(self) -> None:
        if not self.name:
            raise CodecError("a tensor needs a name, got an empty one")
        if any(isinstance(length, bool) or not isinstance(length, int) or length < 0 for length in self.shape):
            raise CodecError(
                f"tensor {self.name!r} has shape {self.shape}; every length must be an integer of 0 or more"
            )

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Schema:
    """All tensors of an update, which lie one after another in a flat float32 vector.

    Raises:
        CodecError: When two tensors have one name.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if doubled:
            raise CodecError(f"tensor names must be unique, got {', '.join(doubled)} more than once")

    @cached_property
    def _hash(self) -> int:
        return int.from_bytes(self.digest)

    def __hash__(self) -> int:
        """Computed once, as each frame looks a schema up; and the same in all processes, as schemas travel."""
        return self._hash

    @classmethod
    def single(cls, n: int, name: str = "update") -> "Schema":
        """The schema of one vector of `n` values."""
        return cls((TensorSpec(name, (n,)),))

    @cached_property
    def size(self) -> int:
        """Number of values of all tensors together."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes that tell schemas apart: BLAKE2b over names and shapes."""
        text = "".join(f"{tensor.name!r}{tuple(tensor.shape)!r}\n" for tensor in self.tensors)
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in the flat vector, and at last its size: one more than there are tensors."""
        offsets = [0]
        for tensor in self.tensors:
            offsets.append(offsets[-1] + tensor.size)
        return tuple(offsets)

    def slices(self) -> tuple[slice, ...]:
        """Where each tensor lies in the flat vector."""
        return tuple(slice(*ends) for ends in zip(self.offsets, self.offsets[1:], strict=False))
