"""`tightwire codec`: the stages there are, and what a line of them costs and loses."""

import inspect
import json
import re
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec
from tightwire.codecs.conformance import Subject, verdicts
from tightwire.codecs.family import FAMILIES, guarantee
from tightwire.codecs.frontier import CURVES, frontier
from tightwire.codecs.grammar import example, signature
from tightwire.codecs.measure import Measurement, measure
from tightwire.codecs.registry import registered, stages
from tightwire.codecs.stage import Stage
from tightwire.errors import CodecError, DataError
from tightwire.keys import generator
from tightwire.wire.ledger import SECTIONS
from tightwire_pipelines.capture import load_update
from tightwire_pipelines.imported import TARGET, imported, said

app = typer.Typer(help="List codec stages and measure codec lines.", no_args_is_help=True)

_DEFAULT_VALUES = 1_000_000


@app.command("list")
def list_stages() -> None:
    """List the stages that a codec line can be made of."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Stages of codec lines, such as topk(0.1) | uniform(4) | rans; *.bias: fp16")
    for family, heading in FAMILIES.items():
        console.print(f"\n[bold]{heading}[/]")
        for kind in stages().values():
            if kind.family == family:
                stage = example(kind)
                console.print(f"  {escape(signature(kind))}")
                console.print(f"      [dim]{guarantee(stage)}; {escape(kind.source)}[/]")


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


@app.command("plot")
def plot_update(
    update: Annotated[Path, typer.Argument(help="A .npy of floats, such as `tightwire capture` saves.")],
    out: Annotated[Path | None, typer.Option(help="The picture; by default the .npy's name with .png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the points as JSON.")] = False,
) -> None:
    """Draw rate against distortion of all codecs on an update of your own."""
    from tightwire_pipelines.codec_plot import draw, envelope  # matplotlib takes a while to import

    values, schema = load_update(update)
    if not values.any():
        raise DataError(f"{update} holds nothing but zeros, on which no codec has an error to draw")
    path = out or update.with_suffix(".png")
    if path.suffix.lower() != ".png":
        raise DataError(f"--out {path}: the picture is a .png; give a name that ends so")
    if not path.parent.is_dir():
        raise DataError(f"--out {path}: {path.parent} is not a folder; make it first")
    console = Console(stderr=True)
    total = sum(len(curve.lines) for curve in CURVES)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=total)
        points = frontier(values, schema, lambda line: progress.update(task, advance=1, description=line))
    title = f"{update.name}: {values.size:,} values in {len(schema.tensors)} tensors"
    draw(points, title, path)
    if as_json:
        typer.echo(json.dumps([asdict(point) for point in points], indent=2))
        return
    table = Table(title="Codecs that none of the others beats in both size and error", title_justify="left")
    for column in ("codec", "bits a value", "NMSE"):
        table.add_column(column, justify="left" if column == "codec" else "right")
    for point in envelope(points):
        table.add_row(point.line, f"{point.bits:.3f}", f"{point.nmse:.3g}")
    Console().print(table)
    typer.echo(f"{path}")


@app.command("check")
def check_stage(
    target: Annotated[
        str,
        typer.Argument(
            help='A stage, as package.module:Name, or a codec line such as "topk(0.1) | uniform(4) | rans".'
        ),
    ],
    golden: Annotated[str | None, typer.Option(help="Digest that the frame of the known input must have.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the conformance suite on a stage of your own, or on any codec line; exit code 1 if a check fails."""
    with ExitStack() as stack:
        line = target
        if TARGET.fullmatch(target):
            stage = _imported(target)
            stack.enter_context(registered(type(stage)))
            line = str(stage) if "reals" in stage.takes else f"uniform(4) | {stage}"
        elif re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
            raise CodecError(f"{target} names no stage; give package.module:Name, or a codec line")
        subject = Subject(str(Codec.parse(line)), golden)
        results = verdicts(subject)
        digest = subject.digest if all(not result.failure for result in results) else None
    failed = [result for result in results if result.failure]
    if as_json:
        found = {"codec": line, "golden": digest, "checks": [asdict(result) for result in results]}
        typer.echo(json.dumps(found, indent=2))
    else:
        table = Table("check", "", "what it says, or what was found", title=f"{line}", title_justify="left")
        for result in results:
            verdict = "[red]fails[/red]" if result.failure else "holds"
            table.add_row(result.check, verdict, escape(result.failure or result.says))
        Console().print(table)
        typer.echo(
            f"{len(failed)} of {len(results)} checks fail"
            if failed
            else f"all {len(results)} checks hold; pin the format with --golden {digest}"
        )
    if failed:
        raise typer.Exit(1)


def _imported(target: str) -> Stage:
    """The stage that `target` names, or the one that its class gives as an example."""
    found = imported(target, CodecError)
    if isinstance(found, type) and issubclass(found, Stage):
        missing = [
            name
            for name in ("name", "takes", "gives", "family", "passes", "source", "example")
            if not hasattr(found, name)
        ]
        if missing:
            raise CodecError(f"{target} lacks the class variables {', '.join(missing)} of tightwire.codecs.stage.Stage")
        if inspect.isabstract(found):
            raise CodecError(f"{target} does not implement {', '.join(sorted(found.__abstractmethods__))} of Stage")
        try:
            with registered(found):
                stage = example(found)
        except Exception as error:
            raise CodecError(f"{target} gives the example {found.example!r}, which is none: {said(error)}") from None
        if type(stage) is not found:
            raise CodecError(f"{target} gives the example {found.example!r}, which is the stage {stage.name!r}")
        return stage
    if not isinstance(found, Stage):
        raise CodecError(f"{target} must be a tightwire.codecs.stage.Stage or a subclass, got {type(found).__name__}")
    return found


def _values(gaussian: int | None, laplace: int | None, path: Path | None) -> Flat:
    given = [choice for choice in (gaussian, laplace, path) if choice is not None]
    if len(given) > 1:
        raise CodecError("--gaussian, --laplace and --input exclude each other; give one")
    if path is not None:
        return load_update(path)[0]
    count = laplace if laplace is not None else gaussian if gaussian is not None else _DEFAULT_VALUES
    if count < 1:
        raise CodecError(f"measuring wants at least one value, got {count}")
    random = generator(0, "measured values")
    if laplace is not None:
        return random.laplace(size=count).astype(np.float32)
    return random.standard_normal(count, np.float32)


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
    if result.chosen:
        table.add_row("auto chose", ", ".join(dict.fromkeys(result.chosen)))
    return table
