"""Puts an experiment's parts together and runs its rounds from start, or checkpoint, to end.

Knows nothing of Ray: whoever calls it hands in the pool, in process or not.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Generic, Protocol

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, fp32_frame_length
from tightwire.config import Experiment
from tightwire.devices.memory import training_memory
from tightwire.errors import (
    CheckpointError,
    ConfigError,
    LedgerError,
    MemoriesLostError,
    StoppedError,
    TightwireError,
    TrackingError,
)
from tightwire.federation.checkpoint import Checkpoints
from tightwire.federation.client import ClientRunner
from tightwire.federation.combine import Rules
from tightwire.federation.digest import digest
from tightwire.federation.downlink import Downlink
from tightwire.federation.joint import Ranges, joint_of
from tightwire.federation.pool import Handle, Pool
from tightwire.federation.records import DecisionRow, Ended, LedgerRow, RoundRecord
from tightwire.federation.server import RoundResult, Server, with_wall
from tightwire.federation.state import ServerSetup, ServerState
from tightwire.federation.store import MB
from tightwire.federation.tables import write_rows_atomically
from tightwire.federation.turn import ClientSetup, Trainer, Turns
from tightwire.learning.cost import TrainingCost, training_cost
from tightwire.learning.flat import FlatModel
from tightwire.learning.samples import FederatedData
from tightwire.learning.torch_state import single_thread
from tightwire.learning.training import evaluate, train
from tightwire.policies import Fixed
from tightwire.tracking.base import RunInfo, Tracker
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.summary import summarise, write_summary
from tightwire.wire.authentication import client_key
from tightwire.wire.ledger import SECTIONS

LOSSES = 3
"""How often in a row a run goes back to the same checkpoint before it gives up."""


class Listener(Protocol):
    """Whoever watches a run while it goes."""

    def restored(self, records: Sequence[RoundRecord]) -> None:
        """The run begins; `records` are the rounds that its checkpoint holds, none for a new run. Called once."""
        ...

    def round(self, record: RoundRecord) -> None:
        """A round has closed."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know, in one line."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What an experiment file stands for, once data and model are there."""

    config: Experiment
    data: FederatedData
    model: FlatModel
    cost: TrainingCost

    @classmethod
    def of(cls, config: Experiment, data: FederatedData) -> "Parts":
        """Build the model on data that was loaded before, for example by another process."""
        config.link.check()
        config.availability.check()
        module = config.model.build(data.features, data.classes, config.seed)
        model = FlatModel(module)
        _rules_match(config, model)
        return cls(config, data, model, training_cost(module, data.features))

    @classmethod
    def load(cls, config: Experiment) -> "Parts":
        """Load the data and build the model.

        Raises:
            DataError: The dataset is missing or cannot be used.
        """
        return cls.of(config, load_data(config))

    def runner(self, trainer: Trainer = train) -> ClientRunner:
        """The clients' side."""
        return ClientRunner(self._clients(trainer))

    def _clients(self, trainer: Trainer) -> ClientSetup:
        config = self.config
        return ClientSetup(
            seed=config.seed,
            model=self.model,
            data=self.data,
            training=config.training,
            trainer=trainer,
            cost=self.cost,
            population=config.population,
            link=config.link,
            shared=config.server.ingress_mbps is not None,
            policy=config.policy,
            feedback=config.wire.variant(),
            ranges=self._ranges(),
            deadline=config.deadline,
            memory_limit=round(config.hosts.memory_mb * MB),
            attack=config.attack,
            keys=self._keys(),
        )

    def _keys(self) -> Callable[[int], bytes] | None:
        """Client -> its key, where frames are authenticated; in a simulation, all derive from the seed."""
        if not self.config.wire.authenticate:
            return None
        secret = hashlib.sha256(f"tightwire simulation {self.config.seed}".encode()).digest()
        return partial(client_key, secret)

    def server(self, pool: Pool[Handle], *, evaluating: bool = True) -> Server[Handle]:
        """The server's side, on a pool of clients."""
        config, schema = self.config, self.model.schema
        setup = ServerSetup(
            seed=config.seed,
            schema=schema,
            sizes=self.data.sizes,
            participation=config.participation,
            availability=config.availability,
            battery=config.battery,
            population=config.population,
            policy=config.policy,
            turns=Turns(self._clients(train)),
            ingress=_rate(config.server.ingress_mbps),
            egress=_rate(config.server.egress_mbps),
            downlink=Downlink(config.wire.downlink, schema, config.seed),
            ranges=self._ranges(),
            accumulates=config.wire.variant().accumulates,
            deadline=config.deadline,
            lr=config.server.lr,
            memory_needed=self.least_memory,
            flops_per_sample=self.cost.flops_per_sample * config.training.epochs,
            fp32_bytes=fp32_frame_length(schema),
            rules=Rules(
                config.server.aggregator,
                config.server.max_norm,
                config.server.max_norm_times,
                round(config.hosts.memory_mb * MB),
            ),
            keys=self._keys(),
            hostile=lambda client: config.attack.hostile(client, clients=config.population.clients, seed=config.seed),
            evaluate=self._evaluate if evaluating else _never,
        )
        return Server(setup, pool)

    def _ranges(self) -> Ranges | None:
        policy = self.config.policy
        codec = joint_of(policy.codec) if isinstance(policy, Fixed) else None
        ranges = None if codec is None else Ranges(codec, self.model.schema)
        return ranges if ranges is not None and ranges.pieces else None  # small tensors have no range to agree on

    def memory_needed(self, samples: int) -> int:
        """Bytes that training takes on the device of a client with so many samples."""
        batch = self.config.training.batch
        together = samples if batch == "all" else min(batch, samples)
        return training_memory(self.cost.parameters, self.cost.activation_bytes_per_sample, together)

    @property
    def least_memory(self) -> int:
        """Bytes without which a device cannot train at all.

        Where a batch does not fit, gradients are accumulated sample by sample, with the same update and FLOPs.
        """
        return training_memory(self.cost.parameters, self.cost.activation_bytes_per_sample, 1)

    def start(self) -> ServerState[Handle]:
        """The state before the first round."""
        return ServerState(round=1, model=self.model.read())

    def _evaluate(self, round_: int, model: Flat) -> tuple[float, float] | None:
        if round_ % self.config.server.evaluate_every and round_ != self.config.rounds:
            return None
        return evaluate(self.model, model, *self.data.test)


