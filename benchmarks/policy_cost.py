"""What deciding costs beside the training that it steers: seconds of `decide` over seconds of local training.

    python benchmarks/policy_cost.py [--policy POLICY ...] [--experiment NAME ...] [--data FOLDER] [--rounds N] [--json]

A policy is a name or YAML, such as `budget` or `{name: budget, layers: true}`. The experiments are `digits`
(`examples/digits.yaml`) and `mnist-2nn` (`examples/mnist-2nn.yaml`, where FOLDER holds MNIST's four IDX files). Rounds
are run in this process, on one thread; `decide` is timed as clients call it, with what it asks of the observation. The
first quarter of the rounds is not counted, so that nothing is compiled in those that are.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tightwire import config as configs
from tightwire.federation.pool import InProcessPool
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.learning.torch_state import single_thread
from tightwire.learning.training import Trained, train
from tightwire.policies.base import Closed, Cohort, Decision, Numbers, Observation, Plan
from tightwire.simulation import Parts

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
POLICIES = ("budget", "{name: budget, layers: true}")
EXPERIMENTS = ("digits", "mnist-2nn")


@dataclass(frozen=True)
class Row:
    """One row of the table; microseconds a client, medians but for the shares."""

    experiment: str
    policy: str
    clients: int
    """How many turns were counted."""
    training: float
    deciding: float
    server: float
    """`plan` and `review` together, spread over the clients."""
    share: float
    """All seconds of the policy over all seconds of training."""


@dataclass
class Timed:
    """A policy that notes how long it takes, and is otherwise the one that it holds."""

    held: Any  # Any: a policy of whatever state
    deciding: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        """What is not timed."""
        return getattr(self.held, name)

    def decide(self, state: Any, observation: Observation) -> tuple[Decision, Any]:
        """Timed."""
        start = time.perf_counter()
        decided: tuple[Decision, Any] = self.held.decide(state, observation)
        self.deciding.append(time.perf_counter() - start)
        return decided

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """Timed."""
        start = time.perf_counter()
        planned: tuple[Plan, Numbers] = self.held.plan(shared, cohort)
        self.server.append(time.perf_counter() - start)
        return planned

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Timed."""
        start = time.perf_counter()
        reviewed: Numbers = self.held.review(shared, closed)
        self.server.append(time.perf_counter() - start)
        return reviewed


def measured(experiment: str, policy: str, rounds: int, overrides: tuple[str, ...]) -> Row:
    """One experiment under one policy."""
    config = configs.load(
        EXAMPLES / f"{experiment}.yaml", (*overrides, f"policy={_as_yaml(policy)}", f"rounds={rounds}")
    )
    timed, training = Timed(config.policy), list[float]()

    def trainer(*args: Any, **rest: Any) -> Iterator[Trained]:
        results = train(*args, **rest)
        while True:
            start = time.perf_counter()
            trained = next(results, None)
            if trained is None:
                return
            training.append(time.perf_counter() - start)
            yield trained

    parts = replace(Parts.load(config), config=config.model_copy(update={"policy": timed}))
    server = parts.server(InProcessPool(parts.runner(trainer)), evaluating=False)
    state: ServerState[Kept] = parts.start()
    with single_thread():
        while state.round <= rounds:
            if state.round <= max(1, rounds // 4):
                for notes in (timed.deciding, timed.server, training):
                    notes.clear()
            state, _ = server.step(state)
    clients = len(timed.deciding)
    return Row(
        experiment,
        policy,
        clients,
        1e6 * float(np.median(training)),
        1e6 * float(np.median(timed.deciding)),
        1e6 * sum(timed.server) / clients,
        (sum(timed.deciding) + sum(timed.server)) / sum(training),
    )


def _as_yaml(policy: str) -> str:
    return policy if policy.lstrip().startswith("{") else f"{{name: {policy}}}"


def table(rows: list[Row]) -> Table:
    """The rows for people."""
    result = Table(title="A policy's time beside the training it steers, one core, microseconds a client")
    for column in ("experiment", "policy", "clients", "training", "decide", "server", "share"):
        result.add_column(column, justify="left" if column in ("experiment", "policy") else "right", no_wrap=True)
    for row in rows:
        numbers = (f"{row.training:.0f}", f"{row.deciding:.0f}", f"{row.server:.1f}", f"{row.share:.1%}")
        result.add_row(row.experiment, row.policy, str(row.clients), *numbers)
    return result


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="A policy's time beside the training it steers.")
    parser.add_argument("--policy", action="append", help="a name or YAML; may be given more than once")
    parser.add_argument("--experiment", action="append", choices=EXPERIMENTS, help="may be given more than once")
    parser.add_argument("--data", type=Path, help="folder of MNIST's four IDX files; without it only digits are run")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    experiments = options.experiment or (EXPERIMENTS if options.data else EXPERIMENTS[:1])
    if "mnist-2nn" in experiments and (options.data is None or not options.data.is_dir()):
        sys.exit(f"--data {options.data}: no such folder; it should hold MNIST's four IDX files")
    folder = (f"data.folder={options.data}",)
    rows = [
        measured(experiment, policy, options.rounds, folder if experiment == "mnist-2nn" else ())
        for experiment in experiments
        for policy in options.policy or POLICIES
    ]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console(width=120).print(table(rows))


if __name__ == "__main__":
    main()
