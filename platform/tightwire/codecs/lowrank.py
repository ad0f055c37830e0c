"""Factorisations: a tensor's matrix as the product of two thin ones."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tightwire.arrays import AnyArray, Flat, Floats
from tightwire.codecs import lowrank_kernels
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire.streams import Sink, Source, varint

_ROUNDING = 2.0**-40
"""What float64 may lose of the energy that is asked for."""


class Factorisation(Stage):
    """A stage that gives the factors of a tensor as a matrix M, shape[0] by all other axes: sum over j of p_j q_j^T.

    The plane it gives is a tensor of shape (rank, rows + columns): row j is p_j and then q_j, scaled so that both
    have the same mean square. A quantiser may follow, best with scales per=channel. Tensors with fewer than two
    axes, and those whose factors would not be smaller, go on unchanged; that is known from the shape.
    """

    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    family: ClassVar[str] = "factorisation"

    @property
    def unbiased(self) -> bool:
        """Never: it projects."""
        return False

    @property
    def wants_axes(self) -> bool:
        """Always: a row is no matrix."""
        return True

    @abstractmethod
    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """The factors."""

    @abstractmethod
    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The factors' shape."""


def sides(shape: tuple[int, ...], n: int) -> tuple[int, int]:
    """(rows, columns) of the matrix of a tensor; (1, n) where it is none."""
    return (shape[0], n // shape[0]) if len(shape) > 1 else (1, n)


def highest(rows: int, columns: int) -> int:
    """The highest rank whose factors are smaller than the matrix; 0 for none."""
    return (rows * columns - 1) // (rows + columns)


def balanced(left: AnyArray, right: AnyArray) -> Flat:
    """Rows p_j s_j and q_j / s_j, side by side, where s_j makes their mean squares equal; zeros where either is zero.

    Args:
        left: p_j as rows, shape (r, rows).
        right: q_j as rows, shape (r, columns).
    """
    means = [np.sqrt(np.square(side, dtype=np.float64).mean(axis=1)) for side in (left, right)]
    known = (means[0] > 0) & (means[1] > 0)
    scale = np.sqrt(np.divide(means[1], means[0], out=np.zeros_like(means[0]), where=known))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=known)
    return np.hstack([left * scale[:, None], right * inverse[:, None]]).astype(np.float32)


def multiplied(layout: Layout, rank: int) -> tuple[Layout, Undo]:
    """The layout of `rank` factors of a plane of that layout, and what multiplies them; of rank 0 the plane itself."""
    if rank == 0:
        return layout, lambda plane, _: plane
    rows, columns = sides(layout.shape, layout.count)

    def undo(plane: Plane, target: Target | None) -> Plane:
        factors = plane.data.reshape(rank, rows + columns)
        out = np.empty(layout.count, np.float32) if target is None else target.memory
        weight = None if target is None else target.weight
        lowrank_kernels.product(factors[:, :rows], factors[:, rows:], out, weight)
        return Plane(layout, out)

    return replace(layout, count=rank * (rows + columns), shape=(rank, rows + columns)), undo


def counted(before: Tally, rank: int) -> Tally:
    """What a paper would count of factors of that rank."""
    rows, columns = sides(before.shape, before.kept)
    return replace(before, kept=rank * (rows + columns), shape=(rank, rows + columns)) if rank else before


@dataclass(frozen=True)
class PowerSGD(Factorisation):
    """One step of power iteration from where the last round ended: P = orthonormal(M Q), Q' = M^T P, decoded P Q'^T.

    Q is the sender's memory, and Gaussian by the key in the first round and wherever it was zero. P is made orthonormal
    by Gram-Schmidt in float64; every sum runs in a fixed order, so that the bytes do not depend on the machine's BLAS.
    It costs 4 * rank operations a value, and (rows + columns) * rank floats on the wire.

    Biased; the decoded is a projection, so the squared error is at most the squared norm, and small once a few
    rounds have found the subspace. It wants error feedback, as in the paper.

    Raises:
        CodecError: When the rank is not positive.
    """

    rank: int
    """1 or more; the paper uses 1 to 4."""

    name: ClassVar[str] = "powersgd"
    example: ClassVar[str] = "powersgd(2)"
    passes: ClassVar[float] = 4.0
    source: ClassVar[str] = "Vogels et al. 2019, arXiv 1905.13727, algorithm 1"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise CodecError(f"powersgd takes a rank of 1 or more, got {self.rank}")

    def _rank(self, shape: tuple[int, ...], n: int) -> int:
        return self.rank if self.rank <= highest(*sides(shape, n)) else 0

    def bound(self, layout: Layout) -> float:
        """That of a projection."""
        return 1.0 if self._rank(layout.shape, layout.count) else 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """P and Q'; Q' is remembered."""
        layout, _ = self.read(plane.layout, Source(memoryview(b"")))
        if layout == plane.layout:
            return plane
        rows, columns = sides(plane.layout.shape, plane.layout.count)
        matrix = plane.data.reshape(rows, columns)
        vectors = lowrank_kernels.times_rows(matrix, self._start(context, columns))
        lowrank_kernels.orthonormalise(vectors)
        left = vectors.astype(np.float32)
        right = lowrank_kernels.times_columns(matrix, left)
        context.left = _normalised(right).reshape(-1)
        return Plane(layout, balanced(left, right).reshape(-1))

    def _start(self, context: Context, columns: int) -> Flat:
        """The Q to begin with, as rows, shape (rank, columns)."""
        random = np.random.Generator(np.random.Philox(key=context.key))
        fresh = random.standard_normal((self.rank, columns)).astype(np.float32)
        if context.memory is None:
            return fresh
        known = context.memory.reshape(self.rank, columns)
        return np.where(known.any(axis=1, keepdims=True), known, fresh)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - the interface's arguments
        """Nothing is on the wire but the factors."""
        return multiplied(layout, self._rank(layout.shape, layout.count))

    def tally(self, before: Tally) -> Tally:
        """Both factors."""
        return counted(before, self._rank(before.shape, before.kept))


