"""Local training: what it computes, and that nothing else decides its bits."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code gives it
from pydantic import ValidationError
from torch import nn

from tightwire.arrays import Flat
from tightwire.keys import generator
from tightwire.learning.data import Digits
from tightwire.learning.dense import Perceptron
from tightwire.learning.flat import FlatModel
from tightwire.learning.models import AnyModel, Cnn, Logreg, Mlp, TwoNN
from tightwire.learning.partition import Iid
from tightwire.learning.samples import FederatedData
from tightwire.learning.training import Job, Trained, Training, evaluate, train


@pytest.fixture(scope="module")
def digits() -> FederatedData:
    return Digits().load(0, 40, Iid())


def model_of(spec: AnyModel) -> tuple[FlatModel, Flat]:
    model = FlatModel(spec.build((1, 8, 8), 10, 0))
    return model, model.read()


def jobs_of(data: FederatedData, *clients: int) -> list[Job]:
    return [Job(client, *data.shard(client)) for client in clients]


def trained_by_torch(spec: AnyModel, job: Job, training: Training, round: int) -> Flat:
    """The plain loop: torch's own optimiser, FedProx's term in the loss, torch's own clipping."""
    module = spec.build((1, 8, 8), 10, 0)
    start = [p.detach().clone() for p in module.parameters()]
    optimiser = torch.optim.SGD(module.parameters(), lr=training.lr * training.lr_decay ** (round - 1))
    order = generator(5, "shuffle", round=round, client=job.client)
    batch = len(job.y) if training.batch == "all" else training.batch
    for _ in range(training.epochs):
        rows = order.permutation(len(job.y))
        for i in range(0, len(rows), batch):
            x, y = torch.from_numpy(job.x[rows[i : i + batch]]), torch.from_numpy(job.y[rows[i : i + batch]])
            loss = F.cross_entropy(module(x), y)
            for parameter, received in zip(module.parameters(), start, strict=True):
                loss = loss + training.prox / 2 * (parameter - received).square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch's
            if training.clip is not None:
                nn.utils.clip_grad_norm_(module.parameters(), training.clip)
            optimiser.step()
    ended = [p.detach() - s for p, s in zip(module.parameters(), start, strict=True)]
    return torch.cat([e.flatten() for e in ended]).numpy()


