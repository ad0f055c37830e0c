"""What each codec does to training: MNIST 2NN for a few rounds under every one of them, accuracy against bytes.

    python benchmarks/training.py --data FOLDER [--rounds N] [--seed S] [--only WORD] [--jobs J] [--json | --markdown]

The experiment is `examples/mnist-2nn.yaml`. FOLDER holds MNIST's four IDX files. Every run is deterministic.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tightwire import config as configs
from tightwire.federation.pool import InProcessPool
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.learning.torch_state import single_thread
from tightwire.simulation import Parts

EXPERIMENT = Path(__file__).resolve().parents[1] / "examples" / "mnist-2nn.yaml"


@dataclass(frozen=True)
class Setting:
    """A codec line, and how it is used."""

    line: str
    feedback: str = "none"
    downlink: str = "none"
    momentum: float | None = None
    lr: float | None = None
    """The server's learning rate, where it is not 1."""


SETTINGS = (
    Setting("none"),
    Setting("fp16"),
    Setting("bf16"),
    Setting("fp8(e4m3)"),
    Setting("uniform(8) | rans"),
    Setting("uniform(4) | rans"),
    Setting("uniform(4, rounding=nearest) | rans", "classic"),
    Setting("uniform(8, range=static) | rans", "classic"),
    Setting("joint(8)"),
    Setting("qsgd(4, norm=max, bucket=512) | rans"),
    Setting("terngrad | rans", "classic"),
    Setting("sign", "classic"),
    Setting("onebit", "classic"),
    Setting("natural | rans"),
    Setting("kmeans(3) | rans", "classic"),
    Setting("rotate | uniform(4) | rans"),
    Setting("eden(1)"),
    Setting("eden(2)"),
    Setting("trellis(1.5) | rans", "classic"),
    Setting("topk(0.1) | uniform(4) | rans", "classic"),
    Setting("topk(0.01) | uniform(4) | rans", "classic"),
    Setting("flatten | topk(0.01) | uniform(4) | rans", "classic"),
    Setting("topk(0.1) | uniform(4) | rans", "ef21"),
    Setting("threshold(quantile=0.95) | uniform(4) | rans", "classic"),
    Setting("randk(0.1) | uniform(8)"),
    Setting("structured(rows, 0.25) | uniform(4) | rans", "classic"),
    Setting("dgc(0.05) | fp16", "dgc", momentum=0.5),
    Setting("stc(0.02)", "classic"),
    Setting("uniform(4) | topk(0.1) | rans", "classic"),
    Setting("powersgd(8)", "classic"),
    Setting("svd(energy=0.8) | uniform(8) | rans", "classic"),
    Setting("sketch(5, 4000, density=0.005)", "classic"),
    Setting("uniform(4) | rans(adaptive)"),
    Setting("qsgd(levels=16) | elias"),
    Setting("uniform(4) | golomb"),
    Setting("topk(0.1) | uniform(4) | auto", "classic"),
    Setting("topk(0.1) | uniform(4) | rans", "classic", "topk(0.2) | uniform(6) | rans"),
)
"""Every codec at a sensible setting."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    line: str
    feedback: str
    downlink: str
    accuracy: float
    """Test accuracy in percent."""
    megabytes_up: float
    megabytes_down: float
    ratio: float
    """Bytes up at fp32 over bytes up."""


def trained(setting: Setting, folder: Path, rounds: int, seed: int) -> Outcome:
    """One run, in this process."""
    overrides = [
        f"data.folder={folder}",
        f"rounds={rounds}",
        f"seed={seed}",
        f"server.evaluate_every={rounds}",
        f"wire.feedback={setting.feedback}",
        f"wire.downlink='{setting.downlink}'",
        f"policy={{name: fixed, codec: '{setting.line}'}}",
    ]
    if setting.momentum is not None:
        overrides.append(f"wire.momentum={setting.momentum}")
    if setting.lr is not None:
        overrides.append(f"server.lr={setting.lr}")
    config = configs.load(EXPERIMENT, tuple(overrides))
    parts = Parts.load(config)
    server = parts.server(InProcessPool(parts.runner()))
    state: ServerState[Kept] = parts.start()
    up = up_fp32 = down = 0
    accuracy = None
    with single_thread():
        for _ in range(rounds):
            state, result = server.step(state)
            up += result.record.bytes_up
            up_fp32 += result.record.bytes_up_fp32
            down += result.record.bytes_down
            accuracy = result.record.accuracy
    if accuracy is None:
        raise RuntimeError("the last round was not evaluated")
    return Outcome(setting.line, setting.feedback, setting.downlink, accuracy * 100, up / 1e6, down / 1e6, up_fp32 / up)


def markdown(outcomes: list[Outcome]) -> str:
    """The outcomes for the docs."""
    lines = [
        "| codec | error feedback | accuracy | MB up | saved up | MB down |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for outcome in outcomes:
        line = f"`{outcome.line}`".replace("|", "\\|")
        if outcome.downlink != "none":
            line += f", down `{outcome.downlink}`".replace("|", "\\|")
        lines.append(
            f"| {line} | {outcome.feedback} | {outcome.accuracy:.2f} % | {outcome.megabytes_up:.2f} | "
            f"{outcome.ratio:.1f}x | {outcome.megabytes_down:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, train, print."""
    parser = argparse.ArgumentParser(description="Accuracy against bytes under every codec.")
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's four IDX files")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only settings whose line holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()
    settings = [setting for setting in SETTINGS if options.only in setting.line]
    if not options.data.is_dir():
        sys.exit(f"--data {options.data}: no such folder; it should hold MNIST's four IDX files")
    found: dict[Setting, Outcome] = {}
    console = Console(stderr=True)
    run = partial(trained, folder=options.data, rounds=options.rounds, seed=options.seed)
    with ProcessPoolExecutor(options.jobs) as pool, Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=len(settings))
        futures = {pool.submit(run, setting): setting for setting in settings}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            bar.advance(task)
    outcomes = [found[setting] for setting in settings]
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
        return
    if options.markdown:
        print(markdown(outcomes))
        return
    table = Table(title=f"MNIST 2NN, {options.rounds} rounds, seed {options.seed}")
    for column in ("codec", "error feedback", "down", "accuracy %", "MB up", "fp32 / bytes", "MB down"):
        table.add_column(column, justify="left" if column in ("codec", "error feedback", "down") else "right")
    for outcome in outcomes:
        table.add_row(
            outcome.line,
            outcome.feedback,
            outcome.downlink,
            f"{outcome.accuracy:.2f}",
            f"{outcome.megabytes_up:.2f}",
            f"{outcome.ratio:.1f}",
            f"{outcome.megabytes_down:.1f}",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
