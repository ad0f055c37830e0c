"""What a run will cost, before anything is trained.

The rounds are the run's own: the same cohorts, devices, links, drop-outs, policy, codecs and clock, with real frames.
Only the training is left out: in its place each client draws an update from a Laplace distribution, whose tails are
near those of real updates, at a magnitude that shrinks per tensor as initialisation scales do.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tightwire.arrays import Flat
from tightwire.devices.memory import refusal
from tightwire.federation.pool import InProcessPool
from tightwire.federation.records import RoundRecord
from tightwire.federation.state import ServerState
from tightwire.federation.store import Kept
from tightwire.keys import generator
from tightwire.learning.flat import FlatModel
from tightwire.learning.training import Job, Trained, Training
from tightwire.simulation import Parts

BUDGET = 200_000_000
"""Parameters after which a preview encodes no further round, once it has three; the rest is judged by these."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run is expected to cost. Seconds and joules are simulated."""

    rounds: int
    rounds_simulated: int
    """Rounds on which the figures rest; the rest is taken to be alike."""
    parameters: int
    bytes_up: float
    bytes_down: float
    bytes_up_fp32: float
    bytes_down_fp32: float
    sim_seconds: float
    sim_seconds_fp32: float
    energy_joules: float
    memory: int
    """Bytes that training takes on the device of the largest client."""
    refused: dict[str, float]
    """Share of each tier's clients that cannot hold the training state, where there are any."""


def preview(parts: Parts, progress: Callable[[RoundRecord], None]) -> Preview:
    """Run the rounds without training; see the module."""
    config = parts.config
    pool = InProcessPool(parts.runner(_draw))
    server = parts.server(pool, evaluating=False)
    cost = parts.model.schema.size * config.participation.cohort
    simulated = min(config.rounds, max(3, BUDGET // cost))
    state: ServerState[Kept] = parts.start()
    records: list[RoundRecord] = []
    for _ in range(simulated):
        state, result = server.step(state)
        records.append(result.record)
        progress(result.record)
    scale = config.rounds / simulated
    return Preview(
        rounds=config.rounds,
        rounds_simulated=simulated,
        parameters=parts.model.schema.size,
        bytes_up=scale * sum(r.bytes_up for r in records),
        bytes_down=scale * sum(r.bytes_down for r in records),
        bytes_up_fp32=scale * sum(r.bytes_up_fp32 for r in records),
        bytes_down_fp32=scale * sum(r.bytes_down_fp32 for r in records),
        sim_seconds=scale * state.clock,
        sim_seconds_fp32=scale * state.clock_fp32,
        energy_joules=scale * sum(r.joules for r in records),
        memory=parts.memory_needed(int(parts.data.sizes.max())),
        refused=_refused(parts),
    )


def _refused(parts: Parts, sample: int = 1000) -> dict[str, float]:
    population = parts.config.population
    clients = range(min(sample, population.clients))
    profiles = [population.profile(client, parts.config.seed) for client in clients]
    shares = {}
    for tier in sorted({profile.tier for profile in profiles}):
        verdicts = [refusal(profile, parts.least_memory) is not None for profile in profiles if profile.tier == tier]
        if any(verdicts):
            shares[tier] = sum(verdicts) / len(verdicts)
    return shares


def _draw(
    model: FlatModel,
    start: Flat,
    jobs: Iterable[Job],
    training: Training,
    *,
    round: int,
    seed: int,
) -> Iterator[Trained]:
    """Stands in for `learning.training.train`."""
    for job in jobs:
        rng = generator(seed, "preview", round=round, client=job.client)
        update = rng.laplace(size=start.size).astype(np.float32)
        offset = 0
        for tensor in model.schema.tensors:
            update[offset : offset + tensor.size] *= training.lr / max(tensor.size, 1) ** 0.5
            offset += tensor.size
        yield Trained(job.client, update, 0.0, 0, len(job.y))
