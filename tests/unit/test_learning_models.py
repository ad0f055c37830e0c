"""Models: their sizes, their weights' determinism, the flat vector, and their cost."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code gives it
from pydantic import TypeAdapter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tightwire.arrays import Flat
from tightwire.errors import ConfigError
from tightwire.learning.cost import training_cost
from tightwire.learning.flat import FlatModel
from tightwire.learning.models import AnyModel, Cnn, Custom, Logreg, Mlp, TwoNN
from tightwire.learning.torch_state import seeded, single_thread

MODELS: list[AnyModel] = [Logreg(), Mlp(hidden=(7,)), Mlp(hidden=()), TwoNN(), Cnn()]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("model", "size"), [(Logreg(), 7_850), (TwoNN(), 199_210), (Cnn(), 1_663_370)], ids=repr)
def test_parameter_counts_are_the_published_ones(model: AnyModel, size: int) -> None:
    module = model.build((1, 28, 28), 10, 0)
    assert parameters(module) == size
    assert FlatModel(module).size == size


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator_be(model: AnyModel) -> None:
    before = torch.get_rng_state()
    one, again, other = (FlatModel(model.build((1, 8, 8), 5, seed)).read() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("features", [(1, 8, 8), (3, 9, 7)])
def test_models_give_one_logit_a_class(model: AnyModel, features: tuple[int, ...]) -> None:
    assert model.build(features, 5, 0)(torch.zeros(3, *features)).shape == (3, 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_cnn_is_the_plain_cnn(channels: int) -> None:
    module = Cnn().build((channels, 12, 12), 10, 0)
    plain = nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(576, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    with seeded(1):
        x, y = torch.rand(6, channels, 12, 12), torch.randint(0, 10, (6,))
    losses = [F.cross_entropy(m(x), y) for m in (module, plain)]
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [
        torch.autograd.grad(loss, list(m.parameters())) for loss, m in zip(losses, (module, plain), strict=True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("features", [(60,), (1, 3, 8), (8, 8)])
def test_cnn_refuses_what_is_no_image(features: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="images"):
        Cnn().build(features, 10, 0)


def linear(features: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Linear(features[0], classes)


def of_no_module(features: tuple[int, ...], classes: int) -> object:
    return features, classes


def of_one_logit(features: tuple[int, ...], classes: int) -> nn.Module:  # noqa: ARG001 - the interface's
    return nn.Linear(features[0], 1)


def of_other_inputs(features: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Linear(features[0] + 1, classes)


def of_idle_parameters(features: tuple[int, ...], classes: int) -> nn.Module:
    module = nn.Linear(features[0], classes)
    module.register_parameter("idle", nn.Parameter(torch.zeros(3)))
    return module


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(sys.modules, "users_models", sys.modules[__name__])
    return "users_models"


def test_a_custom_model_is_built_from_the_key(here: str) -> None:
    custom = Custom(function=f"{here}:linear")
    one, again = (FlatModel(custom.build((4,), 3, 1)).read() for _ in range(2))
    assert np.array_equal(one, again)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("no_such_package:f", "cannot be imported, ModuleNotFoundError"),
        ("{here}:no_such_function", "cannot be imported, AttributeError"),
        ("{here}:MODELS", "is list; give a function"),
        ("{here}:parameters", "failed on .* it must take"),
        ("{here}:of_no_module", "gave tuple"),
        ("{here}:of_one_logit", r"give logits of shape \(2, 3\)"),
        ("{here}:of_idle_parameters", "never uses its parameter 'idle'"),
        ("{here}:of_other_inputs", "failed on inputs of shape"),
    ],
)
def test_unusable_custom_models_are_refused_in_one_line(here: str, function: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Custom(function=function.format(here=here)).build((4,), 3, 0)
    assert "\n" not in str(caught.value)


def test_a_custom_function_is_written_with_a_colon() -> None:
    with pytest.raises(ValueError, match="pattern"):
        TypeAdapter[AnyModel](AnyModel).validate_python({"name": "custom", "function": "package.module.function"})


def test_flat_model_reads_and_writes_the_modules_own_parameters() -> None:
    model = FlatModel(TwoNN().build((9,), 4, 0))
    start = model.read()
    assert [(t.name, t.shape) for t in model.schema.tensors][:2] == [
        ("0.weight", (200, 9)),
        ("0.bias", (200,)),
    ]
    assert sum(int(np.prod(t.shape)) for t in model.schema.tensors) == model.size == len(start)
    frozen = np.arange(model.size, dtype=np.float32)
    frozen.setflags(write=False)
    model.write(frozen)
    assert torch.cat([p.detach().flatten() for p in model.module.parameters()]).numpy().tolist() == frozen.tolist()
    assert np.array_equal(model.since(start), frozen - start)
    with torch.no_grad():
        next(model.module.parameters())[0, 0] = -1
    assert model.read()[0] == -1


@pytest.mark.parametrize("wrong", [np.zeros(3, np.float32), np.zeros(15, np.float64)])
def test_flat_model_refuses_vectors_that_do_not_fit(wrong: Flat) -> None:
    with pytest.raises(ValueError, match=r"takes float32 of shape \(15,\)"):
        FlatModel(nn.Linear(4, 3)).write(wrong)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "buffer '1.running_mean'"),
        (nn.Linear(2, 2).requires_grad_(requires_grad=False), "'weight' is frozen"),
        (nn.Linear(2, 2).double(), "torch.float64"),
        (nn.ReLU(), "no parameters"),
    ],
    ids=["buffers", "frozen", "double", "empty"],
)
def test_flat_model_refuses_what_it_cannot_hold(module: nn.Module, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FlatModel(module)


def test_training_cost_counts_multiply_accumulates() -> None:
    cost = training_cost(Logreg().build((1, 28, 28), 10, 0), (1, 28, 28))
    assert cost.flops_per_sample == 3 * 2 * 7840
    assert cost.activation_bytes_per_sample == 4 * 784
    assert cost.parameters == 7850
    two = training_cost(TwoNN().build((784,), 10, 0), (784,))
    assert two.flops_per_sample == 6 * (784 * 200 + 200 * 200 + 200 * 10)
    assert two.activation_bytes_per_sample == 4 * (784 + 200 + 200)


def test_training_cost_of_the_cnn_is_that_of_its_layers() -> None:
    model = FlatModel(Cnn().build((1, 28, 28), 10, 0))
    cost = training_cost(model.module, (1, 28, 28))
    products = 28 * 28 * 32 * 25 + 14 * 14 * 64 * 32 * 25 + 3136 * 512 + 5120
    assert cost.flops_per_sample == 6 * products
    outputs = 784 + 28 * 28 * 32 + 14 * 14 * 64 + 3136 + 512
    assert 4 * outputs <= cost.activation_bytes_per_sample <= 8 * outputs
    assert cost.parameters == model.size


class Attention(nn.Module):
    """Operations that torch's counter knows by themselves, by their parts, and not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 24)
        self.convolution = nn.Conv1d(6, 6, 3, padding=1, groups=2)
        self.recurrent = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.inside(x).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out, _ = self.recurrent(self.convolution(mixed))
        return torch.einsum("bij,bkj->bik", out, out).softmax(-1)


@pytest.mark.parametrize(
    ("module", "features"),
    [(Attention(), (6, 8)), (Cnn().build((1, 28, 28), 10, 0), (1, 28, 28)), (nn.GRU(5, 7, batch_first=True), (4, 5))],
    ids=["attention", "cnn", "gru"],
)
def test_training_cost_counts_what_the_counter_of_torch_counts(module: nn.Module, features: tuple[int, ...]) -> None:
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, *features))
    assert training_cost(module, features).flops_per_sample == 3 * counter.get_total_flops() > 0


def test_borrowed_torch_state_is_given_back() -> None:
    def fail() -> None:
        with single_thread(), seeded(2**64 - 1):
            assert torch.get_num_threads() == 1
            torch.rand(3)
            raise KeyError

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