@pytest.mark.parametrize("spec", [Logreg(), Mlp(hidden=(30,)), Cnn()], ids=repr)
@pytest.mark.parametrize(
    "training",
    [
        Training(batch=10, lr=0.05),
        Training(batch=7, lr=0.1, lr_decay=0.9, epochs=3),
        Training(batch="all", lr=0.1, epochs=2),
        Training(batch=10, lr=0.1, epochs=2, clip=0.5),
        Training(batch=10, lr=0.1, epochs=2, prox=1.0),
        Training(batch=10, lr=0.1, epochs=2, prox=1.0, clip=0.3),
    ],
    ids=repr,
)
def test_training_is_what_torch_computes(digits: FederatedData, spec: AnyModel, training: Training) -> None:
    model, start = model_of(spec)
    (job,) = jobs_of(digits, 3)
    (result,) = train(model, start, [job], training, round=4, seed=5)
    np.testing.assert_allclose(result.update, trained_by_torch(spec, job, training, 4), rtol=1e-3, atol=2e-6)
    batch = len(job.y) if training.batch == "all" else training.batch
    assert result.steps == training.epochs * -(-len(job.y) // batch)
    assert result.samples == len(job.y)


def same(one: Trained, other: Trained) -> bool:
    return one.update.tobytes() == other.update.tobytes() and (one.loss, one.steps) == (
        other.loss,
        other.steps,
    )


def test_a_clients_bits_depend_on_nobody_elses_work(digits: FederatedData) -> None:
    model, start = model_of(Mlp(hidden=(30,)))
    training = Training(batch=8, epochs=2)
    together = {r.client: r for r in train(model, start, jobs_of(digits, 1, 2, 3, 4), training, round=1, seed=0)}
    backwards = {r.client: r for r in train(model, start, jobs_of(digits, 4, 3, 2, 1), training, round=1, seed=0)}
    another, _ = model_of(Mlp(hidden=(30,)))
    alone = {c: next(train(another, start, jobs_of(digits, c), training, round=1, seed=0)) for c in (1, 2, 3, 4)}
    for client in alone:
        assert same(together[client], alone[client])
        assert same(backwards[client], alone[client])


@pytest.mark.parametrize("spec", [Mlp(hidden=(30,)), Cnn()], ids=repr)
def test_bits_are_the_same_whatever_the_thread_count_before(digits: FederatedData, spec: AnyModel) -> None:
    model, start = model_of(spec)
    threads = torch.get_num_threads()
    try:
        results: list[Trained] = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results += train(model, start, jobs_of(digits, 0), Training(), round=1, seed=0)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert same(*results)


def test_shuffling_differs_by_seed_round_and_client(digits: FederatedData) -> None:
    model, start = model_of(Logreg())
    x, y = digits.shard(0)

    def update(client: int, round: int, seed: int) -> bytes:
        return next(train(model, start, [Job(client, x, y)], Training(), round=round, seed=seed)).update.tobytes()

    assert len({update(0, 0, 0), update(1, 0, 0), update(0, 1, 0), update(0, 0, 1)}) == 4
    assert update(0, 0, 0) == update(0, 0, 0)


def test_dropout_is_keyed_and_leaves_the_global_generator_be(digits: FederatedData) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    model = FlatModel(module)
    start, before = model.read(), torch.get_rng_state()
    one, _ = train(model, start, jobs_of(digits, 1, 2), Training(), round=1, seed=0)
    (again,) = train(model, start, jobs_of(digits, 1), Training(), round=1, seed=0)
    assert same(one, again)
    assert torch.equal(before, torch.get_rng_state())
    assert evaluate(model, start, *digits.test) == evaluate(model, start, *digits.test)


def test_read_only_arrays_are_trained_on_and_left_alone(digits: FederatedData) -> None:
    model, start = model_of(Logreg())
    x, y = digits.shard(0)
    for array in (x, y, start):
        array.setflags(write=False)
    before = start.copy()
    (result,) = train(model, start, [Job(0, x, y)], Training(prox=0.1), round=1, seed=0)
    assert np.array_equal(start, before)
    assert result.update.flags.writeable
    assert evaluate(model, start, x, y)[1] < evaluate(model, start + result.update, x, y)[1]


def test_updates_are_fresh_arrays(digits: FederatedData) -> None:
    model, start = model_of(Logreg())
    first, second = train(model, start, jobs_of(digits, 0, 1), Training(), round=1, seed=0)
    assert not np.shares_memory(first.update, second.update)
    assert not np.shares_memory(first.update, model.read())


def test_a_client_without_samples_takes_no_step() -> None:
    model, start = model_of(Logreg())
    empty = Job(9, np.zeros((0, 1, 8, 8), np.float32), np.zeros(0, np.int64))
    (result,) = train(model, start, [empty], Training(batch="all"), round=1, seed=0)
    assert (result.steps, result.samples, result.loss) == (0, 0, 0.0)
    assert not result.update.any()


def test_divergence_is_returned_as_it_is(digits: FederatedData) -> None:
    model, start = model_of(Mlp(hidden=(30,)))
    (result,) = train(model, start, jobs_of(digits, 0), Training(lr=1e30, epochs=5), round=1, seed=0)
    assert not np.isfinite(result.update).all()


def test_no_step_is_longer_than_the_clip_allows(digits: FederatedData) -> None:
    model, start = model_of(Logreg())
    training = Training(batch="all", lr=2.0, clip=0.01)
    (result,) = train(model, start, jobs_of(digits, 0), training, round=1, seed=0)
    assert np.linalg.norm(result.update) == pytest.approx(0.02, rel=1e-3)


def test_fedavg_on_digits_learns(digits: FederatedData) -> None:
    model, start = model_of(Mlp(hidden=(64,)))
    for round_ in range(12):
        results = list(train(model, start, jobs_of(digits, *range(20)), Training(epochs=3), round=round_, seed=0))
        start = start + np.mean([r.update for r in results], axis=0)
    loss, accuracy = evaluate(model, start, *digits.test)
    assert accuracy > 0.85
    assert loss < 0.9


def test_evaluation_in_batches_is_evaluation_at_once(digits: FederatedData, monkeypatch: pytest.MonkeyPatch) -> None:
    model, start = model_of(Logreg())
    whole = evaluate(model, start, *digits.test)
    monkeypatch.setattr("tightwire.learning.training.EVALUATION_BATCH", 50)
    assert evaluate(model, start, *digits.test) == pytest.approx(whole, rel=1e-5)
    with pytest.raises(ValueError, match="no samples"):
        evaluate(model, start, digits.test[0][:0], digits.test[1][:0])


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"batch": "half"}, {"lr": 0}, {"lr_decay": 1.1}, {"clip": 0}, {"prox": -1}]
)
def test_impossible_training_does_not_validate(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Training.model_validate(wrong)


PROCESS = """
import hashlib, os, sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
ballast = [np.empty(int(n)) for n in sys.argv[2:]]
from tightwire.learning.data import Digits
from tightwire.learning.dense import Perceptron
from tightwire.learning.flat import FlatModel
from tightwire.learning.models import Cnn, TwoNN
from tightwire.learning.partition import Iid
from tightwire.learning.training import Job, Training, train
data = Digits().load(0, 40, Iid())
digest = hashlib.sha256()
for spec in (TwoNN(), Cnn()):
    model = FlatModel(spec.build(data.features, data.classes, 0))
    jobs = [Job(c, *data.shard(c)) for c in (1, 2)]
    for result in train(model, model.read(), jobs, Training(batch=7), round=1, seed=0):
        digest.update(result.update.tobytes())
print(digest.hexdigest())
"""


def test_two_processes_agree_bit_for_bit() -> None:
    digests = {
        subprocess.run([sys.executable, "-c", PROCESS, *args], capture_output=True, text=True, check=True).stdout
        for args in (["1"], ["2", "13", "1001", "77777"])
    }
    assert len(digests) == 1


@pytest.mark.parametrize("spec", [Logreg(), Mlp(hidden=(30, 20)), TwoNN()])
def test_steps_taken_by_hand_are_those_of_autograd(digits: FederatedData, spec: Logreg | Mlp | TwoNN) -> None:
    by_hand = FlatModel(spec.build(digits.features, digits.classes, 0))
    same = spec.build(digits.features, digits.classes, 0).children()
    by_autograd = FlatModel(nn.Sequential(*same, nn.Identity()))
    assert Perceptron.of(by_hand) is not None
    assert Perceptron.of(by_autograd) is None
    start, training = by_hand.read(), Training(epochs=3, batch=7, lr=0.2)
    (ours,) = train(by_hand, start, jobs_of(digits, 0), training, round=1, seed=0)
    (theirs,) = train(by_autograd, start, jobs_of(digits, 0), training, round=1, seed=0)
    np.testing.assert_allclose(ours.update, theirs.update, rtol=1e-3, atol=1e-6)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
