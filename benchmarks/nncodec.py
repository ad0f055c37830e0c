"""Size and speed of our quantisers at equal error, beside NNCodec and what one would write without any library.

    python benchmarks/nncodec.py [--nncodec-python PATH] [--update FILE.npy] [--values N] [--repeats R] [--json]

NNCodec (ISO/IEC 15938-17, with dependent quantisation) is not one of our dependencies. To compare with it:

    python -m venv FOLDER && FOLDER/bin/pip install numpy torch && FOLDER/bin/pip install --no-deps nncodec==2.1.3

and give FOLDER/bin/python as PATH (what else it imports is not needed here, see `benchmarks/nncodec_worker.py`).

Input is a matrix of Gaussian values, or an update from FILE.npy, as `tightwire capture` saves it: its tensors with two
axes or more (NNCodec quantises others in another way), brought to a root mean square of 1, as NNCodec's steps are
absolute. One core; medians; MB/s of float32 input. The second table takes each of NNCodec's settings and interpolates
between ours, along log2 of the error, at its error.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zstandard
from rich.console import Console
from rich.table import Table

from tightwire.arrays import AnyArray, Bytes8, Flat
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.registry import stages
from tightwire.wire.schema import Schema, TensorSpec
from tightwire_pipelines.capture import load_update

PARAMETERS = (-4, -8, -12, -20)
"""NNCodec's quantisation parameters: about 2.4, 3.2, 4.2 and 6.2 bits a value for Gaussian values."""
FAMILIES = {
    "trellis | rans": [f"trellis({bits}) | rans" for bits in (1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7)],
    "trellis, 32 states | rans": [f"trellis({bits}, states=32) | rans" for bits in (1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7)],
    "uniform | rans": [
        f"uniform(levels={levels}, rounding=nearest) | rans"
        for levels in (8, 11, 15, 21, 29, 41, 57, 81, 161, 321, 641)
    ],
    "uniform, fitted | rans": [
        f"uniform(levels={levels}, rounding=nearest, form=symmetric, range=fitted) | rans"
        for levels in (7, 11, 15, 21, 29, 41, 57, 81, 161, 321, 641)
    ],
    "eden | rans": [f"eden({bits}) | rans" for bits in (1, 2, 3, 4)],
}
"""Codec lines from coarse to fine, by what they are called together."""


@dataclass(frozen=True)
class Row:
    """What one setting makes of the input."""

    name: str
    setting: str
    bits: float
    """A value, all bytes counted."""
    nmse: float
    encode: float
    """MB/s of float32 input."""
    decode: float


@dataclass(frozen=True)
class Comparison:
    """A family of ours at the error of one of NNCodec's settings; ratios are ours over NNCodec's."""

    name: str
    setting: str
    nmse: float
    bits: float
    size_ratio: float
    encode_ratio: float
    decode_ratio: float


def measured(
    name: str,
    setting: str,
    values: Flat,
    encode: Callable[[], object],
    undo: Callable[[], AnyArray],
    size: int,
    repeats: int,
) -> Row:
    """The row of a pair of functions; `size` in bytes."""
    seconds = np.zeros((repeats + 1, 2))
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        encode()
        middle = time.perf_counter()
        decoded = undo()
        seconds[repeat] = middle - start, time.perf_counter() - middle
    encoding, decoding = np.median(seconds[1:], axis=0)
    error = np.square(decoded.astype(np.float64) - values).sum() / np.square(values, dtype=np.float64).sum()
    rate = values.nbytes / 1e6
    return Row(name, setting, 8 * size / values.size, float(error), float(rate / encoding), float(rate / decoding))


def ours(values: Flat, schema: Schema, repeats: int) -> list[Row]:
    """All settings of the families whose stages are there."""
    rows = []
    for name, lines in FAMILIES.items():
        for line in lines if name.split(",")[0].split()[0] in stages() else []:
            encode = partial(Codec.parse(line).encode, values, schema, key=1, round=0, client=0)
            frame = encode().frame
            rows.append(measured(name, line, values, encode, partial(decode, frame, schema), len(frame), repeats))
    return rows


