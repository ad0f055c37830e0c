"""What a codec's stages have in common: the planes that flow between them, and the interface of a stage.

An update's tensor enters a chain as reals. Each stage turns one plane into the next and writes what its inverse needs
to know to the frame; the last plane's bytes end the tensor's part of the frame. Decoding goes forward once over the
bytes, so that every count is known and bounded before memory is taken (`Stage.read`), and then backward over the
planes (the `Undo` that it returned). Decoding remembers nothing: a frame and its schema are all it needs. Encoding
may remember something from one round to the next (`Context.memory`), which then is the client's explicit state.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import ClassVar, Literal, NoReturn

import numpy as np

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs.kernels import extremes, group_extremes
from tightwire.errors import CodecError
from tightwire.wire.packing import packed_length
from tightwire.wire.streams import Sink, Source

Kind = Literal["reals", "ints", "bytes"]
Axes = Literal["kept", "lost", "made"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a plane, known before its data is."""

    kind: Kind
    """``reals`` are float32 values, ``ints`` are codes of `bits` bits, ``bytes`` are final."""
    count: int
    """Number of values, codes or bytes; more than 0, but for bytes."""
    bits: int
    """Of each: 32 for reals, 1 to 32 for ints, 8 for bytes."""
    shape: tuple[int, ...] = ()
    """Of reals that lie as in their tensor: its axes. Empty where they do not: values are then just a row."""
    zero: int | None = None
    """Of ints: the code for the value 0, or the one nearest to it; None where there is none."""
    parts: tuple[int, ...] = ()
    """Of ints: lengths of the stretches, one after another, that have statistics of their own; empty for one."""

    @property
    def length(self) -> int:
        """Bytes of its data."""
        return packed_length(self.count, self.bits)

    @property
    def rows(self) -> int:
        """Rows (output channels) of a tensor with two axes or more; 1 for anything else."""
        return self.shape[0] if len(self.shape) > 1 else 1


@dataclass(frozen=True)
class Plane:
    """Values on their way through a chain."""

    layout: Layout
    data: AnyArray
    """Contiguous: float32 of shape (count,) for reals, else uint8 of shape (layout.length,), where ints are packed."""
    _seen: dict[int, Flat] = field(default_factory=dict, init=False, repr=False, compare=False)
    """`group_extremes` by length."""

    @classmethod
    def reals(cls, values: Flat, shape: tuple[int, ...] = ()) -> "Plane":
        """Real values, shape (n,), that lie as in a tensor of `shape`, if given."""
        return cls(Layout("reals", values.size, 32, shape), values)

    @cached_property
    def extremes(self) -> tuple[np.float32, np.float32]:
        """Smallest and largest of the reals; both are finite just when all are."""
        return extremes(next((seen.ravel() for seen in self._seen.values()), self.data))

    def group_extremes(self, length: int) -> Flat:
        """Smallest and largest of each group of `length` reals, shape (groups, 2); -0 orders before 0."""
        if length == self.layout.count:
            return np.array([self.extremes], np.float32)
        if length not in self._seen:
            self._seen[length] = group_extremes(self.data, length)
        return self._seen[length]


@dataclass(frozen=True, slots=True)
class Target:
    """Where decoded reals go: in the place of what is there, or added to it."""

    memory: Flat
    """Shape (n,), contiguous."""
    weight: np.float32 | None = None
    """None to replace what is there; else values times this are added to it, in float32."""

    def put(self, values: Flat) -> None:
        """Deliver `values`, shape (n,)."""
        if self.weight is None:
            np.copyto(self.memory, values)
        else:
            np.add(self.memory, values * self.weight, out=self.memory)


Undo = Callable[[Plane, "Target | None"], Plane]
"""Turns the plane that a stage gave back into the one it took.

A target comes to the first stage of a chain only. An undo that delivers to it says so by returning a plane whose data
is the target's memory; one that ignores it returns a plane of its own, which is then delivered.
"""


