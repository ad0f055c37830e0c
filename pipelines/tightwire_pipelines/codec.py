"""`tightwire codec`: the stages there are, and what a line of them costs and loses."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec
from tightwire.codecs.grammar import example, signature
from tightwire.codecs.measure import Measurement, measure
from tightwire.codecs.registry import stages
from tightwire.errors import CodecError, DataError
from tightwire.keys import generator
from tightwire.wire.ledger import SECTIONS

app = typer.Typer(help="List codec stages and measure codec lines.", no_args_is_help=True)

_DEFAULT_VALUES = 1_000_000


@app.command("list")
def list_stages() -> None:
    """List the stages that a codec line can be made of."""
    table = Table(title="Stages of codec lines, such as topk(0.1) | uniform(4) | rans; *.bias: fp16")
    for column in ("stage", "takes", "gives", "guarantee", "source"):
        table.add_column(column, no_wrap=column != "source")
    for kind in stages().values():
        guarantee = "unbiased" if example(kind).unbiased else "biased"
        table.add_row(signature(kind), " or ".join(kind.takes), kind.gives or "the same", guarantee, kind.source)
    Console().print(table)


@app.command("measure")
def measure_line(
    line: Annotated[str, typer.Argument(help='A codec line, such as "topk(0.01) | uniform(4) | rans".')],
    gaussian: Annotated[int | None, typer.Option(help="Measure on so many standard normal values.")] = None,
    laplace: Annotated[int | None, typer.Option(help="Measure on so many standard Laplace values.")] = None,
    input: Annotated[Path | None, typer.Option(help="Measure on the values of a .npy file.")] = None,
    seeds: Annotated[int, typer.Option(help="Encode under so many keys.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a codec line: bits a value, error, bias, speed, and bytes by section."""
    codec = Codec.parse(line)
    result = measure(codec, _values(gaussian, laplace, input), seeds=seeds)
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
    else:
        Console().print(_table(result))


def _values(gaussian: int | None, laplace: int | None, path: Path | None) -> Flat:
    given = [choice for choice in (gaussian, laplace, path) if choice is not None]
    if len(given) > 1:
        raise CodecError("--gaussian, --laplace and --input exclude each other; give one")
    if path is not None:
        return _load(path)
    count = laplace if laplace is not None else gaussian if gaussian is not None else _DEFAULT_VALUES
    if count < 1:
        raise CodecError(f"measuring wants at least one value, got {count}")
    random = generator(0, "measured values")
    if laplace is not None:
        return random.laplace(size=count).astype(np.float32)
    return random.standard_normal(count, np.float32)


def _load(path: Path) -> Flat:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npy: {error}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise DataError(f"{path} must hold one array of floats, got {getattr(values, 'dtype', 'an archive')}")
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        return np.ascontiguousarray(values, np.float32).reshape(-1)


def _table(result: Measurement) -> Table:
    table = Table("measured", "value", title=f"{result.codec} on {result.values:,} values", title_justify="left")
    table.columns[1].justify = "right"
    for name, bits in (("wire", result.wire_bits), ("nominal", result.nominal_bits), ("entropy", result.entropy_bits)):
        table.add_row(f"{name} bits a value", f"{bits:.4f}")
    table.add_row("ratio to fp32", f"{32 / result.wire_bits:.1f}x")
    table.add_row("NMSE", f"{result.nmse:.4g}")
    table.add_row("bias", f"{result.bias:+.2e}")
    table.add_row("encode GB/s of fp32", f"{result.encode_gbps:.3f}")
    table.add_row("decode GB/s of fp32", f"{result.decode_gbps:.3f}", end_section=True)
    for section in SECTIONS:
        table.add_row(f"bytes of {section}", f"{getattr(result.bytes, section):,}")
    table.add_row("bytes of the frame", f"{result.bytes.total:,}")
    return table
