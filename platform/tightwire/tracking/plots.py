"""The pictures of a run: what accuracy cost in bytes and in time, what the policy chose, and the bill."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord
from tightwire.federation.tables import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind people tell apart (Okabe and Ito 2008, Color Universal Design)."""

SECTIONS = ("codes", "plain", "indices", "scales", "tables", "header", "check", "partial")
"""The parts of a frame, in the order in which they are stacked."""

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_FP32 = "#6E6E6E"
_MEGABYTE = 1e6
_LOG_ABOVE = 4.0
"""Values that differ by more than this factor are shown on a logarithmic axis."""
_TIME_UNITS = ((172_800.0, 86_400.0, "days"), (7_200.0, 3_600.0, "hours"), (120.0, 60.0, "minutes"))
"""From so many seconds on, so many seconds are one such unit."""


def draw(
    folder: Path,
    rounds: Sequence[RoundRecord],
    decisions: Sequence[DecisionRow],
    ledger: Sequence[LedgerRow],
) -> None:
    """Draw a run into four PNG files: `accuracy_bytes`, `accuracy_time`, `policy` and `bytes`.

    Args:
        folder: Where the pictures go; made if it does not exist.
        rounds: Every round of the run, in order.
        decisions: Every decision of the run.
        ledger: The bill, one row a frame.

    Raises:
        OSError: A picture could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("accuracy_bytes", accuracy_over_bytes(rounds)),
        ("accuracy_time", accuracy_over_time(rounds)),
        ("policy", choices_by_tier(decisions)),
        ("bytes", bytes_by_tier(ledger)),
    ):
        with atomic_file(folder / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=150)


def accuracy_over_bytes(rounds: Sequence[RoundRecord]) -> "Figure":
    """Test accuracy against MB sent by all clients so far, beside the MB of the same rounds in fp32."""
    sent = [total / _MEGABYTE for total in accumulate(record.bytes_up for record in rounds)]
    whole = [total / _MEGABYTE for total in accumulate(record.bytes_up_fp32 for record in rounds)]
    figure, axes = _figure()
    _two_curves(axes, rounds, sent, whole, "MB")
    axes.set_xlabel("sent by all clients so far (MB)")
    _title(axes, "Accuracy against bytes up")
    return figure


def accuracy_over_time(rounds: Sequence[RoundRecord]) -> "Figure":
    """Test accuracy against the simulated clock, beside the clock of the same rounds in fp32."""
    longest = max((max(record.sim_seconds, record.sim_seconds_fp32) for record in rounds), default=0.0)
    size, unit = next(((size, unit) for least, size, unit in _TIME_UNITS if longest >= least), (1.0, "seconds"))
    figure, axes = _figure()
    taken = [record.sim_seconds / size for record in rounds]
    _two_curves(axes, rounds, taken, [record.sim_seconds_fp32 / size for record in rounds], unit)
    axes.set_xlabel(f"simulated time ({unit})")
    _title(axes, "Accuracy against simulated time")
    return figure


def choices_by_tier(decisions: Sequence[DecisionRow]) -> "Figure":
    """Mean bits and density of what each tier's clients sent, by round: faint, and as a running mean."""
    figure, bits_axes = _figure(rows=2)
    density_axes = bits_axes.figure.axes[1]
    sent = [row for row in decisions if row.codec]
    span = max((row.round for row in decisions), default=0) - min((row.round for row in decisions), default=0)
    window = max(1, span // 12)
    for order, tier in enumerate(sorted({row.tier for row in decisions})):
        chosen = [row for row in sent if row.tier == tier]
        colour, dash = PALETTE[order % len(PALETTE)], _DASHES[order % len(_DASHES)]
        label = tier if chosen else f"{tier} (sent nothing)"
        for axes, means in ((bits_axes, _means(chosen, "bits")), (density_axes, _means(chosen, "density"))):
            numbers, values = list(means.keys()), list(means.values())
            axes.plot(numbers, values, color=colour, linewidth=0.8, alpha=0.3)
            smooth = _running(values, window)
            axes.plot(numbers, smooth, color=colour, linestyle=dash, linewidth=1.8, label=label)
    bits_axes.set_ylabel("bits a kept value")
    bits_axes.set_ylim(bottom=0)
    density_axes.set_ylabel("density (kept fraction)")
    density_axes.set_xlabel("round")
    if _spread([row.density for row in sent]) > _LOG_ABOVE:
        density_axes.set_yscale("log")
        _plain_ticks(density_axes, "y")
    else:
        density_axes.set_ylim(bottom=0)
    _title(bits_axes, "What each tier sent: bits and density")
    if decisions:
        bits_axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0)
    return figure


