"""The count sketch: a table that is linear in the values, with room for fewer than there are."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from tightwire.codecs import sketch_kernels, sparse
from tightwire.codecs.selection import select
from tightwire.codecs.stage import Axes, Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError
from tightwire.keys import key
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True)
class CountSketch(Stage):
    """Each of `rows` rows adds every value, with a random sign, to one of `columns` columns; nothing else is sent.

    Row t of the table has T[t, h_t(i)] += s_t(i) x_i, and says s_t(i) T[t, h_t(i)] of x_i. The decoded x_i is the
    median of what the rows say, or their mean; with density < 1 only the round(density * n) largest of those are kept
    and the others are zero, which is how FetchSGD finds what is heavy. Runs of 16 values lie side by side in each
    row, from a hashed column on and round the end: values of one run never meet, others do with chance 1 / columns.

    The hashes come from `seed`, which is part of the line and so the same for every client and round: the table
    is linear, and the sum of tables is the table of the sum, up to float32. Over seeds, the mean is unbiased with
    squared error below n / (rows * columns) of the squared norm; the median errs by more than 3 ||x|| / sqrt(columns)
    with a chance that falls exponentially with the rows. For the one seed of a line there is no such guarantee:
    the same values err the same way every time.

    It pays only where few values hold nearly all of the squared norm: m heavy ones are found, and about
    n (m / columns)**((rows + 1) / 2) others that meet them in most rows are taken for such. Without a density the
    squared error is a multiple of the squared norm. Wants error feedback. A tensor with no more values than the table
    goes on unchanged.

    Raises:
        CodecError: When rows, columns or density are out of range.
    """

    rows: int
    """1 to 32; more make it less likely that a value is far off."""
    columns: int
    """16 or more; more make all errors smaller."""
    density: float = 1.0
    """Fraction that the decoder keeps, in (0, 1]."""
    estimate: Literal["median", "mean"] = "median"
    seed: int = 0
    """Of the hashes; the same at all who add their tables."""

    name: ClassVar[str] = "sketch"
    example: ClassVar[str] = "sketch(5, 100, density=0.02)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    family: ClassVar[str] = "factorisation"
    passes: ClassVar[float] = 5.0
    source: ClassVar[str] = "Charikar et al. 2002; Rothchild et al. 2020 (FetchSGD), arXiv 2007.07682, section 3"

    def __post_init__(self) -> None:
        sparse.check_density(self.name, self.density)
        if not 1 <= self.rows <= 32:
            raise CodecError(f"sketch takes 1 to 32 rows, got {self.rows}")
        if not sketch_kernels.RUN <= self.columns <= 2**31:
            raise CodecError(f"sketch takes {sketch_kernels.RUN} to 2147483648 columns, got {self.columns}")

    @property
    def unbiased(self) -> bool:
        """Not with the one seed of a line."""
        return False

    @property
    def axes(self) -> Axes:
        """A row of the table is one of the tensor's."""
        return "made"

    def bound(self, layout: Layout) -> float:
        """None for values that the hashes do not suit."""
        return 0.0 if self._unchanged(layout.count) else float("inf")

    def _unchanged(self, n: int) -> bool:
        return n <= self.rows * self.columns

    def _keys(self) -> list[int]:
        return [key(self.seed, "count sketch", round=row) for row in range(self.rows)]

    def _given(self, layout: Layout) -> Layout:
        return replace(layout, count=self.rows * self.columns, shape=(self.rows, self.columns))

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The table; a row is a channel to quantisers."""
        if self._unchanged(plane.layout.count):
            return plane
        peak = max(map(abs, map(float, plane.extremes)))
        table = sketch_kernels.sketch(plane.data, self._keys(), self.columns, peak)
        return Plane(self._given(plane.layout), table.reshape(-1))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - the interface's arguments
        """Nothing is on the wire but the table."""
        n = layout.count
        if self._unchanged(n):
            return layout, lambda plane, _: plane

        def undo(plane: Plane, target: Target | None) -> Plane:
            whole = self.density == 1 and target is not None and target.weight is None
            values = target.memory if target is not None and whole else np.empty(n, np.float32)
            table = plane.data.reshape(self.rows, self.columns)
            sketch_kernels.estimate(table, self._keys(), self.estimate == "median", values)
            if self.density < 1:
                chosen, kept = select(values, sparse.share(n, self.density))
                values = sparse.scattered(kept, chosen, n, target)
            return Plane(layout, values)

        return self._given(layout), undo

    def tally(self, before: Tally) -> Tally:
        """The table's floats."""
        if self._unchanged(before.kept):
            return before
        return replace(before, kept=self.rows * self.columns, shape=(self.rows, self.columns))