def by_hand(values: Flat, repeats: int) -> list[Row]:
    """What one writes without a library, or with a general one."""
    tensor = torch.from_numpy(values)

    def int8() -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch means to move this to torchao
            return torch.quantize_per_tensor(tensor, float(tensor.abs().max()) / 127, 0, torch.qint8)

    def four() -> tuple[np.float32, np.float32, Bytes8]:
        low, high = values.min(), values.max()
        codes = ((values - low) * (15 / (high - low)) + np.float32(0.5)).astype(np.uint8)
        return low, high, codes[::2] | codes[1::2] << 4

    def four_back(low: np.float32, high: np.float32, packed: Bytes8) -> Flat:
        codes = np.stack([packed & 15, packed >> 4], axis=1).ravel()
        return low + codes.astype(np.float32) * ((high - low) / np.float32(15))

    def int8_back(codes: bytes) -> Flat:
        return np.frombuffer(unpress.decompress(codes), np.int8).astype(np.float32) * np.float32(quantised.q_scale())

    press, unpress = zstandard.ZstdCompressor(), zstandard.ZstdDecompressor()
    half, quantised, nibbles = values.astype(np.float16), int8(), four()
    pressed, pressed8 = press.compress(values.tobytes()), press.compress(quantised.int_repr().numpy().tobytes())
    n = values.size
    jobs: list[tuple[str, str, Callable[[], object], Callable[[], AnyArray], int]] = [
        ("numpy", "numpy astype(float16)", lambda: values.astype(np.float16), lambda: half.astype(np.float32), 2 * n),
        ("torch", "torch quantize_per_tensor, int8", int8, lambda: quantised.dequantize().numpy(), n + 4),
        ("numpy", "numpy uniform 4 bit, nearest", four, lambda: four_back(*nibbles), n // 2 + 8),
        (
            "zstd",
            "zstd of float32, level 3",
            lambda: press.compress(values.tobytes()),
            lambda: np.frombuffer(unpress.decompress(pressed), np.float32),
            len(pressed),
        ),
        (
            "zstd",
            "zstd of torch int8, level 3",
            lambda: press.compress(int8().int_repr().numpy().tobytes()),
            lambda: int8_back(pressed8),
            len(pressed8) + 4,
        ),
    ]
    return [measured(name, setting, values, job, undo, size, repeats) for name, setting, job, undo, size in jobs]


def nncodec(values: Flat, schema: Schema, python: str, repeats: int) -> list[Row]:
    """NNCodec's rows, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "tensors.npz"), Path(folder, "result.json")
        np.savez(source, *(part.reshape(tensor.shape) for tensor, part in parts(values, schema)))
        worker = Path(__file__).with_name("nncodec_worker.py")
        command = [python, str(worker), str(source), str(result), str(repeats), *map(str, PARAMETERS)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not result.exists():
            sys.exit(f"NNCodec failed:\n{done.stderr}")
        rate = values.nbytes / 1e6
        return [
            Row("NNCodec", row["setting"], row["bits"], row["nmse"], rate / row["encode_s"], rate / row["decode_s"])
            for row in json.loads(result.read_text())
        ]


def parts(values: Flat, schema: Schema) -> list[tuple[TensorSpec, Flat]]:
    """The tensors and their values."""
    ends = np.cumsum([tensor.size for tensor in schema.tensors])
    return list(zip(schema.tensors, np.split(values, ends[:-1]), strict=True))


def load(file: Path) -> tuple[Flat, Schema]:
    """The matrices of a captured update; a plain vector is cut to one with rows of 1000."""
    values, schema = load_update(file)
    if len(schema.tensors) == 1 and len(schema.tensors[0].shape) == 1:
        rows = values.size // 1000
        return values[: rows * 1000], Schema((TensorSpec("update", (rows, 1000)),))
    chosen = [(tensor, part) for tensor, part in parts(values, schema) if len(tensor.shape) > 1]
    return np.concatenate([part for _, part in chosen]), Schema(tuple(tensor for tensor, _ in chosen))


def compared(rows: list[Row]) -> list[Comparison]:
    """Our families at NNCodec's errors, where they reach so far."""
    found = []
    for name in FAMILIES:
        family = sorted((row for row in rows if row.name == name), key=lambda row: -row.nmse)
        for other in (row for row in rows if row.name == "NNCodec"):
            if not family or not family[-1].nmse <= other.nmse <= family[0].nmse:
                continue
            at, along = -np.log2(other.nmse), [-np.log2(row.nmse) for row in family]
            bits, encoding, decoding = (
                float(np.interp(at, along, [getattr(row, field) for row in family]))
                for field in ("bits", "encode", "decode")
            )
            ratios = bits / other.bits, encoding / other.encode, decoding / other.decode
            found.append(Comparison(name, other.setting, other.nmse, bits, *ratios))
    return found


def show(rows: list[Row], comparisons: list[Comparison], title: str) -> None:
    """Both tables for people; the gap is to the rate-distortion bound of Gaussian values, log2(1 / NMSE) / 2."""
    console = Console(width=120)
    table = Table(title=title)
    for column in ("codec", "bits a value", "NMSE", "gap in bits", "encode MB/s", "decode MB/s"):
        table.add_column(column, justify="left" if column == "codec" else "right", no_wrap=True)
    for row in rows:
        gap = f"{row.bits + 0.5 * np.log2(row.nmse):.3f}" if row.nmse else ""
        numbers = (f"{row.bits:.3f}", f"{row.nmse:.4g}", gap, f"{row.encode:.1f}", f"{row.decode:.1f}")
        table.add_row(row.setting, *numbers)
    console.print(table)
    if not comparisons:
        console.print("NNCodec was not measured: give --nncodec-python (see the top of this file).")
        return
    table = Table(title="Ours over NNCodec's, at its error")
    for column in ("codec", "at the error of", "NMSE", "bits a value", "x size", "x encode speed", "x decode speed"):
        table.add_column(column, justify="left" if column in {"codec", "at the error of"} else "right", no_wrap=True)
    for one in comparisons:
        speeds = f"{one.encode_ratio:.1f}", f"{one.decode_ratio:.1f}"
        table.add_row(one.name, one.setting, f"{one.nmse:.4g}", f"{one.bits:.3f}", f"{one.size_ratio:.3f}", *speeds)
    console.print(table)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Our quantisers beside NNCodec, at equal error.")
    parser.add_argument("--nncodec-python", metavar="PATH", help="a Python that has NNCodec")
    parser.add_argument("--update", metavar="FILE", type=Path, help="an update to code instead of Gaussian values")
    parser.add_argument("--values", type=int, default=1_000_000, help="length of the Gaussian vector, 1000 or more")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.update:
        values, schema = load(options.update)
    else:
        schema = Schema((TensorSpec("gaussian", (options.values // 1000, 1000)),))
        values = np.random.default_rng(0).standard_normal(schema.size).astype(np.float32)
    values /= np.sqrt(np.square(values, dtype=np.float64).mean()).astype(np.float32)
    rows = ours(values, schema, options.repeats) + by_hand(values, options.repeats)
    if options.nncodec_python:
        rows = nncodec(values, schema, options.nncodec_python, max(1, options.repeats // 2)) + rows
    comparisons = compared(rows)
    if options.json:
        document = {"rows": [asdict(row) for row in rows], "comparisons": [asdict(one) for one in comparisons]}
        print(json.dumps(document, indent=2))
    else:
        what = options.update.name if options.update else "Gaussian values"
        show(rows, comparisons, f"{values.size:,} float32, {what}, one core")


if __name__ == "__main__":
    main()
