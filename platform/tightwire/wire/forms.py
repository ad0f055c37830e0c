"""A plane's codes, and the forms in which they can be written, each with its exact size before a bit is written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np

from tightwire.arrays import Bytes8, Ints
from tightwire.wire.packing import Codes, packed_length
from tightwire.wire.prefix import log2
from tightwire.wire.streams import varint

POWERS = 32
"""Runs are below 2**this - 1."""
_FINE = 16
"""Bits of the longest run, the highest, that histograms tell apart."""


@numba.njit(cache=True, nogil=True)
def _count(codes, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    for start in range(0, codes.size - 3, 4):
        for lane in range(4):
            counts[lane, codes[start + lane]] += 1
    for at in range(codes.size // 4 * 4, codes.size):
        counts[0, codes[at]] += 1


@numba.njit(cache=True, nogil=True)
def _others(values, base, runs, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    count, run = np.uint64(0), np.uint32(0)
    for value in values:
        runs[count] = run
        codes[count] = value
        other = value != base
        count += np.uint64(other)
        run = np.uint32(0) if other else np.uint32(run + np.uint32(1))


@numba.njit(cache=True, nogil=True)
def _histograms(runs, shift, counts, powers):  # type: ignore[no-untyped-def]  # numba infers the types
    for run in runs:
        counts[run >> shift] += 1
        powers[log2(np.uint64(run) + np.uint64(1))] += 1


class Histograms(NamedTuple):
    """Of run lengths."""

    counts: Ints
    """How many runs are x << shift or above, and below (x + 1) << shift; shape (m,)."""
    shift: int
    powers: Ints
    """How many runs have floor(log2(run + 1)) = x; shape (`POWERS`,)."""


@dataclass(frozen=True)
class Others:
    """The codes that differ from a base."""

    runs: Codes
    """How often the base occurs between each and the one before, shape (k,)."""
    codes: Codes
    """Shape (k,)."""

    @cached_property
    def histograms(self) -> Histograms:
        """Of the runs."""
        largest = int(self.runs.max(initial=0))
        shift = max(0, largest.bit_length() - _FINE)
        counts, powers = np.zeros((largest >> shift) + 1, np.int64), np.zeros(POWERS, np.int64)
        _histograms(self.runs, np.uint32(shift), counts, powers)
        return Histograms(counts, shift, powers)


@dataclass(frozen=True)
class Values:
    """Codes, not packed, and what is known about them."""

    codes: Codes
    """Shape (n,), n > 0."""
    bits: int
    """Of each, 1 to `tightwire.wire.prefix.MAX_BITS`."""
    zero: int
    """The code for 0."""
    _others: dict[int, Others] = field(default_factory=dict, compare=False)

    @property
    def top(self) -> int:
        """The largest possible code."""
        return (1 << self.bits) - 1

    @property
    def packed(self) -> int:
        """Bytes they take packed."""
        return packed_length(self.codes.size, self.bits)

    @cached_property
    def counts(self) -> Ints:
        """How often each code occurs, shape (top + 1,)."""
        counts = np.zeros((4, self.top + 1), np.uint32)
        _count(self.codes, counts)
        total: Ints = counts.sum(axis=0, dtype=np.int64)
        return total

    def others(self, base: int) -> Others:
        """The codes that differ from `base`, and the runs in front of them."""
        if base not in self._others:
            k = self.codes.size - int(self.counts[base])
            runs, codes = np.empty(k + 1, np.uint32), np.empty(k + 1, np.uint32)
            _others(self.codes, np.uint32(base), runs, codes)
            self._others[base] = Others(runs[:k], codes[:k])
        return self._others[base]


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write them."""

    head: bytes
    """What the decoder needs to know, but for the length."""
    bits: int
    """Of what is coded."""
    write: Callable[[], Bytes8]
    """Codes it."""

    @property
    def tables(self) -> bytes:
        """The head and the length of what is coded."""
        return self.head + varint((self.bits + 7) // 8)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return len(self.tables) + (self.bits + 7) // 8


class Reading(NamedTuple):
    """What is left to do when a form's head has been read."""

    length: int
    """Bytes that were coded."""
    decode: Callable[[Bytes8], Codes]
    """Gives the codes, all within their bits, or raises a FrameError ``codes``."""
