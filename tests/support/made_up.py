"""Trials that never ran: folders with the tables of made-up runs, whose outcomes a test knows beforehand."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord, Status
from tightwire.federation.tables import write_rows_atomically
from tightwire.studies.naming import Value
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.summary import summarise, write_summary

TIERS = ("flagship-5g", "old-phone-lte", "sensor-lora")
CLIENTS = 6


def write_trial(
    study: Path,
    variation: str,
    seed: int,
    *,
    axes: Mapping[str, Value] | None = None,
    policy: str = "fixed",
    accuracy: float = 0.9,
    frame: int = 1000,
    seconds: float = 60.0,
    rounds: int = 30,
    noise: float = 0.004,
) -> Path:
    """Write one finished trial into `study/trials/`.

    Args:
        study: The study's folder.
        variation: Its name.
        seed: Trials of one seed share their luck, as with common random numbers.
        axes: The point of the grid.
        policy: Name of the policy.
        accuracy: What the curve rises to.
        frame: Bytes of an upload; odd clients send half.
        seconds: Simulated length of a round.
        rounds: How many.
        noise: Standard deviation of what differs between trials of one seed.
    """
    point = "".join(f"-{value}" for value in (axes or {}).values())
    folder = study / "trials" / f"{variation}{point}-{seed}".replace(" ", "_").replace("|", "_")
    folder.mkdir(parents=True)
    own = np.random.default_rng([seed, *f"{variation}{point}".encode()])
    luck = np.random.default_rng(seed).normal(0, 0.01)
    records, ledger, decisions = [], [], []
    for number in range(1, rounds + 1):
        reached = accuracy * number / (number + 1.5) + luck + own.normal(0, noise)
        up = 0
        for client in range(CLIENTS):
            tier, size = TIERS[client % len(TIERS)], frame // (1 + client % 2)
            used: Status = "used" if tier != "sensor-lora" or number % 3 else "late"
            bits = 8.0 - client % 3 - (number / rounds if policy == "budget" else 0.0)
            sections = (0, 0, 0, size - 20, 0)
            ledger.append(
                LedgerRow(number, client, tier, "down", "none", "used", 4000, 20, 0, 0, 0, 3980, 0, 4000, 1.0, 0.1)
            )
            ledger.append(LedgerRow(number, client, tier, "up", "x", used, size, 20, *sections, 4000, 1.0, 0.1))
            decisions.append(
                DecisionRow(number, client, tier, "x", bits, 0.1, "r", None, None, None, size, 1.0, 0.1, used)
            )
            up += size
        records.append(
            RoundRecord(
                round=number,
                accuracy=None if number % 2 and number != rounds else reached,
                loss=None if number % 2 and number != rounds else 1.0 - reached,
                train_loss=0.5,
                bytes_up=up,
                bytes_down=4000 * CLIENTS,
                bytes_wasted=0,
                bytes_up_fp32=4000 * CLIENTS,
                bytes_down_fp32=4000 * CLIENTS,
                seconds=seconds,
                sim_seconds=seconds * number * (1 + luck),
                sim_seconds_fp32=200.0 * number,
                joules=frame / 50 + 3.0,
                mean_bits=7.0,
                mean_density=0.1,
                cohort=CLIENTS,
                participants=CLIENTS,
                late=0,
                late_fp32=0,
                surplus=0,
                lost=0,
                skipped=0,
            )
        )
    run = RunFolder(folder)
    write_rows_atomically(run.rounds, records, RoundRecord)
    write_rows_atomically(run.ledger, ledger, LedgerRow)
    write_rows_atomically(run.decisions, decisions, DecisionRow)
    tree: dict[str, object] = {"name": "made-up", "seed": seed, "rounds": rounds, "policy": {"name": policy}}
    tree |= {"made_up": dict(axes or {})}
    run.write_config(yaml.safe_dump(tree))
    digest = f"{seed:02x}" * 32
    write_summary(
        run.summary,
        summarise(
            records,
            name=folder.name,
            clients=CLIENTS,
            cohort=CLIENTS,
            workers=1,
            seed=seed,
            digest=digest,
            mlflow_run_id=None,
            wall_seconds=1.0,
        ),
    )
    trial = {"variation": variation, "axes": dict(axes or {}), "seed": seed}
    (folder / "trial.json").write_text(json.dumps(trial))
    measured = {tier: accuracy - 0.02 * at for at, tier in enumerate(TIERS)}
    (folder / "tier_accuracy.json").write_text(json.dumps({"digest": digest, "accuracy": measured}))
    return folder
