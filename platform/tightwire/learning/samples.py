"""Samples in memory, and what a simulation sees of a dataset that is divided among clients."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from tightwire.arrays import AnyArray, Bytes8, Ints
from tightwire.errors import DataError
from tightwire.learning.partition import Division

Inputs: TypeAlias = npt.NDArray[np.float32]
"""Model inputs, shape (samples, *features)."""

Batch: TypeAlias = tuple[Inputs, Ints]
"""Inputs, shape (samples, *features), and their class labels from 0, shape (samples,)."""

MOST_CLASSES = 65536


class FederatedData(Protocol):
    """A dataset divided among clients. Reading a shard is pure: same client, same bits, on any host."""

    @property
    def sizes(self) -> Ints:
        """Training samples of each client, shape (clients,); 0 for a client that has none."""
        ...

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one input, such as ``(60,)`` or ``(1, 28, 28)``."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes; labels are 0..classes-1."""
        ...

    @property
    def test(self) -> Batch:
        """The global test set."""
        ...

    def shard(self, client: int) -> Batch:
        """The training samples of one client, as fresh arrays."""
        ...


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled samples as they lie in memory; bytes stay bytes until they are asked for."""

    x: AnyArray
    """float32, or uint8 that stands for x / 255; shape (samples, *features)."""
    y: Ints

    def take(self, indices: Ints) -> Batch:
        """The samples at `indices`, as fresh arrays."""
        return _as_float(np.take(self.x, indices, axis=0)), np.take(self.y, indices)

    def all(self) -> Batch:
        """All samples in their order."""
        return _as_float(self.x), self.y


@dataclass(frozen=True)
class Divided:
    """Samples held once and owned by index: the `FederatedData` of ordinary datasets."""

    train: Samples
    held_out: Samples
    division: Division
    classes: int

    @cached_property
    def sizes(self) -> Ints:
        """Training samples of each client, shape (clients,)."""
        return self.division.sizes

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.train.x.shape[1:]

    @cached_property
    def test(self) -> Batch:
        """The global test set."""
        return self.held_out.all()

    def shard(self, client: int) -> Batch:
        """The training samples of one client, as fresh arrays."""
        return self.train.take(self.division.indices(client))


def checked(x: AnyArray, y: AnyArray, where: str) -> Samples:
    """Samples from arrays that came from outside.

    Args:
        x: Numbers of shape (samples, *features): uint8 stands for x / 255, anything else is taken as it is.
        y: Integer labels from 0, shape (samples,).
        where: What to call them in an error, such as a path.

    Raises:
        DataError: When shapes do not fit, labels are not integers from 0, or inputs are not finite numbers.
    """
    if x.ndim < 2 or x.dtype.kind not in "uif":
        raise DataError(
            f"{where}: inputs are {x.dtype} of shape {x.shape}; give numbers of shape (samples, features...)"
        )
    if y.dtype.kind not in "ui" or y.ndim != 1:
        raise DataError(f"{where}: labels are {y.dtype} of shape {y.shape}; give integers of shape (samples,)")
    if len(x) != len(y):
        raise DataError(f"{where}: {len(x)} inputs but {len(y)} labels; give one label an input")
    if x.size == 0:
        raise DataError(f"{where}: no samples, inputs have shape {x.shape}; give at least one of each")
    if int(y.min()) < 0 or int(y.max()) >= MOST_CLASSES:
        raise DataError(f"{where}: labels run from {y.min()} to {y.max()}; count classes from 0, below {MOST_CLASSES}")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{where}: inputs hold NaN, infinity or numbers beyond float32; give finite numbers")
    return Samples(x, y.astype(np.int64))


def hold_out(samples: Samples) -> tuple[Samples, Samples]:
    """Split off every fifth sample of each class as a test set; the same split whatever the seed.

    Returns:
        Training samples (4 of 5) and test samples (1 of 5), each in their original order.
    """
    rank = np.empty(len(samples.y), np.int64)
    for label in np.unique(samples.y):
        members = np.flatnonzero(samples.y == label)
        rank[members] = np.arange(len(members))
    test = rank % 5 == 4
    return Samples(samples.x[~test], samples.y[~test]), Samples(samples.x[test], samples.y[test])


def _as_float(x: AnyArray) -> Inputs:
    if x.dtype != np.uint8:
        return x
    out = np.empty(x.shape, np.float32)
    _scale(x.reshape(-1), out.reshape(-1))
    return out


@numba.njit(cache=True, nogil=True)
def _scale(x: Bytes8, out: Inputs) -> None:
    """X / 255, as NumPy's division gives it but without its detour over small buffers: ten times faster."""
    for i in range(x.size):
        out[i] = np.float32(x[i]) / np.float32(255)
