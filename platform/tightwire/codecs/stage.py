"""What a codec's stages have in common: the planes that flow between them, and the interface of a stage.

An update's tensor enters a chain as reals. Each stage turns one plane into the next and writes what its inverse needs
to know to the frame; the last plane's bytes end the tensor's part of the frame. Decoding goes forward once over the
bytes, so that every count is known and bounded before memory is taken (`Stage.read`), and then backward over the
planes (the `Undo` that it returned).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs.kernels import extremes
from tightwire.wire.packing import packed_length
from tightwire.wire.streams import Sink, Source

Kind = Literal["reals", "ints", "bytes"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a plane, known before its data is."""

    kind: Kind
    """``reals`` are float32 values, ``ints`` are codes of `bits` bits, ``bytes`` are final."""
    count: int
    """Number of values, codes or bytes; more than 0, but for bytes."""
    bits: int
    """Of each: 32 for reals, 1 to 32 for ints, 8 for bytes."""

    @property
    def length(self) -> int:
        """Bytes of its data."""
        return packed_length(self.count, self.bits)


@dataclass(frozen=True)
class Plane:
    """Values on their way through a chain."""

    layout: Layout
    data: AnyArray
    """Contiguous: float32 of shape (count,) for reals, else uint8 of shape (layout.length,), where ints are packed."""

    @classmethod
    def reals(cls, values: Flat) -> "Plane":
        """Real values, shape (n,)."""
        return cls(Layout("reals", values.size, 32), values)

    @cached_property
    def extremes(self) -> tuple[np.float32, np.float32]:
        """Smallest and largest of the reals; both are finite just when all are."""
        return extremes(self.data)


Undo = Callable[[Plane, "Flat | None"], Plane]
"""Turns the plane that a stage gave back into the one it took, in the memory given where it is reals."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a paper would count for one tensor."""

    kept: int
    """Values sent."""
    bits: float
    """Bits a value sent."""
    side: float = 0.0
    """Bits besides the values: positions and scales."""

    @property
    def nominal(self) -> float:
        """All bits together."""
        return self.kept * self.bits + self.side


class Stage(ABC):
    """One step of a chain: a frozen record of pure functions. Its fields are its arguments in a codec line."""

    name: ClassVar[str]
    takes: ClassVar[Kind]
    gives: ClassVar[Kind]
    passes: ClassVar[float]
    """Passes that the encoder makes over the values it takes, for a device's cost model."""
    source: ClassVar[str]
    """Where it is described."""
    hands_on_non_finite: ClassVar[bool] = False
    """Whether it takes any reals, and gives reals that hold a NaN or an infinity whenever what it takes does."""

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """Whether the expectation of what is decoded is what was encoded."""

    @abstractmethod
    def encode(self, plane: Plane, sink: Sink, key: int) -> Plane:
        """Turn a plane into the next, and write what `read` needs.

        Args:
            plane: Of the kind this stage takes; its reals are finite, unless the stage hands on what is not.
            sink: Takes side information, by section.
            key: A 64-bit key of this stage and tensor, the only source of randomness.
        """

    @abstractmethod
    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """Read what `encode` wrote.

        Args:
            layout: Of the plane that was encoded.
            source: The frame, at the place where `encode` wrote. What it holds may be anything.

        Returns:
            The layout of the plane that `encode` gave, and its inverse, which gives finite reals.

        Raises:
            FrameError: For bytes that `encode` cannot have written, as far as that shows.
        """

    @abstractmethod
    def tally(self, before: Tally) -> Tally:
        """What a paper would count after this stage."""

    @property
    def keeps(self) -> float:
        """Fraction of the values that is left for the stages behind."""
        return 1.0

    def __str__(self) -> str:
        parts: list[str] = []
        for position, field in enumerate(fields(self)):  # type: ignore[arg-type]  # every final stage is a dataclass
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{value}" if position == len(parts) == 0 else f"{field.name}={value}")
        return f"{self.name}({', '.join(parts)})" if parts else self.name
