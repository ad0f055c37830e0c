"""Datasets that an experiment file can name, each loaded into a `FederatedData`."""

import gzip
import importlib.util
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tightwire.arrays import AnyArray
from tightwire.errors import DataError
from tightwire.learning import idx
from tightwire.learning.partition import AnyPartition
from tightwire.learning.samples import Divided, Samples, checked, hold_out
from tightwire.learning.synthetic import Synthetic
from tightwire.spec import Spec


class Digits(Spec):
    """The 1,797 handwritten digits bundled with scikit-learn: 8 x 8 pixels in [0, 1], 10 classes.

    Every fifth sample of each class is the test set, whatever the seed: 1,442 to train on, 355 to test with.
    """

    name: Literal["digits"] = "digits"

    def load(self, seed: int, clients: int, partition: AnyPartition) -> Divided:
        """The digits divided among `clients`; features (1, 8, 8).

        Raises:
            ConfigError: When the partition cannot divide them.
        """
        rows = _digits()
        samples = checked((rows[:, :-1] / 16).reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64), "digits")
        return _divided(*hold_out(samples), seed, clients, partition)


@cache  # a study's trials in one process would each take a tenth of a second
def _digits() -> AnyArray:
    """scikit-learn's file of digits, 64 pixels and a label a row, without its import, which takes seconds.

    Raises:
        DataError: It is not where scikit-learn keeps it.
    """
    found = importlib.util.find_spec("sklearn")
    places = [] if found is None else found.submodule_search_locations or []
    for place in places:
        file = Path(place, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            with gzip.open(file) as lines:
                return np.loadtxt(lines, delimiter=",")
    raise DataError("digits: scikit-learn, which brings them, is not installed whole; reinstall scikit-learn")


class Idx(Spec):
    """Images in IDX form, as MNIST and its relatives come: bytes become numbers in [0, 1].

    The four files (train and t10k or test, images and labels, plain or ``.gz``) lie in `folder` or in the
    torchvision layout below it, such as ``MNIST/raw``.
    """

    name: Literal["idx", "mnist"] = "idx"
    folder: Path
    """Where the files are; ``~`` is the home folder."""

    def load(self, seed: int, clients: int, partition: AnyPartition) -> Divided:
        """The images divided among `clients`; features (1, height, width).

        Raises:
            DataError: When files are missing, damaged, or do not fit one another.
            ConfigError: When the partition cannot divide them.
        """
        files = idx.find(self.folder.expanduser())
        train = _images(files.train_images, files.train_labels)
        test = _images(files.test_images, files.test_labels)
        _same_features(train, test, str(files.test_images))
        return _divided(train, test, seed, clients, partition)


class Npz(Spec):
    """Arrays of a NumPy ``.npz`` file: x (samples, features...), y (samples,), and x_test and y_test if any.

    x of uint8 stands for x / 255; other numbers are taken as they are. Without x_test, every fifth sample of
    each class is the test set. Pickled objects are refused.
    """

    name: Literal["npz"] = "npz"
    path: Path
    """The file; ``~`` is the home folder."""

    def load(self, seed: int, clients: int, partition: AnyPartition) -> Divided:
        """The samples divided among `clients`; features as in x.

        Raises:
            DataError: When the file is missing or damaged, or its arrays do not fit.
            ConfigError: When the partition cannot divide them.
        """
        path = self.path.expanduser()
        arrays = _arrays(path)
        train = checked(arrays["x"], arrays["y"], f"{path}: x, y")
        if "x_test" not in arrays:
            train, test = hold_out(train)
            if len(test.y) == 0:
                raise DataError(
                    f"{path}: {len(train.y)} samples are too few to keep a test set; give x_test and y_test"
                )
        else:
            test = checked(arrays["x_test"], arrays["y_test"], f"{path}: x_test, y_test")
            _same_features(train, test, f"{path}: x_test")
        return _divided(train, test, seed, clients, partition)


AnyData = Annotated[Digits | Idx | Synthetic | Npz, Field(discriminator="name")]


def _divided(train: Samples, test: Samples, seed: int, clients: int, partition: AnyPartition) -> Divided:
    classes = int(max(train.y.max(), test.y.max())) + 1
    return Divided(train, test, partition.split(train.y, clients, seed), classes)


def _images(images: Path, labels: Path) -> Samples:
    x = idx.read(images)
    if x.ndim != 3:
        raise DataError(f"{images}: images of shape {x.shape}; give (samples, height, width)")
    return checked(x[:, np.newaxis], idx.read(labels), f"{images} with {labels.name}")


def _same_features(train: Samples, test: Samples, where: str) -> None:
    if train.x.shape[1:] != test.x.shape[1:]:
        raise DataError(
            f"{where}: test inputs of shape {test.x.shape[1:]} but training inputs of {train.x.shape[1:]}; "
            "make them the same"
        )


def _arrays(path: Path) -> dict[str, AnyArray]:
    """The arrays of an .npz file by name, the tests' both or neither."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give an .npz file with arrays x and y")
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: not an .npz file; save one with numpy.savez(path, x=..., y=...)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as members:
                arrays: dict[str, AnyArray] = {
                    name: members[name] for name in ("x", "y", "x_test", "y_test") if name in members.files
                }
                names = ", ".join(members.files) or "nothing"
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        said = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read, {said}; save plain arrays x and y anew") from error
    if "x" not in arrays or "y" not in arrays or ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path}: holds {names}; give x and y, and x_test and y_test both or neither")
    return arrays