def _rules_match(config: Experiment, model: FlatModel) -> None:
    """Refuse a codec line with a rule that is about no tensor of the model."""
    lines = [config.wire.downlink, *config.policy.lines]
    names = [tensor.name for tensor in model.schema.tensors]
    for line in lines:
        for pattern, _ in Codec.parse(line).rules:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"codec `{line}`: the pattern {pattern} matches no tensor; the model has {', '.join(names)}"
                )


def load_data(config: Experiment) -> FederatedData:
    """The experiment's dataset, split among its clients.

    Raises:
        DataError: The dataset is missing or cannot be used.
    """
    return config.data.load(config.seed, config.population.clients, config.partition)


def _rate(mbps: float | None) -> float | None:
    """Mbit/s in bit/s."""
    return None if mbps is None else mbps * 1e6


def _never(round_: int, model: Flat) -> None:  # noqa: ARG001 - stands in for an evaluation
    return None


class Simulation(Generic[Handle]):
    """One run of an experiment in its folder."""

    def __init__(
        self, parts: Parts, folder: RunFolder, pool: Pool[Handle], tracker: Tracker, listener: Listener
    ) -> None:
        self._parts = parts
        self._config = parts.config
        self._folder = folder
        self._pool = pool
        self._tracker = tracker
        self._listener = listener
        self._checkpoints = Checkpoints(folder.checkpoint)
        self._fresh: list[RoundResult] = []
        self._told = 0

    def run(self, info: RunInfo, stopping: Callable[[], bool] = lambda: False) -> Ended:
        """Run all rounds that the folder's checkpoint does not hold yet.

        Args:
            info: What the tracker is told at the start.
            stopping: Asked between rounds; True saves a checkpoint and ends the run early.

        Raises:
            ConfigError: Another process is running this run.
            CheckpointError: The end of the run could not be saved, or no checkpoint is whole.
            LedgerError: The run's bill does not add up.
            MemoriesLostError: What clients remember was lost again and again, with no checkpoint between.
            TrackingError: The results could not be written; all rounds are saved.
        """
        with self._folder.locked():
            scratch = self._folder.path / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            self._pool.open(scratch)
            try:
                return self._run(info, stopping)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _run(self, info: RunInfo, stopping: Callable[[], bool]) -> Ended:
        self._tracker.start(info)
        try:
            with single_thread():
                state = self._rounds(stopping)
            if state.round <= self._config.rounds:
                return Ended(state.round - 1, None, untracked=self._tracker.finish(None, status="killed"))
            try:
                return self._conclude(state)
            except OSError as error:
                raise TrackingError(
                    f"{self._folder.path}: the results could not be written ({error.strerror or error}); all rounds "
                    f"are saved: free some space, then: tightwire run --resume {self._folder.path}"
                ) from error
        except BaseException as error:
            status = "killed" if isinstance(error, KeyboardInterrupt) else "failed"
            untracked = self._tracker.finish(None, status=status)
            if untracked is not None:
                self._listener.note(untracked)
            raise

    def _rounds(self, stopping: Callable[[], bool]) -> ServerState[Handle]:
        """From the checkpoint to the end, however often what clients remember is lost, if rounds are won between."""
        start: ServerState[Handle] = (
            self._parts.start()
        )  # once: training and evaluation overwrite the model that it is read from
        server = self._parts.server(self._pool)
        held = [self._restore(start)]  # handed on, so that nothing here keeps what clients remembered then
        self._listener.restored(list(self._checkpoints.rows("rounds", RoundRecord)))
        begun, losses = held[0].round, 0
        self._told = begun - 1
        while True:
            try:
                return self._advance(server, held.pop(), stopping)
            except MemoriesLostError as error:
                lost = error.with_traceback(None)
            held.append(self._restore(start))
            losses = losses + 1 if held[0].round == begun else 1
            begun = held[0].round
            if losses > LOSSES:
                raise lost
            back = f"the checkpoint after round {begun - 1}" if begun > 1 else "the start"
            self._listener.note(f"{lost}; going back to {back}, and the rounds since are redone")

    def _restore(self, start: ServerState[Handle]) -> ServerState[Handle]:
        self._fresh.clear()
        return self._checkpoints.load(self._pool, self._listener.note) or start

    def _advance(
        self, server: Server[Handle], state: ServerState[Handle], stopping: Callable[[], bool]
    ) -> ServerState[Handle]:
        while state.round <= self._config.rounds and not stopping():
            began = time.perf_counter()
            try:
                state, result = server.step(state)
            except StoppedError as error:
                self._listener.note(str(error))
                break
            except MemoriesLostError:
                raise
            except TightwireError:
                with suppress(TightwireError):  # what matters is why the round failed
                    if self._fresh:
                        self._save(state)
                raise
            result = with_wall(result, time.perf_counter() - began)
            self._fresh.append(result)
            if result.record.round > self._told:  # else it is a round redone, of the same bits
                self._told = result.record.round
                self._tracker.round(result.record)
                self._listener.round(result.record)
            if (state.round - 1) % self._config.checkpoints.every == 0 and state.round <= self._config.rounds:
                try:
                    self._save(state)
                except CheckpointError as error:
                    if not isinstance(error.__cause__, OSError):  # a part of the checkpoint is damaged, and stays so
                        raise
                    self._listener.note(
                        f"{error}; going on, and trying again after {self._config.checkpoints.every} rounds"
                    )
        if self._fresh:
            self._save(state)
        return state

    def _save(self, state: ServerState[Handle]) -> None:
        self._checkpoints.save(state, self._fresh, self._pool)
        self._fresh.clear()

    def _conclude(self, state: ServerState[Handle]) -> Ended:
        """Write what a finished run leaves behind."""
        folder = self._folder
        ledger = list(self._checkpoints.rows("ledger", LedgerRow))
        decisions = list(self._checkpoints.rows("decisions", DecisionRow))
        rounds = list(self._checkpoints.rows("rounds", RoundRecord))
        _audit(ledger, rounds)
        write_rows_atomically(folder.ledger, ledger, LedgerRow)
        write_rows_atomically(folder.decisions, decisions, DecisionRow)
        write_rows_atomically(folder.rounds, rounds, RoundRecord)
        folder.write_model(_named(state.model, self._parts.model))
        summary = summarise(
            rounds,
            name=folder.name,
            clients=self._config.population.clients,
            cohort=self._config.participation.cohort,
            workers=self._pool.hosts,
            seed=self._config.seed,
            digest=digest(state.chain, state.model),
            mlflow_run_id=self._tracker.run_id,
            wall_seconds=math.fsum(record.wall_seconds for record in rounds),
        )
        if self._config.tracking.plots:
            from tightwire.tracking.plots import draw  # what only trains need not wait for matplotlib

            draw(folder.plots, rounds, decisions, ledger)
        write_summary(folder.summary, summary)
        untracked = self._tracker.finish(summary, status="finished")
        return Ended(
            state.round - 1,
            replace(summary, mlflow_run_id=self._tracker.run_id),
            late=sum(record.late for record in rounds),
            late_fp32=sum(record.late_fp32 for record in rounds),
            untracked=untracked,
        )


def _audit(ledger: Sequence[LedgerRow], rounds: Sequence[RoundRecord]) -> None:
    """Check that frames, sections and rounds bill the same bytes."""
    frames = sum(row.bytes for row in ledger)
    sections = sum(getattr(row, section) for row in ledger for section in SECTIONS)
    told = sum(record.bytes_up + record.bytes_down for record in rounds)
    if not frames == sections == told:
        raise LedgerError(
            f"the run's frames weigh {frames} bytes, their sections {sections}, and its rounds say {told}; "
            "all three must be equal"
        )


def _named(flat: Flat, model: FlatModel) -> dict[str, np.ndarray]:
    """The model's tensors by name and in their shapes, as a PyTorch user expects them."""
    tensors, offset = {}, 0
    for tensor in model.schema.tensors:
        tensors[tensor.name] = flat[offset : offset + tensor.size].reshape(tensor.shape)
        offset += tensor.size
    return tensors