def _normalised(vectors: Floats) -> Flat:
    """Each row divided by its largest magnitude; only directions are remembered."""
    peaks = np.abs(vectors).max(axis=1, keepdims=True)
    directions: Flat = np.divide(vectors, peaks, out=np.zeros_like(vectors), where=peaks > 0).astype(np.float32)
    return directions


@dataclass(frozen=True)
class TruncatedSVD(Factorisation):
    """The best approximation of a rank, or of the lowest rank that holds a share `energy` of the squared norm.

    M is multiplied by the leading eigenvectors of the smaller of M M^T and M^T M, in float64; of each the entry of the
    largest magnitude is made positive. Costs min(rows, columns) operations a value, and a cube of that side: for
    matrices of thousands a side it takes seconds, and `powersgd` is the one to take. The rank goes along in one or two
    bytes when it comes from the energy; where the factors would not be smaller, the tensor goes unchanged.

    The eigenvectors come from LAPACK, whose last bits differ between kinds of machines and numbers of threads, so the
    frames do too; what they decode to agrees to about float32.

    Biased; squared error at most (1 - rank / min(rows, columns)), or (1 - energy), of the squared norm.

    Raises:
        CodecError: When not exactly one of the two is given, or it is out of range.
    """

    rank: int | None = None
    """1 or more."""
    energy: float | None = None
    """In (0, 1]."""

    name: ClassVar[str] = "svd"
    example: ClassVar[str] = "svd(8)"
    passes: ClassVar[float] = 100.0
    source: ClassVar[str] = "Eckart and Young 1936; by energy Wu et al. 2022 (FedKD), arXiv 2108.13323"

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.energy is None):
            raise CodecError("svd takes a rank or an energy, one of them")
        if self.rank is not None and self.rank < 1:
            raise CodecError(f"svd takes a rank of 1 or more, got {self.rank}")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise CodecError(f"svd takes an energy in (0, 1], got {self.energy}")

    def bound(self, layout: Layout) -> float:
        """The leading vectors hold at least their share of the squared norm."""
        rows, columns = sides(layout.shape, layout.count)
        most = highest(rows, columns)
        if self.rank is None:
            return 1 - (self.energy or 0.0) + _ROUNDING if most else 0.0
        return 1 - self.rank / min(rows, columns) if self.rank <= most else 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The rank, where the energy asked for it, and the factors."""
        rows, columns = sides(plane.layout.shape, plane.layout.count)
        most = highest(rows, columns)
        if most == 0 or (self.rank or 0) > most:
            return plane
        matrix = plane.data.reshape(rows, columns)
        wide = rows <= columns
        values, vectors = _eigenvectors(matrix if wide else matrix.T)
        rank = self.rank or self._needed(values)
        if self.rank is None:
            rank = rank if rank <= most else 0
            sink.write("tables", varint(rank))
        if rank == 0:
            return plane
        basis = np.ascontiguousarray(vectors[:rank], np.float32)
        other = (lowrank_kernels.times_columns if wide else lowrank_kernels.times_rows)(matrix, basis)
        layout, _ = multiplied(plane.layout, rank)
        return Plane(layout, (balanced(basis, other) if wide else balanced(other, basis)).reshape(-1))

    def _needed(self, values: Floats) -> int:
        """The rank that holds the energy; at least 1."""
        sums = np.cumsum(values)
        return min(values.size, int(np.searchsorted(sums, (self.energy or 1.0) * sums[-1] * (1 - _ROUNDING / 2))) + 1)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The rank, if it is not given."""
        most = highest(*sides(layout.shape, layout.count))
        if self.rank is not None:
            return multiplied(layout, self.rank if self.rank <= most else 0)
        rank = source.varint() if most else 0
        if rank > most:
            raise FrameError("tables", f"factors of rank {rank} are not smaller than their matrix; {most} is the most")
        return multiplied(layout, rank)

    def tally(self, before: Tally) -> Tally:
        """Both factors, and two bytes of rank; for an energy, of the rank that holds it if all are equally strong."""
        rows, columns = sides(before.shape, before.kept)
        most = highest(rows, columns)
        if self.rank is not None:
            return counted(before, self.rank if self.rank <= most else 0)
        rank = math.ceil((self.energy or 1.0) * min(rows, columns))
        return replace(counted(before, rank if rank <= most else 0), side=before.side + 16.0)


def _eigenvectors(matrix: Flat) -> tuple[Floats, Floats]:
    """Squared singular values, falling, and the left singular vectors as rows, each with its largest entry positive."""
    exact = matrix.astype(np.float64)
    values, vectors = np.linalg.eigh(exact @ exact.T)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
    peaks = vectors[np.arange(values.size), np.abs(vectors).argmax(axis=1)]
    return values, vectors * np.where(peaks < 0, -1.0, 1.0)[:, None]
