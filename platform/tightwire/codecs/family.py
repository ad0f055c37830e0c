"""The whole family as a table, made from the stages themselves."""

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tightwire.codecs.codec import Codec
from tightwire.codecs.grammar import example, signature
from tightwire.codecs.measure import measure
from tightwire.codecs.registry import BUILT_IN
from tightwire.codecs.stage import Layout, Stage
from tightwire.wire.schema import Schema, TensorSpec

SHAPE = (400, 250)
"""Of the tensor of Gaussian values that bits and errors are measured on."""

FAMILIES = {
    "plain": "As they are",
    "transform": "Transforms",
    "quantiser": "Quantisers",
    "sparsifier": "Sparsifiers",
    "factorisation": "Factorisations",
    "entropy": "Entropy coders",
}
"""The headings of the table, in order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stage of the family."""

    name: str
    family: str
    signature: str
    line: str
    """The chain in which it was measured."""
    bits: float
    """Of the frame, a value, on Gaussian values of `SHAPE`."""
    nmse: float
    """There, squared error over squared norm."""
    guarantee: str
    feedback: bool
    """Whether it wants error feedback."""
    summary: str
    """First sentence of its docstring."""
    source: str


def line_of(kind: type[Stage]) -> str:
    """The chain in which a stage is shown: its example, behind a quantiser if it takes codes."""
    return kind.example if "reals" in kind.takes else f"uniform(4) | {kind.example}"


def lines() -> list[str]:
    """The chains of the whole family."""
    return [line_of(kind) for kind in BUILT_IN]


def entries() -> list[Entry]:
    """Every built-in stage at its example setting, measured."""
    values = np.random.default_rng(0).standard_normal(SHAPE[0] * SHAPE[1], np.float32)
    schema = Schema((TensorSpec("w", SHAPE),))
    found = []
    for kind in sorted(BUILT_IN, key=lambda kind: (list(FAMILIES).index(kind.family), kind.name)):
        stage = example(kind)
        line = line_of(kind)
        measured = measure(Codec.parse(line), values, schema, seeds=1)
        summary = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        found.append(
            Entry(
                kind.name,
                kind.family,
                signature(kind),
                line,
                measured.wire_bits,
                measured.nmse,
                guarantee(stage),
                not stage.unbiased,
                summary,
                kind.source,
            )
        )
    return found


def guarantee(stage: Stage) -> str:
    """What a stage promises of the squared error, on a tensor of `SHAPE`."""
    n = SHAPE[0] * SHAPE[1]
    bound = stage.bound(Layout("reals", n, 32, SHAPE) if "reals" in stage.takes else Layout("ints", n, 4))
    if bound < 1e-12:
        return "exact"
    if stage.unbiased:
        return "unbiased" if math.isinf(bound) else f"unbiased, error at most {bound:.2g}"
    if math.isinf(bound):
        return "biased"
    return f"biased, error at most {bound:.2g}" if bound >= 1 else f"contraction, error at most {bound:.4g}"


def markdown(speeds: Mapping[str, tuple[float, float]]) -> str:
    """The table for the docs.

    Args:
        speeds: (encode, decode) of lines, relative to memcpy of the values; lines that are missing have no speed.
    """
    lines: list[str] = []
    family = ""
    for entry in entries():
        if entry.family != family:
            family = entry.family
            lines += [
                "",
                f"### {FAMILIES[family]}",
                "",
                "| stage | measured as | bits | NMSE | guarantee (NMSE) | error feedback | encode, decode | source |",
                "|---|---|---:|---:|---|---|---:|---|",
            ]
        speed = speeds.get(entry.line)
        cells = (
            f"`{entry.signature}`",
            f"`{entry.line}`",
            f"{entry.bits:.3f}",
            f"{entry.nmse:.3g}" if entry.nmse > 1e-12 else "0",
            entry.guarantee,
            "wanted" if entry.feedback else "not needed",
            f"{speed[0]:.2g}, {speed[1]:.2g}" if speed else "",
            entry.source,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines[1:]) + "\n"


BEGIN, END = "<!-- family: python -m tightwire.codecs.family -->\n", "<!-- end of family -->\n"
"""What stands around the table in `docs/codecs.md`."""


def main() -> None:
    """Write the table into `docs/codecs.md`, with the speeds of `docs/codec-speeds.json`; run at the project's root."""
    docs = Path("docs")
    page = (docs / "codecs.md").read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    (docs / "codecs.md").write_text(before + BEGIN + markdown(speeds(docs / "codec-speeds.json")) + END + after)


def speeds(path: Path) -> dict[str, tuple[float, float]]:
    """What `benchmarks/codecs.py --json` printed: (encode, decode) ratios by line."""
    rows = json.loads(path.read_text())
    return {row["name"]: (row["encode_ratio"], row["decode_ratio"]) for row in rows if row["decode_ratio"]}


if __name__ == "__main__":
    main()
