from collections.abc import Callable

import numpy as np
import pytest

from tightwire.arrays import Flat, Floats
from tightwire.codecs.codec import Codec, decode
from tightwire.keys import generator
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.predict import predict
from tightwire.policies.stats import UpdateStats
from tightwire.wire.schema import Schema, TensorSpec

SCHEMA = Schema(
    tuple(
        TensorSpec(f"t{i}", shape)
        for i, shape in enumerate([(784, 20), (20,), (0, 3), (20, 20), (20,), (20, 10), (10,)])
    )
)
BITS = (1, 2, 3, 4, 6, 8, 12)
DENSITIES = (0.001, 0.01, 0.0631, 0.2, 0.501, 1.0)

DRAWS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "gaussian": lambda rng: rng.standard_normal(SCHEMA.size),
    "laplace": lambda rng: rng.laplace(size=SCHEMA.size),
    "student": lambda rng: rng.standard_t(3, SCHEMA.size),
    "heavy": lambda rng: rng.standard_t(2, SCHEMA.size),
    "one-sided": lambda rng: rng.exponential(size=SCHEMA.size),
    "half zero": lambda rng: rng.standard_normal(SCHEMA.size) * (rng.random(SCHEMA.size) < 0.5),
}


def update_of(draw: str) -> Flat:
    rng = generator(0, draw)
    scales = np.repeat(rng.uniform(1e-5, 1e-3, len(SCHEMA.tensors)), [tensor.size for tensor in SCHEMA.tensors])
    return (DRAWS[draw](rng) * scales).astype(np.float32)


def measured(update: Flat, entropy: Entropy) -> tuple[Floats, Floats]:
    """Real frame lengths and squared errors over the grid."""
    size, error = np.zeros((len(BITS), len(DENSITIES))), np.zeros((len(BITS), len(DENSITIES)))
    for row, bits in enumerate(BITS):
        for column, density in enumerate(DENSITIES):
            codec = Codec.parse(quantised(bits, density, entropy))
            frame = codec.encode(update, SCHEMA, key=row * 100 + column, round=1, client=2).frame
            size[row, column] = len(frame)
            error[row, column] = ((decode(frame, SCHEMA).astype(np.float64) - update) ** 2).sum()
    return size, error


@pytest.mark.parametrize("entropy", ["rans", "none"])
@pytest.mark.parametrize("draw", DRAWS)
def test_predicted_bytes_and_error_are_those_of_real_frames(draw: str, entropy: Entropy) -> None:
    update = update_of(draw)
    grid = predict(UpdateStats.of(update, SCHEMA), BITS, DENSITIES, entropy)
    size, error = measured(update, entropy)
    assert np.median(np.abs(grid.bytes / size - 1)) < 0.01
    np.testing.assert_allclose(grid.bytes, size, rtol=0.06)
    assert np.median(np.abs(grid.error / error - 1)) < 0.02
    assert np.percentile(np.abs(grid.error / error - 1), 90) < 0.1


@pytest.mark.parametrize("draw", ["gaussian", "heavy"])
def test_packed_bytes_are_exact_where_every_value_is_kept(draw: str) -> None:
    update = update_of(draw)
    grid = predict(UpdateStats.of(update, SCHEMA), BITS, (1.0,), "none")
    for row, bits in enumerate(BITS):
        frame = Codec.parse(f"uniform({bits})").encode(update, SCHEMA, key=1, round=1, client=2).frame
        assert grid.bytes[row, 0] == len(frame)


def test_zeros_are_predicted_to_come_through_unharmed() -> None:
    grid = predict(UpdateStats.of(np.zeros(SCHEMA.size, np.float32), SCHEMA), BITS, DENSITIES, "rans")
    np.testing.assert_array_equal(grid.error, 0)
    assert np.isfinite(grid.bytes).all()


def test_widths_beyond_the_entropy_coder_are_predicted_as_packed() -> None:
    update = update_of("laplace")
    grid = predict(UpdateStats.of(update, SCHEMA), (13, 16), (1.0,), "rans")
    for row, bits in enumerate((13, 16)):
        frame = Codec.parse(f"uniform({bits}) | rans").encode(update, SCHEMA, key=1, round=1, client=2).frame
        assert grid.bytes[row, 0] == len(frame)
