"""A share of clients' turns: receive, train, decide, encode, send; then the server's check and sum.

The same code runs in process and inside every client host.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from tightwire.codecs.codec import Memory
from tightwire.errors import ClientError, TightwireError
from tightwire.federation.intake import intake
from tightwire.federation.tasks import Broadcast, ClientReport, ClientTask, Offer, ShareResult
from tightwire.federation.turn import ClientSetup, Turns
from tightwire.learning.training import Job, Trained

CACHE = 256_000_000
"""Bytes of trained updates kept from the agreement on ranges until clients encode; the others are trained again."""

Token = TypeVar("Token")


class ClientRunner:
    """Carries out shares of turns; holds nothing that changes from call to call but caches."""

    def __init__(self, setup: ClientSetup) -> None:
        self._setup = setup
        self._turns = Turns(setup)
        self._cached: dict[int, Trained] = {}
        self._cached_for = b""

    @property
    def memory_limit(self) -> int:
        """Bytes of clients' memories that may be kept in RAM where this process keeps them."""
        return self._setup.memory_limit

    def offers(
        self, broadcast: Broadcast, tasks: Sequence[ClientTask], memories: Mapping[int, Memory]
    ) -> tuple[Offer, ...]:
        """Train, and say what ranges were found; see `Pool.offers`.

        Raises:
            ClientError: Training failed; says in which round and for which client.
        """
        found: list[Offer] = []
        room = CACHE
        self._cached, self._cached_for = {}, _token(broadcast)
        for task, trained in self._train(broadcast, tasks):
            with _at(broadcast.round, task.client, "sending"):
                found.append(self._turns.offer(broadcast, task, trained, memories.get(task.client, {})))
            if trained.update.nbytes <= room:
                room -= trained.update.nbytes
                self._cached[task.client] = trained
        return tuple(found)

    def run(
        self,
        broadcast: Broadcast,
        tasks: Sequence[ClientTask],
        memories: Mapping[int, Memory],
        keep: Callable[[Memory], Token],
    ) -> tuple[ShareResult, dict[int, Token]]:
        """Carry out `tasks`; see `Pool.run`.

        Args:
            broadcast: As `Pool.run`.
            tasks: As `Pool.run`.
            memories: What these clients remember; absent for those who remember nothing.
            keep: Takes each client's new memory at once.

        Returns:
            The share's result, and what `keep` gave for the clients that remember something.

        Raises:
            ClientError: Training or encoding failed; says in which round and for which client.
        """
        setup, round_, sizes = self._setup, broadcast.round, self._setup.data.sizes
        door = intake(setup.model.schema, setup.ranges, broadcast, setup.keys)
        total = door.fixed.zeros(broadcast.model.size)
        summed: list[int] = []
        reports: list[ClientReport] = []
        fresh: dict[int, Token] = {}
        slowest: list[tuple[float, int, bytes]] = []
        reserve: dict[int, bytes] = {}
        for task, trained in self._train(broadcast, tasks):
            with _at(round_, task.client, "sending"):
                report, sent, memory = self._turns.send(broadcast, door, task, trained, memories.get(task.client, {}))
            reports.append(report)
            if memory and report.fate in ("arrives", "skipped"):
                fresh[task.client] = keep(memory)
            if sent is None or sent.addend is None or report.fate != "arrives":
                continue
            arrival = report.passage.arrival
            if not setup.shared and (arrival is None or (setup.deadline is not None and arrival > setup.deadline)):
                continue
            if setup.shared or arrival is None or broadcast.gather:
                reserve[task.client] = sent.frame
                continue
            if not broadcast.spare:
                door.add(total, sent.addend, int(sizes[task.client]))
                summed.append(task.client)
                continue
            heapq.heappush(slowest, (arrival, task.client, sent.frame))
            if len(slowest) > broadcast.spare:
                _, client, frame = heapq.heappop(slowest)
                door.add(total, door.take(frame, client).addend, int(sizes[client]))
                summed.append(client)
        door.conclude(total)
        self._cached = {}
        reserve.update((client, frame) for _, client, frame in slowest)
        return ShareResult(total, tuple(summed), tuple(reports), reserve), fresh

    def _train(self, broadcast: Broadcast, tasks: Sequence[ClientTask]) -> Iterator[tuple[ClientTask, Trained]]:
        """Each task with what came of its training, from the cache where `offers` has trained the same before."""
        setup = self._setup
        cached = self._cached if self._cached and self._cached_for == _token(broadcast) else {}
        left = [task for task in tasks if task.client not in cached]
        trained = setup.trainer(
            setup.model, broadcast.model, self._jobs(left), setup.training, round=broadcast.round, seed=setup.seed
        )
        for task in tasks:
            with _at(broadcast.round, task.client, "training"):
                result = cached[task.client] if task.client in cached else self._spoiled(broadcast, next(trained))
            yield task, result

    def _jobs(self, tasks: Iterable[ClientTask]) -> Iterator[Job]:
        for task in tasks:
            x, y = self._setup.data.shard(task.client)
            if self._setup.hostile(task.client):
                y = self._setup.attack.labels(y, self._setup.data.classes)
            yield Job(task.client, x, y)

    def _spoiled(self, broadcast: Broadcast, trained: Trained) -> Trained:
        """What a client says that it learnt."""
        setup = self._setup
        if not setup.hostile(trained.client):
            return trained
        update = setup.attack.spoiled(trained.update, round=broadcast.round, client=trained.client, seed=setup.seed)
        return replace(trained, update=update)


def _token(broadcast: Broadcast) -> bytes:
    """What training depends on besides the client."""
    return hashlib.blake2b(f"{broadcast.round}/".encode() + broadcast.model.tobytes()).digest()


@contextmanager
def _at(round_: int, client: int, stage: str) -> Iterator[None]:
    """Say where an error came from that nobody raised on purpose."""
    try:
        yield
    except TightwireError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ClientError(f"round {round_}, client {client}, {stage}: {what}") from error
