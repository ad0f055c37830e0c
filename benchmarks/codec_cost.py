"""Calibrate the cost model of encoding: what every stage costs on one core, and how fast that core trains.

    python benchmarks/codec_cost.py [--repeats R] [--out FILE]     measure, and write the calibration
    python benchmarks/codec_cost.py --check [--repeats R]          measure chains, beside what the shipped one predicts

Costs are increments: of a chain with the stage over the same chain without it. The slope over two sizes of a tensor is
what a value costs, and what is left at the smaller one is fixed, once for a tensor; the slope over one and five tensors
tells what is fixed once for a frame. For sparsifiers, the slope over two densities is what a kept value costs. Training
is FLASH's batch, ten samples of FEMNIST on LEAF's CNN, forwards, backwards and SGD. Times are of the processor, the
smallest of several, so that whatever else the machine does disturbs little; the C library is told to keep freed memory,
as in a process that encodes many updates.
"""

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from tightwire.codecs.codec import Codec
from tightwire.codecs.grammar import example
from tightwire.codecs.registry import BUILT_IN
from tightwire.codecs.stage import Stage, Tally
from tightwire.devices import codec_cost
from tightwire.devices.codec_cost import work
from tightwire.devices.tiers import FEMNIST_BATCH_FLOPS
from tightwire.wire.schema import Schema, TensorSpec

OUT = Path(codec_cost.__file__).with_name("codec_cost.json")
LATE = 1000
"""A round in which stages that warm up have done so."""
SMALL, LARGE = (64, 64), (800, 800)
"""Tensors whose difference in time is what values cost."""

VARIANTS = ("rans(adaptive)", "elias(gamma)", "zstd(1)", "zstd(19)")
"""Stages whose arguments change what they cost, besides the examples."""

SPARSE = {
    "topk": ("topk(0.01)", "topk(0.1)"),
    "threshold": ("threshold(quantile=0.99)", "threshold(quantile=0.9)"),
    "structured": ("structured(blocks, 0.01)", "structured(blocks, 0.1)"),
    "stc": ("stc(0.01)", "stc(0.1)"),
    "randk": ("randk(0.01)", "randk(0.1)"),
    "dgc": ("dgc(0.01)", "dgc(0.1)"),
}
"""Two densities of each sparsifier."""

CHECKED = (
    "none",
    "uniform(4)",
    "uniform(8) | rans",
    "topk(0.1) | uniform(4) | rans",
    "topk(0.01) | uniform(4) | rans",
    "topk(0.3) | uniform(6) | rans",
    "flatten | topk(0.01) | uniform(4) | golomb",
    "rotate | uniform(4)",
    "eden(2)",
    "eden(1) | rans",
    "qsgd(4) | elias",
    "stc(0.02) | rans",
    "dgc(0.01)",
    "powersgd(4) | uniform(8)",
    "kmeans(3) | rans",
    "trellis(3) | rans",
    "sign",
    "fp16",
    "uniform(4) | auto",
    "randk(0.05) | uniform(8)",
)
"""Chains for `--check`."""

MODELS = {
    "mlp 17k": ((200, 64), (200,), (20, 200), (20,)),
    "2nn 199k": ((200, 784), (200,), (200, 200), (200,), (10, 200), (10,)),
    "cnn 1.2M": ((32, 1, 5, 5), (32,), (64, 32, 5, 5), (64,), (368, 3136), (368,), (62, 368), (62,)),
}
"""Shapes that `--check` encodes."""


def schema_of(shapes: tuple[tuple[int, ...], ...]) -> Schema:
    """Tensors of these shapes."""
    return Schema(tuple(TensorSpec(f"t{place}", shape) for place, shape in enumerate(shapes)))


def seconds(work: Callable[[], object], repeats: int, least: float = 0.02) -> float:
    """The smallest processor time of one call; short ones are repeated within one timing."""
    work()
    start = time.process_time()
    work()
    inner = max(1, int(least / max(time.process_time() - start, 1e-7)))
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(inner):
            work()
        best = min(best, (time.process_time() - start) / inner)
    return best


