"""How well policies predict: expected frame lengths and errors beside those of real frames, over the whole grid.

    python benchmarks/prediction.py [--update FILE ...] [--clients N] [--json]

A FILE is a `.npy` that `tightwire capture` wrote. Without any, updates of `examples/digits.yaml` are captured first, of
N clients in each of the rounds 1, 5 and 20. Every update is encoded with `topk | uniform | rans` at all bits and
densities that the policy `budget` chooses from; an error of prediction is |predicted / real - 1|.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tightwire.arrays import Flat, Floats
from tightwire.codecs.codec import Codec, decode
from tightwire.policies import Budget
from tightwire.policies.lines import quantised
from tightwire.policies.predict import predict
from tightwire.policies.stats import UpdateStats
from tightwire.wire.schema import Schema
from tightwire_pipelines.capture import capture, load_update

EXPERIMENT = Path(__file__).resolve().parents[1] / "examples" / "digits.yaml"
ROUNDS = (1, 5, 20)


@dataclass(frozen=True)
class Row:
    """Errors of prediction over a part of the grid, in percent."""

    part: str
    bytes_median: float
    bytes_p90: float
    error_median: float
    error_p90: float


def deviations(update: Flat, schema: Schema, budget: Budget) -> Floats:
    """Errors of prediction of bytes and squared error, shape (2, bits, densities)."""
    grid = predict(UpdateStats.of(update, schema), budget.bits, budget.densities, "rans")
    result = np.empty((2, *grid.bytes.shape))
    for row, bits in enumerate(budget.bits):
        for column, density in enumerate(budget.densities):
            codec = Codec.parse(quantised(bits, density, "rans"))
            frame = codec.encode(update, schema, key=1000 * row + column, round=1, client=0).frame
            lost = float(((decode(frame, schema).astype(np.float64) - update) ** 2).sum())
            result[0, row, column] = abs(grid.bytes[row, column] / len(frame) - 1)
            result[1, row, column] = abs(grid.error[row, column] / lost - 1) if lost else 0.0
    return result


def rows_of(found: Floats, budget: Budget) -> list[Row]:
    """The table's rows.

    Args:
        found: Errors of prediction, shape (updates, 2, bits, densities).
        budget: Whose grid it is.
    """

    def row(part: str, values: Floats) -> Row:
        size, error = 100 * values[:, 0].ravel(), 100 * values[:, 1].ravel()
        ends = (np.median(size), np.percentile(size, 90), np.median(error), np.percentile(error, 90))
        return Row(part, *(float(end) for end in ends))

    densities = np.array(budget.densities)
    decades = sorted({float(f"{density:.0e}".split("e")[1]) for density in densities})
    return [
        row("all", found),
        *(row(f"bits {bits}", found[:, :, at : at + 1]) for at, bits in enumerate(budget.bits)),
        *(
            row(
                f"density {10.0**decade:g} to {10.0 ** (decade + 1):g}",
                found[..., (densities >= 0.99 * 10.0**decade) & (densities < 0.99 * 10.0 ** (decade + 1))],
            )
            for decade in decades
            if decade < 0
        ),
        row("density 1", found[..., densities == 1]),
    ]


def captured(clients: int) -> list[tuple[Flat, Schema]]:
    """Updates of the digits, trained here."""
    with tempfile.TemporaryDirectory() as folder:
        paths = capture(EXPERIMENT, (), ROUNDS, clients, Path(folder), Console(stderr=True))
        return [load_update(path) for path in paths]


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Predicted frame lengths and errors beside real ones.")
    parser.add_argument("--update", type=Path, nargs="+", help="captured updates, .npy")
    parser.add_argument("--clients", type=int, default=2, help="clients a round whose updates are captured")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    updates = [load_update(path) for path in options.update] if options.update else captured(options.clients)
    budget = Budget()
    rows = rows_of(np.array([deviations(update, schema, budget) for update, schema in updates]), budget)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table(title=f"Errors of prediction in percent, {len(updates)} updates")
    for column in ("part of the grid", "bytes, median", "90 %", "squared error, median", "90 %"):
        table.add_column(column, justify="left" if column == "part of the grid" else "right")
    for row in rows:
        numbers = (row.bytes_median, row.bytes_p90, row.error_median, row.error_p90)
        table.add_row(row.part, *(f"{number:.2f}" for number in numbers))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
