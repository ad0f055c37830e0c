"""Encode and decode speed of the codecs on one core, beside memcpy and what one would write without them.

    python benchmarks/codecs.py [--values N] [--repeats R] [--json]

Rates are GB/s of the float32 input; ratios are to memcpy of that input between preallocated arrays, measured in the
same run. Work is interleaved, so that a noisy machine disturbs all rows alike, and medians are reported. The C library
is told to keep freed memory, as in a process that encodes many updates, so that no row pays for fresh pages.
"""

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
import zstandard
from rich.console import Console
from rich.table import Table

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, decode, decode_add
from tightwire.codecs.family import lines as family_lines
from tightwire.wire.schema import Schema, TensorSpec

ROW = 1000
"""Values in a row of the tensor that is encoded."""
LATE = 1000
"""A round in which `dgc` has warmed up."""

LINES = (
    *dict.fromkeys(
        (
            *(entry for entry in family_lines() if entry not in ("svd(8)", "flatten", "joint(8)")),
            "uniform(4, rounding=nearest)",
            "uniform(8)",
            "uniform(4, bucket=512)",
            "qsgd(4)",
            "eden(1)",
            "eden(4)",
            "trellis(3) | rans",
            "topk(0.01)",
            "uniform(4) | rans(adaptive)",
            "topk(0.01) | uniform(4) | rans",
        )
    ),
)
"""The family as its table in the docs shows it, and more. (`svd` of millions of values takes minutes, `flatten` alone
is `none`, and `joint` is fixed-width packing of codes that `uniform` makes.)"""


@dataclass(frozen=True)
class Row:
    """One row of the table; rates are None where a side does not exist."""

    name: str
    encode_gbps: float | None
    encode_ratio: float | None
    decode_gbps: float | None
    decode_ratio: float | None
    add_ratio: float | None
    """Of decoding and adding to a sum, `decode_add`."""
    bits: float | None
    """Bits a value on the wire."""


def torch_topk(values: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest magnitudes, as torch finds them."""
    return values[torch.topk(values.abs(), k, sorted=False).indices]


def numpy_uniform(values: Flat) -> tuple[object, ...]:
    """Four bits with stochastic rounding, as one would write it in NumPy; two codes to a byte."""
    low, high = values.min(), values.max()
    noise = np.random.default_rng(0).random(values.size, np.float32)
    codes = ((values - low) * (15 / (high - low)) + noise).astype(np.uint8)
    return low, high, codes[::2] | codes[1::2] << 4


def torch_int8(values: torch.Tensor) -> torch.Tensor:
    """Eight bits, symmetric, rounded to nearest."""
    return (values * (127 / values.abs().max())).round().to(torch.int8)


def numpy_sign(values: Flat) -> tuple[object, ...]:
    """One bit and the mean magnitude."""
    return np.abs(values).mean(), np.packbits(values >= 0)


def keep_freed_memory() -> None:
    """Have glibc reuse large blocks; other C libraries are left as they are."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
            library.mallopt(option, 2**30)


def measured(n: int, repeats: int) -> list[Row]:
    """All rows, on `n` Gaussian values in rows of a thousand, in a late round (`dgc` starts dense)."""
    values = np.random.default_rng(0).standard_normal(n, np.float32)
    copy, out, total = (np.zeros_like(values) for _ in range(3))
    schema = Schema((TensorSpec("w", (n // ROW, ROW)),))
    tensor = torch.from_numpy(values)
    work: dict[str, Callable[[], object]] = {"memcpy": partial(np.copyto, copy, values)}
    bits: dict[str, float] = {}
    for line in LINES:
        codec = Codec.parse(line)
        frame = codec.encode(values, schema, key=1, round=LATE, client=0).frame
        bits[line] = 8 * len(frame) / n
        work[f"encode {line}"] = partial(codec.encode, values, schema, key=1, round=LATE, client=0)
        work[f"decode {line}"] = partial(decode, frame, schema, out=out)
        work[f"add {line}"] = partial(decode_add, frame, schema, total, weight=0.5)
    work["encode torch.topk 1 %"] = partial(torch_topk, tensor, max(1, n // 100))
    work["encode torch fp16"] = tensor.half
    work["encode torch int8"] = partial(torch_int8, tensor)
    work["encode numpy uniform 4 bit"] = partial(numpy_uniform, values)
    work["encode numpy sign"] = partial(numpy_sign, values)
    work["encode zstd of fp32"] = partial(zstandard.ZstdCompressor(level=1).compress, values.data.cast("B"))
    seconds = dict(zip(work, interleaved(list(work.values()), repeats), strict=True))

    def rate(name: str) -> tuple[float | None, float | None]:
        if name not in seconds:
            return None, None
        return values.nbytes / 1e9 / seconds[name], seconds["memcpy"] / seconds[name]

    others = (name.removeprefix("encode ") for name in work if name.startswith("encode "))
    names = ("memcpy", *LINES, *(name for name in others if name not in LINES))
    return [
        Row(
            name,
            *rate("memcpy" if name == "memcpy" else f"encode {name}"),
            *rate(f"decode {name}"),
            rate(f"add {name}")[1],
            bits.get(name),
        )
        for name in names
    ]


def interleaved(work: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, after one round that is not counted."""
    spent = np.zeros((repeats + 1, len(work)))
    for repeat in range(repeats + 1):
        for column, job in enumerate(work):
            start = time.perf_counter()
            job()
            spent[repeat, column] = time.perf_counter() - start
    return [float(seconds) for seconds in np.median(spent[1:], axis=0)]


def table(rows: list[Row], n: int) -> Table:
    """The rows for people."""
    result = Table(title=f"{n:,} float32 values, one core")
    for column in ("codec", "encode GB/s", "x memcpy", "decode GB/s", "x memcpy", "add x memcpy", "bits a value"):
        result.add_column(column, justify="left" if column == "codec" else "right", no_wrap=True)
    for row in rows:
        numbers = (row.encode_gbps, row.encode_ratio, row.decode_gbps, row.decode_ratio, row.add_ratio, row.bits)
        result.add_row(row.name, *("" if number is None else f"{number:.3f}" for number in numbers))
    return result


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Speed of the codecs beside memcpy.")
    parser.add_argument("--values", type=int, default=16_000_000, help="how many, in thousands")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    n = max(1, options.values // ROW) * ROW
    rows = measured(n, options.repeats)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console(width=120).print(table(rows, n))


if __name__ == "__main__":
    main()