def bytes_by_tier(ledger: Sequence[LedgerRow]) -> "Figure":
    """MB that each tier's clients sent, by the part of the frame."""
    totals: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SECTIONS, 0))
    for row in ledger:
        if row.direction == "up":
            for section in SECTIONS:
                totals[row.tier][section] += getattr(row, section)
    tiers = sorted(totals, reverse=True)
    figure, axes = _figure(height=1.6 + 0.45 * max(len(tiers), 2))
    left = [0.0] * len(tiers)
    for colour, section in zip(PALETTE, SECTIONS, strict=False):
        widths = [totals[tier][section] / _MEGABYTE for tier in tiers]
        if any(widths):
            axes.barh(tiers, widths, left=left, color=colour, label=section, height=0.65)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row_number, total in enumerate(left):
        axes.annotate(
            f"{total:.3g} MB",
            (total, row_number),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_xlim(right=max(left, default=1.0) * 1.15 or 1.0)
    axes.set_xlabel("sent in the whole run (MB)")
    axes.grid(axis="y", visible=False)
    _title(axes, "Bytes up by tier and part of the frame")
    if tiers:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0)
    return figure


def _two_curves(
    axes: "Axes", rounds: Sequence[RoundRecord], cost: Sequence[float], fp32: Sequence[float], unit: str
) -> None:
    seen = [(at, record.accuracy * 100) for at, record in enumerate(rounds) if record.accuracy is not None]
    axes.set_ylabel("test accuracy (%)")
    if not seen:
        axes.text(0.5, 0.5, "no round was evaluated", transform=axes.transAxes, ha="center", va="center")
        return
    accuracy = [percent for _, percent in seen]
    whole, taken = ([costs[at] for at, _ in seen] for costs in (fp32, cost))
    for costs, colour, dash, name in (
        (whole, _FP32, "--", "same rounds in fp32"),
        (taken, PALETTE[0], "-", "this run"),
    ):
        axes.plot(
            costs,
            accuracy,
            color=colour,
            linestyle=dash,
            linewidth=1.8,
            label=f"{name}: {costs[-1]:.3g} {unit}",
        )
        axes.plot(costs[-1:], accuracy[-1:], color=colour, marker="o", markersize=5)
    if taken[-1] > 0 and max(whole[-1] / taken[-1], taken[-1] / max(whole[-1], 1e-9)) > _LOG_ABOVE:
        axes.set_xscale("log")
        _plain_ticks(axes, "x")
    else:
        axes.set_xlim(left=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, borderaxespad=0.2)


def _means(rows: Sequence[DecisionRow], choice: Literal["bits", "density"]) -> dict[int, float]:
    by_round: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        by_round[row.round].append(row.bits if choice == "bits" else row.density)
    return {number: sum(values) / len(values) for number, values in sorted(by_round.items())}


def _running(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and up to `window` - 1 before it."""
    recent = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in recent]


def _spread(values: Sequence[float]) -> float:
    positive = [value for value in values if value > 0]
    return max(positive) / min(positive) if positive else 1.0


def _figure(rows: int = 1, height: float | None = None) -> tuple["Figure", "Axes"]:
    """A figure in this project's looks, and the first of its panels, which share the x axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height or 2.6 + 1.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E3E3E3", linewidth=0.7)
        axes.set_axisbelow(True)
    first: Axes = panels[0]
    return figure, first


def _title(axes: "Axes", text: str) -> None:
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold", pad=24 if axes.get_legend() else 10)


def _plain_ticks(axes: "Axes", which: Literal["x", "y"]) -> None:
    """Write 0.1, 0.2, 0.5 and so on at a logarithmic axis, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