def keep_freed_memory() -> None:
    """Have glibc reuse large blocks; other C libraries are left as they are."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
            library.mallopt(option, 2**30)


def encoding(line: str, schema: Schema, repeats: int) -> float:
    """Seconds to encode Gaussian values with a codec line."""
    values = np.random.default_rng(0).standard_normal(schema.size, np.float32)
    codec = Codec.parse(line)
    return seconds(partial(codec.encode, values, schema, key=1, round=LATE, client=0), repeats)


def training_flops(repeats: int) -> float:
    """FLOP/s of a training step on ten samples of FEMNIST."""
    network = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 2048),
        nn.ReLU(),
        nn.Linear(2048, 62),
    )
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    inputs, labels = torch.randn(10, 1, 28, 28), torch.arange(10)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(inputs), labels))
        optimiser.step()

    return FEMNIST_BATCH_FLOPS / seconds(step, 5 * repeats)


def chain_of(stage: Stage) -> tuple[str, str | None]:
    """(A chain that ends in the stage, the same without it); the latter None where the stage stands alone."""
    return (str(stage), None) if "reals" in stage.takes else (f"uniform(4) | {stage}", "uniform(4)")


def left_over(stage: Stage, shape: tuple[int, ...], plain: tuple[float, float]) -> tuple[float, float]:
    """(Values, seconds) of what a stage hands on as reals, which are then sent as they are."""
    if stage.gives in ("ints", "bytes") or "reals" not in stage.takes:
        return 0.0, 0.0
    kept = stage.tally(Tally(int(np.prod(shape)), 32.0, shape=shape)).kept
    return kept, kept * plain[0] + plain[1]


def calibrate(repeats: int, console: Console) -> dict[str, object]:
    """All that the model knows."""
    small, large = schema_of((SMALL,)), schema_of((LARGE,))
    times: dict[tuple[str, Schema], float] = {}

    def timed(line: str, schema: Schema) -> float:
        if (line, schema) not in times:
            times[line, schema] = encoding(line, schema, repeats)
        return times[line, schema]

    slope = (timed("none", large) - timed("none", small)) / (large.size - small.size)
    more = (timed("none", schema_of((SMALL,) * 5)) - timed("none", small)) / 4
    frame = max(0.0, timed("none", small) - more)
    plain = slope, max(0.0, more - slope * small.size)
    console.print(f"a frame: {frame}", highlight=False)
    costs: dict[str, tuple[float, float, float]] = {}
    examples = [example(kind) for kind in BUILT_IN]
    variants = [Codec.parse(f"uniform(4) | {text}").default.stages[-1] for text in VARIANTS]
    for stage in [*examples, *variants]:
        key = str(stage) if stage in variants else stage.name
        if stage.name in SPARSE:
            costs[key] = sparsifier(stage.name, small, large, plain, lambda line, schema: timed(line, schema) - frame)
        elif stage.name == "flatten":
            costs[key] = (0.0, 0.0, 0.0)
        else:
            line, without = chain_of(stage)
            found = []
            for schema, shape in ((small, SMALL), (large, LARGE)):
                spent = timed(line, schema) - (timed(without, schema) if without else frame)
                if stage.name != "none":
                    spent -= left_over(stage, shape, plain)[1]
                found.append((work(stage, Tally(schema.size, 32.0, shape=shape)), max(0.0, spent)))
            costs[key] = (*line_through(*found)[:1], 0.0, line_through(*found)[1])
        console.print(f"{key}: {costs[key]}", highlight=False)
    return {
        "training_flops": digits(training_flops(repeats)),
        "machine": machine(),
        "nanoseconds": {
            name: {"pass": digits(1e9 * taken), "kept": digits(1e9 * kept)} for name, (taken, kept, _) in costs.items()
        },
        "fixed_microseconds": {
            "frame": digits(1e6 * frame),
            **{name: digits(1e6 * fixed) for name, (_, _, fixed) in costs.items()},
        },
    }


def line_through(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """(Slope, value at 0) of the line through two points, neither below 0."""
    slope = max(0.0, (second[1] - first[1]) / (second[0] - first[0]))
    return slope, max(0.0, first[1] - slope * first[0])


def sparsifier(
    name: str,
    small: Schema,
    large: Schema,
    plain: tuple[float, float],
    timed: Callable[[str, Schema], float],
) -> tuple[float, float, float]:
    """Seconds (a value taken, a value kept, a tensor) of a sparsifier."""
    points = []
    for line in SPARSE[name]:
        stage = Codec.parse(line).default.stages[0]
        kept = stage.tally(Tally(large.size, 32.0, shape=LARGE)).kept
        points.append((float(kept), max(0.0, timed(line, large) - left_over(stage, LARGE, plain)[1])))
    each, rest = line_through(*points)
    stage = Codec.parse(SPARSE[name][1]).default.stages[0]
    kept = stage.tally(Tally(small.size, 32.0, shape=SMALL)).kept
    little = max(0.0, timed(SPARSE[name][1], small) - left_over(stage, SMALL, plain)[1] - kept * each)
    taken, fixed = line_through((small.size, little), (large.size, rest))
    return taken, each, fixed


def digits(number: float) -> float:
    """Three significant digits: what a measurement is worth."""
    return float(f"{number:.3g}")


def machine() -> str:
    """The machine in general words."""
    return (
        f"one core of {os.cpu_count()}, {platform.machine()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, torch {torch.__version__.split('+')[0]}"
    )


def check(repeats: int) -> Table:
    """What the shipped calibration predicts for this machine, if it trained as fast as that of the calibration."""
    result = Table(title="seconds to encode, in us: measured, predicted, predicted / measured")
    result.add_column("codec", no_wrap=True)
    for name in MODELS:
        result.add_column(name, justify="right", no_wrap=True)
    calibration = codec_cost.shipped()
    for line in CHECKED:
        cells = []
        for shapes in MODELS.values():
            schema = schema_of(shapes)
            measured = encoding(line, schema, repeats)
            predicted = codec_cost.encode_flops(Codec.parse(line), schema) / calibration.training_flops
            cells.append(f"{1e6 * measured:,.0f} {1e6 * predicted:,.0f} {predicted / measured:.2f}")
        result.add_row(line, *cells)
    return result


def main() -> None:
    """Read the command line, measure, write or print."""
    parser = argparse.ArgumentParser(description="Calibrate the cost model of encoding.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT, help="where the calibration goes")
    parser.add_argument("--check", action="store_true", help="compare the shipped calibration with this machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    console = Console(width=140)
    if options.check:
        console.print(check(options.repeats))
        return
    options.out.write_text(json.dumps(calibrate(options.repeats, console), indent=2) + "\n")


if __name__ == "__main__":
    main()
