"""Local training of a share of clients, and evaluation."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code gives it
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from tightwire.arrays import Flat, Ints
from tightwire.keys import generator, key
from tightwire.learning.dense import Perceptron
from tightwire.learning.flat import FlatModel
from tightwire.learning.samples import Inputs
from tightwire.learning.torch_state import seeded, single_thread
from tightwire.spec import Spec

EVALUATION_BATCH = 1000

Step = Callable[[Tensor, Tensor, float], Tensor]
"""(inputs, labels, learning rate) -> loss: one step of SGD on the model."""


class Training(Spec):
    """Local SGD (FedAvg, McMahan et al. 2017, algorithm 1), with FedProx's term if wanted."""

    epochs: PositiveInt = 1
    """Passes over a client's samples each round, E in the papers."""
    batch: PositiveInt | Literal["all"] = 10
    """Samples a step, B in the papers; ``all`` takes one full-batch step an epoch (B = infinity)."""
    lr: PositiveFloat = 0.1
    """Learning rate of the first round."""
    lr_decay: PositiveFloat = Field(default=1.0, le=1)
    """What the learning rate is multiplied by each round: lr * lr_decay ** (round - 1)."""
    clip: PositiveFloat | None = None
    """Largest L2 norm of a step's whole gradient, FedProx's term included; longer ones are scaled down."""
    prox: NonNegativeFloat = 0.0
    """FedProx's mu: mu / 2 * |w - w_received|**2 is added to the loss (Li et al. 2020, equation 2)."""

    def rate(self, round: int) -> float:
        """The learning rate of a round."""
        return float(self.lr * self.lr_decay ** (round - 1))


@dataclass(frozen=True, slots=True)
class Job:
    """One client's work: its samples."""

    client: int
    x: Inputs
    y: Ints


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    client: int
    update: Flat
    """Trained minus received parameters, a fresh array; not finite when training diverged."""
    loss: float
    """Mean of the batch losses (cross-entropy, without FedProx's term) over the steps; 0 without a step."""
    steps: int
    samples: int
    """Samples that the client holds."""


def train(
    model: FlatModel,
    start: Flat,
    jobs: Iterable[Job],
    training: Training,
    *,
    round: int,
    seed: int,
) -> Iterator[Trained]:
    """Train clients one after another from the same model.

    Results depend on (start, job, training, round, seed) alone: not on the other jobs, their order or the
    process. Each client trains on one thread with its own order of samples, keyed by
    (seed, round, client, "shuffle"), and its own state of torch's generator, keyed likewise by "dropout".

    Args:
        model: What to train in; its parameters are overwritten.
        start: The received parameters, shape (parameters,); left as they are, and may be read-only.
        jobs: The share of clients; read one at a time.
        training: How.
        round: Round number, from 1.
        seed: The run's seed.

    Yields:
        One result a job, in the order of the jobs.
    """
    step = _stepper(model, training, start)
    room = _Room(torch.empty(0), torch.empty(0))
    for job in jobs:
        room = room.for_job(job)
        with single_thread(), seeded(key(seed, "dropout", round=round, client=job.client)):
            order = generator(seed, "shuffle", round=round, client=job.client)
            model.write(start)
            if not model.module.training:
                model.module.train()
            losses = _descend(job, training, training.rate(round), order, step, room)
            update = model.since(start)
            loss = torch.stack(losses).mean(dtype=torch.float64).item() if losses else 0.0
        yield Trained(job.client, update, loss, len(losses), len(job.y))


def evaluate(model: FlatModel, flat: Flat, x: Inputs, y: Ints) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in [0, 1] of a model, on one thread, in batches of bounded size.

    Args:
        model: What to evaluate in; its parameters are overwritten.
        flat: The parameters to evaluate, shape (parameters,).
        x: Inputs, shape (samples, *features).
        y: Labels, shape (samples,).

    Raises:
        ValueError: When there are no samples, or `flat` does not fit the model.
    """
    if len(y) == 0:
        raise ValueError("no samples to evaluate on; give at least one")
    model.write(flat)
    model.module.eval()
    loss, correct = 0.0, 0
    with single_thread(), torch.no_grad():
        for begin in range(0, len(y), EVALUATION_BATCH):
            inputs = _tensor(x[begin : begin + EVALUATION_BATCH])
            labels = _tensor(y[begin : begin + EVALUATION_BATCH])
            logits = model.module(inputs)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(1) == labels).sum())
    return loss / len(y), correct / len(y)


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory for one client's shuffled samples, kept from client to client."""

    x: Tensor
    y: Tensor

    def for_job(self, job: Job) -> "_Room":
        """This room, or a new one where it is too small."""
        if len(job.y) <= len(self.y) and job.x.shape[1:] == self.x.shape[1:]:
            return self
        return _Room(torch.empty(job.x.shape), torch.empty(len(job.y), dtype=torch.int64))


def _stepper(model: FlatModel, training: Training, start: Flat) -> Step:
    """How to take a step: by hand where that can be done, and by autograd elsewhere."""
    perceptron = Perceptron.of(model)
    if perceptron is not None and training.clip is None and not training.prox:
        return perceptron.step
    anchors = model.shaped(_tensor(start)) if training.prox else ()

    def step(x: Tensor, y: Tensor, rate: float) -> Tensor:
        loss = F.cross_entropy(model.module(x), y)
        gradients = torch.autograd.grad(loss, model.parameters)
        if anchors:
            gradients = tuple(
                g.add(v - a, alpha=training.prox) for g, v, a in zip(gradients, model.views, anchors, strict=True)
            )
        if training.clip is None:
            for view, gradient in zip(model.views, gradients, strict=True):
                view.sub_(gradient, alpha=rate)
        else:
            scale = _clipping(gradients, training.clip)
            for view, gradient in zip(model.views, gradients, strict=True):
                view.addcmul_(gradient, scale, value=-rate)
        return loss.detach()

    return step


def _descend(
    job: Job, training: Training, rate: float, order: np.random.Generator, step: Step, room: _Room
) -> list[Tensor]:
    """Run one client's epochs on the model as it is; returns the loss of each step."""
    samples, losses = len(job.y), list[Tensor]()
    batch = max(samples, 1) if training.batch == "all" else training.batch
    x, y = room.x[:samples], room.y[:samples]
    for _ in range(training.epochs):
        permutation = order.permutation(samples)
        _gather(job.x, permutation, x)
        _gather(job.y, permutation, y)
        for begin in range(0, samples, batch):
            losses.append(step(x[begin : begin + batch], y[begin : begin + batch], rate))
    return losses


def _clipping(gradients: tuple[Tensor, ...], longest: float) -> Tensor:
    """The factor, at most 1, that brings a gradient's L2 norm down to `longest`; a scalar tensor."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    return torch.clamp(longest / norm, max=1.0)


def _gather(source: Inputs | Ints, rows: Ints, target: Tensor) -> None:
    """Copy rows to memory that torch allocated: aligned alike everywhere; the source may be read-only."""
    np.take(source, rows, axis=0, out=target.numpy(), mode="clip")  # "clip" writes to `out` directly


def _tensor(array: Inputs | Ints) -> Tensor:
    """A copy in memory that torch allocated, for the same reasons."""
    tensor = torch.empty(array.shape, dtype=torch.float32 if array.dtype == np.float32 else torch.int64)
    np.copyto(tensor.numpy(), array)
    return tensor
