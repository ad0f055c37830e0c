"""Client-rounds a second on four workloads of real MNIST, beside bare PyTorch in the same run.

    python benchmarks/throughput.py [WORKLOAD ...] [--pairs N] [--rounds N]

Ours runs on Ray with compression (``topk(0.1) | uniform(4) | rans``, error feedback), the ledger and MLflow on. The
bare loop is the two-process one of `../shared/peers/bare.py`, which encodes, bills and logs nothing. The two
alternate, and the figures are medians. Without `../shared` there is nothing to compare with, and this says so.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tightwire.federation.records import RoundRecord
from tightwire.federation.tables import read_rows

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Workload:
    """As in `../shared/peers/workloads.py`."""

    model: str
    clients: int
    cohort: int
    batch: int
    rounds: int
    """Enough for the median to be of rounds after the start, in which MLflow is imported and its store is made."""


WORKLOADS = {
    "logreg-device": Workload("logreg", clients=1000, cohort=200, batch=20, rounds=120),
    "mlp-device": Workload("2nn", clients=1000, cohort=100, batch=20, rounds=100),
    "mlp-silo": Workload("2nn", clients=100, cohort=20, batch=30, rounds=100),
    "cnn-silo": Workload("cnn", clients=100, cohort=10, batch=50, rounds=10),
}


def ours(workload: str, rounds: int, folder: Path) -> float:
    """Client-rounds a second of this project: the median over all rounds but the first."""
    w = WORKLOADS[workload]
    experiment = {
        "name": "throughput",
        "rounds": rounds,
        "data": {"name": "mnist", "folder": str(SHARED / "data" / "mnist")},
        "partition": {"name": "iid"},
        "model": {"name": w.model},
        "training": {"epochs": 1, "batch": w.batch, "lr": 0.05},
        "population": {"clients": w.clients, "tiers": {"flagship-5g": 1.0}},
        "participation": {"cohort": w.cohort, "drop": 0.0},
        "deadline": None,
        "policy": {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"},
        "server": {"evaluate_every": rounds},
        "checkpoints": {"every": rounds},
        "hosts": {"workers": 2},
    }
    file = folder / "throughput.yaml"
    file.write_text(json.dumps(experiment))
    command = [sys.executable, "-m", "tightwire_pipelines", "run", str(file), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    records = read_rows(folder / "runs" / "latest" / "rounds.parquet", RoundRecord)
    middle = records[1:-1]  # the first warms up, the last one evaluates
    return w.cohort / statistics.median(record.wall_seconds for record in middle)


def bare(workload: str, rounds: int) -> float:
    """Client-rounds a second of the bare loop, as it prints them itself."""
    command = [sys.executable, "bare.py", workload, str(rounds)]
    done = subprocess.run(command, cwd=SHARED / "peers", check=True, capture_output=True, text=True)
    found = re.search(r"([\d.]+) client-rounds/s", done.stdout)
    if found is None:
        raise SystemExit(f"bare.py printed no figure: {done.stdout!r}")
    return float(found.group(1))


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    arguments = parser.parse_args()
    if not (SHARED / "peers" / "bare.py").exists():
        print("skipped: the workloads need MNIST and the bare loop in ../shared, which is not there")
        return
    table = Table(title="client-rounds a second, two worker processes, medians")
    for heading in ("workload", "Tightwire", "bare PyTorch", "ratio"):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    for workload in arguments.workloads:
        rounds = arguments.rounds or WORKLOADS[workload].rounds
        left, right = [], []
        for _ in range(arguments.pairs):
            with tempfile.TemporaryDirectory() as folder:
                left.append(ours(workload, rounds, Path(folder)))
            right.append(bare(workload, rounds))
        ratio = statistics.median(a / b for a, b in zip(left, right, strict=True))
        table.add_row(workload, f"{statistics.median(left):.1f}", f"{statistics.median(right):.1f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