@dataclass(slots=True)
class Context:
    """What `Stage.encode` may use besides the values."""

    key: int
    """A 64-bit key of this stage and tensor, the only source of randomness."""
    round: int = 0
    memory: Flat | None = None
    """What this very stage (same line, same tensor) left for its next turn; None when there was none."""
    left: Flat | None = None
    """What it leaves for its next turn, if it sets it."""
    tensor: int = 0
    """The number of the tensor, for messages."""

    def refuse_non_finite(self) -> NoReturn:
        """Refuse reals that hold a NaN or an infinity, as the chain does for stages that do not look for themselves.

        Raises:
            CodecError: Always.
        """
        raise CodecError(f"tensor {self.tensor} holds a NaN or an infinity; only finite updates can be encoded")


@dataclass(frozen=True, slots=True)
class Tally:
    """What a paper would count for one tensor."""

    kept: int
    """Values sent."""
    bits: float
    """Bits a value sent."""
    side: float = 0.0
    """Bits besides the values: positions and scales."""
    shape: tuple[int, ...] = ()
    """As `Layout.shape`."""

    @property
    def nominal(self) -> float:
        """All bits together."""
        return self.kept * self.bits + self.side


class Stage(ABC):
    """One step of a chain: a frozen record of pure functions. Its fields are its arguments in a codec line."""

    name: ClassVar[str]
    takes: ClassVar[tuple[Kind, ...]]
    gives: ClassVar[Kind | None]
    """None for the kind that it took."""
    family: ClassVar[str]
    """``quantiser``, ``sparsifier``, ``transform``, ``factorisation``, ``entropy`` or ``plain``: where docs list it."""
    passes: ClassVar[float]
    """Passes that the encoder makes over the values it takes, for a device's cost model."""
    source: ClassVar[str]
    """Where it is described."""
    example: ClassVar[str]
    """How it is written at a sensible setting; docs and tests use it."""
    hands_on_non_finite: ClassVar[bool] = False
    """Whether it takes any reals, and gives reals that hold a NaN or an infinity whenever what it takes does."""
    refuses_non_finite: ClassVar[bool] = False
    """Whether its `encode` takes any reals, and calls `Context.refuse_non_finite` when they are not finite."""
    undoes_in_place: ClassVar[bool] = False
    """Whether its undo takes bytes that lie at any address and must not be written, so that nobody has to copy them."""

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """Whether the expectation of what is decoded is what was encoded."""

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - for those who have a guarantee
        """The guarantee: the largest E ||decoded - x||^2 / ||x||^2 over all x of that layout; infinite for none.

        Below 1 the stage is a contraction, with the constant 1 - bound.
        """
        return math.inf

    @property
    def has_zero(self) -> bool:
        """Whether the codes it gives have one for zero (`Layout.zero`), so that codes can be sparsified."""
        return False

    def looks(self, layout: Layout) -> int | None:  # noqa: ARG002 - for those who look at groups
        """Length of the groups of reals whose extremes `encode` starts from; None where it needs none of groups.

        Those of all follow from them, so that the values are gone through once.
        """
        return None

    @property
    def axes(self) -> Axes:
        """Whether reals have axes (`Layout.shape`) behind it: where they had some before, never, or always."""
        return "kept"

    @property
    def wants_axes(self) -> bool:
        """Whether it would do nothing to reals without axes."""
        return False

    @abstractmethod
    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """Turn a plane into the next, and write what `read` needs.

        Args:
            plane: Of a kind this stage takes; its reals are finite, unless the stage hands on or refuses what is not.
            sink: Takes side information, by section.
            context: Key, round, and memory.
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
        for position, argument in enumerate(fields(self)):  # type: ignore[arg-type]  # every final stage is a dataclass
            value = getattr(self, argument.name)
            if value != argument.default:
                parts.append(f"{value}" if position == len(parts) == 0 else f"{argument.name}={value}")
        return f"{self.name}({', '.join(parts)})" if parts else self.name
