from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord
from tightwire.tracking.plots import accuracy_over_bytes, accuracy_over_time, choices_by_tier, draw


def a_round(number: int, accuracy: float | None, *, fp32: int = 1000) -> RoundRecord:
    return RoundRecord(
        number,
        accuracy,
        1.0,
        1.0,
        100,
        9,
        0,
        fp32,
        9,
        60.0,
        60.0 * number,
        70.0 * number,
        1.0,
        4.0,
        0.1,
        5,
        4,
        0,
        0,
        0,
        1,
        0,
    )


def a_decision(number: int, tier: str, codec: str, density: float) -> DecisionRow:
    return DecisionRow(number, 1, tier, codec, 4.0, density, "fixed", None, None, None, 9, 1.0, 0.1, "used")


def drawn(axes: Axes) -> list[list[list[float]]]:
    return [np.asarray(line.get_xydata()).tolist() for line in axes.get_lines()]


ROUNDS = [a_round(number, 0.1 * number) for number in range(1, 9)]
LEDGER = [LedgerRow(1, 7, "sensor", "up", "none", "used", 10, 1, 2, 3, 0, 4, 0, 40, 1.5, 0.1)]


def test_a_run_is_drawn_into_four_pictures(tmp_path: Path) -> None:
    draw(tmp_path / "plots", ROUNDS, [a_decision(1, "sensor", "none", 0.5)], LEDGER)
    pictures = sorted((tmp_path / "plots").iterdir())
    assert [path.name for path in pictures] == [
        "accuracy_bytes.png",
        "accuracy_time.png",
        "bytes.png",
        "policy.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_a_run_without_rounds_can_be_drawn(tmp_path: Path) -> None:
    draw(tmp_path, [], [], [])
    draw(tmp_path, [a_round(1, None)], [a_decision(1, "sensor", "", 0.0)], [])


def test_bytes_are_cumulative_megabytes_of_the_run_and_of_fp32() -> None:
    fp32, run = (line for line in drawn(accuracy_over_bytes(ROUNDS).axes[0]) if len(line) > 1)
    assert [x for x, _ in run] == [100 * n / 1e6 for n in range(1, 9)]
    assert [x for x, _ in fp32] == [1000 * n / 1e6 for n in range(1, 9)]


def test_costs_far_apart_get_a_logarithmic_axis_and_near_ones_a_linear_one() -> None:
    assert accuracy_over_bytes(ROUNDS).axes[0].get_xscale() == "log"
    assert accuracy_over_time(ROUNDS).axes[0].get_xscale() == "linear"


def test_time_is_shown_in_a_unit_that_fits() -> None:
    assert accuracy_over_time(ROUNDS).axes[0].get_xlabel() == "simulated time (minutes)"
    assert accuracy_over_time(ROUNDS[:1]).axes[0].get_xlabel() == "simulated time (seconds)"


def test_rounds_without_evaluation_are_passed_over() -> None:
    axes = accuracy_over_bytes([a_round(1, None), a_round(2, 0.5), a_round(3, None)]).axes[0]
    assert [[y for _, y in line] for line in drawn(axes)] == [[50.0]] * 4


def test_each_tier_has_one_named_line_and_one_that_sent_nothing_says_so() -> None:
    rows = [a_decision(n, tier, "none", 0.5) for n in (1, 2) for tier in ("phone", "lora")]
    rows.append(a_decision(1, "asleep", "", 0.0))
    legend = choices_by_tier(rows).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["asleep (sent nothing)", "lora", "phone"]
