"""Accuracy by device tier: how well the final model serves what each tier's clients see.

A tier's accuracy is that on the test set, with each class weighted by its share in the training samples of the tier's
clients. It is measured on unseen samples, and tells tiers apart as far as the partition made their classes differ.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from tightwire import config as configs
from tightwire.arrays import Flat, Floats
from tightwire.config import Experiment
from tightwire.federation.tables import write_atomically
from tightwire.learning.flat import FlatModel
from tightwire.learning.samples import FederatedData
from tightwire.learning.training import evaluate
from tightwire.simulation import load_data
from tightwire.studies.reading import TIER_ACCURACY
from tightwire.tracking.folder import RunFolder
from tightwire.tracking.summary import read_digest


def measure(folder: Path, data: FederatedData | None = None) -> dict[str, float]:
    """Accuracy of a finished run's final model by device tier, and keep it in the run's folder.

    Args:
        folder: The run's folder.
        data: The run's data, where somebody has them loaded.

    Returns:
        Accuracy in [0, 1] by tier; nothing for tiers without samples.

    Raises:
        TightwireError: The run has no config, summary or data that can be read.
        OSError: The run has no model, or the folder cannot be written.
    """
    run = RunFolder.open(folder)
    config = configs.load(run.config)
    data = data or load_data(config)
    model = FlatModel(config.model.build(data.features, data.classes, config.seed))
    recalls = _recalls(model, _flat(run.model, model), data)
    held = _held(config, data)
    accuracy = {tier: float(shares @ recalls / shares.sum()) for tier, shares in held.items() if shares.sum() > 0}
    content = {"digest": read_digest(run.summary), "accuracy": accuracy}
    write_atomically(run.path / TIER_ACCURACY, json.dumps(content, indent=2) + "\n")
    return accuracy


def measure_if_possible(folder: Path) -> dict[str, float]:
    """As `measure`; nothing where data, model or the user's own code fail, or the folder is read-only."""
    try:
        return measure(folder)
    except Exception:  # a report goes without, whatever a damaged model or somebody's own code raises
        return {}


def _recalls(model: FlatModel, flat: Flat, data: FederatedData) -> Floats:
    """Share of the test samples of each class that the model gets right, shape (classes,); 0 for a class without."""
    x, y = data.test
    recalls = np.zeros(data.classes)
    for label in range(data.classes):
        mine = np.flatnonzero(y == label)
        if len(mine):
            _, recalls[label] = evaluate(model, flat, x[mine], y[mine])
    return recalls


def _held(config: Experiment, data: FederatedData) -> dict[str, Floats]:
    """Training samples of each class, shape (classes,), that a tier's clients hold and the test set has."""
    tested = np.bincount(data.test[1], minlength=data.classes) > 0
    held: dict[str, Floats] = {}
    for client in np.flatnonzero(data.sizes):
        tier = config.population.profile(int(client), config.seed).tier
        _, labels = data.shard(int(client))
        counts = np.bincount(labels, minlength=data.classes) * tested
        held[tier] = held.get(tier, np.zeros(data.classes)) + counts
    return held


def _flat(path: Path, model: FlatModel) -> Flat:
    tensors: Mapping[str, np.ndarray] = safetensors.numpy.load_file(path)
    return np.concatenate([tensors[tensor.name].ravel() for tensor in model.schema.tensors]).astype(np.float32)
