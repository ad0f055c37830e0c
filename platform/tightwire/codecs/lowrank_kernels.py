"""The hot loops of the factorisations, compiled by numba.

Products are of two float32 in float64, so they are exact, and they are added in a fixed order: results are the same
on every machine, whatever BLAS it has. `tests/unit/test_codecs_lowrank.py` holds plain NumPy twins.
"""

import numba
import numpy as np

from tightwire.arrays import Flat, Floats
from tightwire.codecs.sparse_kernels import LARGEST, folded

LANES = 64
"""Sums of a dot product: element i goes to sum i % LANES, and those are `folded`."""
_COLUMNS = 1024


@numba.njit(cache=True, nogil=True, inline="always")
def _dot(left, right, lanes):  # type: ignore[no-untyped-def]  # numba infers the types
    lanes[:] = 0.0
    whole = left.size // LANES * LANES
    for start in range(0, whole, LANES):
        one, other = left[start : start + LANES], right[start : start + LANES]
        for lane in range(LANES):
            lanes[lane] += np.float64(one[lane]) * np.float64(other[lane])
    for i in range(whole, left.size):
        lanes[i - whole] += np.float64(left[i]) * np.float64(right[i])
    return folded(lanes)


@numba.njit(cache=True, nogil=True)
def _times_rows(matrix, basis, out):  # type: ignore[no-untyped-def]  # numba infers the types
    lanes = np.empty(LANES)
    for row in range(matrix.shape[0]):
        for vector in range(basis.shape[0]):
            out[vector, row] = _dot(matrix[row], basis[vector], lanes)


@numba.njit(cache=True, nogil=True)
def _times_columns(matrix, basis, out):  # type: ignore[no-untyped-def]  # numba infers the types
    rows, columns = matrix.shape
    out[:] = 0.0
    for start in range(0, columns, _COLUMNS):
        stop = min(start + _COLUMNS, columns)
        for row in range(rows):
            part = matrix[row, start:stop]
            for vector in range(basis.shape[0]):
                weight = np.float64(basis[vector, row])
                into = out[vector, start:stop]
                for i in range(part.size):
                    into[i] += weight * np.float64(part[i])


def times_rows(matrix: Flat, basis: Flat) -> Floats:
    """The product basis @ matrix.T, shape (r, rows).

    Args:
        matrix: Shape (rows, columns).
        basis: Shape (r, columns).
    """
    out = np.empty((basis.shape[0], matrix.shape[0]))
    _times_rows(matrix, basis, out)
    return out


def times_columns(matrix: Flat, basis: Flat) -> Floats:
    """The product basis @ matrix, shape (r, columns); added row by row.

    Args:
        matrix: Shape (rows, columns).
        basis: Shape (r, rows).
    """
    out = np.empty((basis.shape[0], matrix.shape[1]))
    _times_columns(matrix, basis, out)
    return out


@numba.njit(cache=True, nogil=True)
def _orthonormalise(vectors, least):  # type: ignore[no-untyped-def]  # numba infers the types
    lanes = np.empty(LANES)
    for at in range(vectors.shape[0]):
        vector = vectors[at]
        before = np.sqrt(_dot(vector, vector, lanes))
        for _ in range(2):
            for other in range(at):
                share = _dot(vector, vectors[other], lanes)
                for i in range(vector.size):
                    vector[i] -= share * vectors[other, i]
        norm = np.sqrt(_dot(vector, vector, lanes))
        if norm > least * before:
            for i in range(vector.size):
                vector[i] /= norm
        else:
            vector[:] = 0.0


def orthonormalise(vectors: Floats) -> None:
    """Gram-Schmidt in place, each vector made orthogonal twice; one that the others before it span becomes zero.

    Args:
        vectors: Shape (r, n), one vector a row; their squares must not overflow.
    """
    _orthonormalise(vectors, 1e-10)


@numba.njit(cache=True, nogil=True)
def _product(left, right, adding, weight, out):  # type: ignore[no-untyped-def]  # numba infers the types
    buffer = np.empty(_COLUMNS, left.dtype)
    columns = right.shape[1]
    for start in range(0, columns, _COLUMNS):
        stop = min(start + _COLUMNS, columns)
        size = stop - start
        for row in range(left.shape[1]):
            buffer[:size] = left.dtype.type(0)
            for vector in range(left.shape[0]):
                factor = left[vector, row]
                part = right[vector, start:stop]
                for i in range(size):
                    buffer[i] += factor * part[i]
            into = out[row * columns + start : row * columns + stop]
            if adding:
                for i in range(size):
                    into[i] += np.float32(min(max(buffer[i], -LARGEST), LARGEST)) * weight
            else:
                for i in range(size):
                    into[i] = np.float32(min(max(buffer[i], -LARGEST), LARGEST))


def product(left: Flat, right: Flat, out: Flat, weight: np.float32 | None) -> None:
    """Write left.T @ right, row by row and cut to what is finite, to `out`; or add `weight` times that, in float32.

    In float32, or float64 where that might overflow.

    Args:
        left: Shape (r, rows).
        right: Shape (r, columns).
        out: Shape (rows * columns,).
        weight: None to replace what is there.
    """
    sizes = np.abs(left).max(axis=1).astype(np.float64) * np.abs(right).max(axis=1).astype(np.float64)
    if not sizes.sum() < LARGEST / 2:
        left, right = left.astype(np.float64), right.astype(np.float64)
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    _product(left, right, weight is not None, np.float32(0) if weight is None else weight, out)
