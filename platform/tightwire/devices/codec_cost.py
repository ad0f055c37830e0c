"""How long encoding takes on a device: a cost model, calibrated once, and shipped as `codec_cost.json`.

`benchmarks/codec_cost.py` measured every stage on one core, and on the same core a training step on FLASH's batch, from
which the phones' FLOP/s come. So every stage has a price in training FLOPs, and a device is taken to encode as much
slower than that core as it trains slower. This is the assumption here; no device was timed. Nothing is measured while a
simulation runs: a result depends on the constants in the file alone.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType

from tightwire.codecs.chain import Chain
from tightwire.codecs.codec import Codec
from tightwire.codecs.lowrank import PowerSGD, TruncatedSVD, sides
from tightwire.codecs.sketch import CountSketch
from tightwire.codecs.stage import Stage, Tally
from tightwire.codecs.trellis import TrellisCoded
from tightwire.devices.clock import CODEC_FLOPS, compute_seconds
from tightwire.devices.population import Profile
from tightwire.errors import DataError
from tightwire.wire.schema import Schema


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage costs on the core of the calibration."""

    taken: float
    """Nanoseconds for each unit of `work` on the values that it takes."""
    kept: float
    """Nanoseconds besides for each value that it keeps; sparsifiers only."""
    fixed: float
    """Microseconds besides for each tensor."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the measurement script found."""

    machine: str
    """What was measured on, in general words."""
    training_flops: float
    """Sustained FLOP/s of training on that core."""
    frame: float
    """Microseconds for each frame, whatever is in it."""
    stages: Mapping[str, Cost]
    """By the stage as codec lines write it, such as ``rans(adaptive)``, or by its name."""

    @staticmethod
    def read(text: str) -> "Calibration":
        """The calibration that the script wrote as JSON.

        Raises:
            DataError: It is not such a file.
        """
        try:
            tree = json.loads(text)
            fixed = tree["fixed_microseconds"]
            stages = {
                name: Cost(float(cost["pass"]), float(cost["kept"]), float(fixed[name]))
                for name, cost in tree["nanoseconds"].items()
            }
            flops, frame = float(tree["training_flops"]), float(fixed["frame"])
            return Calibration(str(tree["machine"]), flops, frame, MappingProxyType(stages))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"not what benchmarks/codec_cost.py writes: {type(error).__name__}: {error}") from None

    def cost(self, stage: Stage) -> Cost:
        """What a stage costs.

        One that is not in the table, such as a user's own, costs `CODEC_FLOPS` training FLOPs a value for each of its
        `passes`, and nothing besides.
        """
        found = self.stages.get(str(stage)) or self.stages.get(stage.name)
        return found or Cost(stage.passes * CODEC_FLOPS * 1e9 / self.training_flops, 0.0, 0.0)

    def seconds(self, chain: Chain, shape: tuple[int, ...]) -> float:
        """Seconds for which that core encodes a tensor of `shape`, not empty: the sum over the chain's stages."""
        tally = Tally(math.prod(shape), 32.0, shape=shape)
        nanoseconds = 0.0
        for stage in chain.whole:
            after, cost = stage.tally(tally), self.cost(stage)
            nanoseconds += cost.taken * work(stage, tally) + 1000 * cost.fixed
            if stage.family == "sparsifier":
                nanoseconds += cost.kept * after.kept
            tally = after
        return nanoseconds / 1e9


def work(stage: Stage, before: Tally) -> float:
    """Units of work of a stage: the values that it takes, and for some stages more of them.

    Times the rank for `powersgd`, the shorter side of the matrix for `svd`, the rows for `sketch`, and states / 8 for
    `trellis`.

    Args:
        stage: The stage.
        before: What it takes.
    """
    match stage:
        case PowerSGD():
            return before.kept * float(stage.rank)
        case TruncatedSVD():
            return before.kept * float(min(sides(before.shape, before.kept)))
        case CountSketch():
            return before.kept * float(stage.rows)
        case TrellisCoded():
            return before.kept * stage.states / 8
    return float(before.kept)


@cache
def shipped() -> Calibration:
    """The calibration that comes with the library."""
    return Calibration.read(Path(__file__).with_name("codec_cost.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=4096)
def encode_flops(codec: Codec, schema: Schema) -> float:
    """What encoding an update costs, in training FLOPs; for its seconds and its joules on a device.

    Args:
        codec: What encodes.
        schema: Of the update.
    """
    calibration = shipped()
    pieces = (_seconds(piece.chain, piece.part.shape) for piece in codec.pieces(schema))
    return (calibration.frame / 1e6 + math.fsum(pieces)) * calibration.training_flops


@lru_cache(maxsize=4096)
def _seconds(chain: Chain, shape: tuple[int, ...]) -> float:
    return shipped().seconds(chain, shape)


def encode_seconds(codec: Codec, schema: Schema, profile: Profile) -> float:
    """Seconds in which a device encodes an update.

    Args:
        codec: What encodes.
        schema: Of the update.
        profile: The device.
    """
    return compute_seconds(encode_flops(codec, schema), profile)
