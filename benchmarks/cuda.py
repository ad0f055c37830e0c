"""Encode and decode times of the codecs on a GPU beside the host's, and whether their bits are the same.

    python benchmarks/cuda.py [--values N] [--repeats R] [--device cuda] [--json]

A line's host times start from values in the host's memory, its device times from values on the device, both to a frame
in the host's memory; decoding goes the other way. What a host alone would pay more, the copy of the values from and to
the device, has a row of its own. Times are medians in milliseconds. Lines whose values cross to the host, as
`tightwire.tensors.codec.stages_on_host` says, are marked.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tightwire.codecs import codec as host
from tightwire.codecs.codec import Codec
from tightwire.tensors import codec as tensors
from tightwire.wire.schema import Schema

LINES = (
    "none",
    "fp16",
    "bf16",
    "uniform(4)",
    "uniform(8)",
    "uniform(4, bucket=512)",
    "qsgd(4)",
    "terngrad",
    "sign",
    "onebit",
    "topk(0.01)",
    "topk(0.1)",
    "uniform(4) | rans",
    "topk(0.01) | uniform(4) | rans",
    "rotate | uniform(4)",
)


@dataclass(frozen=True)
class Row:
    """One row of the table; times are in milliseconds."""

    name: str
    spent: tuple[float, ...]
    """To encode on the host and on the device, and to decode on the host and on the device."""
    same: bool
    """Frames, and decoded values, bit for bit."""
    crosses: bool
    """Whether real values cross between device and host."""


def milliseconds(job: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median, after one run that is not counted."""
    spent = []
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        job()
        synchronise(device)
        spent.append(1e3 * (time.perf_counter() - start))
    return statistics.median(spent[1:])


def synchronise(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(n: int, repeats: int, device: torch.device) -> list[Row]:
    """All rows, on `n` Gaussian values; the first is the copy of the values from and to the device."""
    values, schema = np.random.default_rng(0).standard_normal(n, np.float32), Schema.single(n)
    tensor, out = torch.from_numpy(values).to(device), np.empty_like(values)
    away, back = partial(tensor.to, "cpu", copy=True), partial(torch.from_numpy(values).to, device, copy=True)
    copies = tuple(milliseconds(copy, repeats, device) for copy in (away, away, back, back))
    rows = [Row("the values, copied", copies, same=True, crosses=True)]
    for line in LINES:
        codec = Codec.parse(line)
        encode_host = partial(codec.encode, values, schema, key=1, round=0, client=0)
        encode = partial(tensors.encode, codec, tensor, schema, key=1, round=0, client=0)
        frame = encode_host().frame
        decode_host = partial(host.decode, frame, schema, out=out)
        decode = partial(tensors.decode, frame, schema, device=device)
        same = encode().frame == frame and decode().cpu().numpy().tobytes() == decode_host().tobytes()
        jobs = (encode_host, encode, decode_host, decode)
        spent = tuple(milliseconds(job, repeats, device) for job in jobs)
        rows.append(Row(line, spent, same=same, crosses=bool(tensors.stages_on_host(codec))))
    return rows


def table(rows: list[Row], n: int, device: torch.device) -> Table:
    """The rows for people."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    result = Table(title=f"{n:,} float32 values on {name}, milliseconds")
    for heading in ("codec", "encode, host", "device", "decode, host", "device", "same bits", "values cross"):
        result.add_column(heading, justify="left" if heading == "codec" else "right", no_wrap=True)
    for row in rows:
        words = ("yes" if row.same else "NO", "yes" if row.crosses else "")
        result.add_row(row.name, *(f"{number:.2f}" for number in row.spent), *words)
    return result


def main() -> None:
    """Read the command line, measure, print; fails when bits differ."""
    parser = argparse.ArgumentParser(description="Times of the codecs on a GPU beside the host's.")
    parser.add_argument("--values", type=int, default=16_000_000, help="length of the vector")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="as PyTorch names it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use here, so there is nothing to time. `--device cpu` shows the way.")
        return
    rows = measured(options.values, options.repeats, options.device)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console(width=120).print(table(rows, options.values, options.device))
    if not all(row.same for row in rows):
        raise SystemExit("some bits are not the same")


if __name__ == "__main__":
    main()
