"""Models that an experiment file can name, each built with weights drawn from the run's key.

The built-in models take inputs of any shape and flatten them where they need to; all give one logit a class.
"""

import importlib
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code gives it
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from tightwire.errors import ConfigError
from tightwire.keys import key
from tightwire.learning.torch_state import seeded
from tightwire.spec import Spec


class Model(Protocol):
    """The interface of all model specs."""

    @property
    def name(self) -> str:
        """The name by which an experiment file chooses this model."""
        ...

    def build(self, features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """A module from inputs (samples, *features) to logits (samples, classes); same seed, same weights.

        Raises:
            ConfigError: When the model cannot take such inputs.
        """
        ...


class Logreg(Spec):
    """Multinomial logistic regression: 7,850 parameters on 28 x 28 images and 10 classes."""

    name: Literal["logreg"] = "logreg"

    def build(self, features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """See `Model.build`."""
        return _perceptron((), features, classes, seed)


class Mlp(Spec):
    """Dense layers with ReLU between them."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (128,)
    """Widths of the hidden layers; none makes it logistic regression."""

    def build(self, features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """See `Model.build`."""
        return _perceptron(self.hidden, features, classes, seed)


class TwoNN(Spec):
    """The 2NN of McMahan et al. 2017, section 3: two hidden layers of 200; 199,210 parameters on MNIST."""

    name: Literal["2nn"] = "2nn"

    def build(self, features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """See `Model.build`."""
        return _perceptron((200, 200), features, classes, seed)


class Cnn(Spec):
    """The CNN of McMahan et al. 2017, section 3: two 5 x 5 convolutions; 1,663,370 parameters on MNIST."""

    name: Literal["cnn"] = "cnn"

    def build(self, features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """See `Model.build`; features are (channels, height, width), at least 4 x 4.

        Raises:
            ConfigError: When features are not those of an image.
        """
        if len(features) != 3 or min(features[1:]) < 4:
            raise ConfigError(
                f"model 'cnn' got features of shape {features}; give images (channels, height, width) of "
                "at least 4 x 4, or choose logreg, mlp or 2nn"
            )
        with seeded(key(seed, "model")):
            return _Convolutions(features, classes)


class Custom(Spec):
    """A module of the user's own, made by ``function(features, classes)``."""

    name: Literal["custom"] = "custom"
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    """Where it is, as ``package.module:function``; it must be importable wherever clients are trained."""

    def build(self, features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """See `Model.build`; torch's global generator is seeded by key while the function runs.

        Raises:
            ConfigError: When the function cannot be imported or fails, or its module gives no logits.
        """
        function = _imported(self.function)
        with seeded(key(seed, "model")):
            try:
                module = function(features, classes)
            except Exception as error:
                raise ConfigError(
                    f"model.function {self.function!r} failed on ({features}, {classes}), {_said(error)}; "
                    "it must take (features, classes)"
                ) from error
            if not isinstance(module, nn.Module):
                raise ConfigError(
                    f"model.function {self.function!r} gave {type(module).__name__}; return a torch.nn.Module"
                )
            _probe(module, features, classes, self.function)
        return module


AnyModel = Annotated[Logreg | Mlp | TwoNN | Cnn | Custom, Field(discriminator="name")]


class _Convolutions(nn.Module):
    """Pools before ReLU, which gives the same values and gradients for a quarter of the work."""

    def __init__(self, features: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = features
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.dense1 = nn.Linear(64 * (height // 4) * (width // 4), 512)
        self.dense2 = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = _channels_last(x)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.dense2(F.relu(self.dense1(x.flatten(1))))  # type: ignore[no-any-return] # a module's call is untyped


def _channels_last(x: Tensor) -> Tensor:
    """The same images in the memory order in which convolutions on a CPU run half as long again faster."""
    if x.shape[1] == 1:  # both orders are the same bytes, and only the strides tell which is meant
        height, width = x.shape[2:]
        return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
    return x.contiguous(memory_format=torch.channels_last)


def _perceptron(hidden: tuple[int, ...], features: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    widths = (math.prod(features), *hidden, classes)
    with seeded(key(seed, "model")):
        layers: list[nn.Module] = [nn.Flatten()] if len(features) > 1 else []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def _imported(path: str) -> Callable[[tuple[int, ...], int], object]:
    module, _, names = path.partition(":")
    try:
        found: object = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise ConfigError(
            f"model.function {path!r} cannot be imported, {_said(error)}; "
            "give package.module:function, importable from the folder you start in or installed"
        ) from error
    if not callable(found):
        raise ConfigError(f"model.function {path!r} is {type(found).__name__}; give a function")
    return found


def _said(error: Exception) -> str:
    """An error's name and first line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _probe(module: nn.Module, features: tuple[int, ...], classes: int, path: str) -> None:
    """Refuse a module that does not give logits, or has a parameter on which they do not depend."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    try:
        logits = module(torch.zeros(2, *features))
        if not isinstance(logits, Tensor) or logits.shape != (2, classes):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(
                f"the model of {path!r} gives {shape} for two inputs; give logits of shape {(2, classes)}"
            )
        outputs, inputs = logits.sum(), list(trained.values())
        gradients = torch.autograd.grad(outputs, inputs, allow_unused=True) if inputs else ()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the model of {path!r} failed on inputs of shape {(2, *features)}, {_said(error)}"
        ) from error
    for name, gradient in zip(trained, gradients, strict=True):
        if gradient is None:
            raise ConfigError(f"the model of {path!r} never uses its parameter {name!r}; remove it")
