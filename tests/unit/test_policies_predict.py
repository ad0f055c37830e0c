from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tightwire.arrays import Flat, Floats
from tightwire.codecs.codec import Codec, decode
from tightwire.keys import generator
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.predict import best_within, predict, predict_tensors, shortest_frame
from tightwire.policies.stats import UpdateStats
from tightwire.wire.frame import envelope_length
from tightwire.wire.schema import Schema, TensorSpec
from tightwire_pipelines.capture import capture, load_update

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


def measured(update: Flat, entropy: Entropy, schema: Schema = SCHEMA) -> tuple[Floats, Floats]:
    """Real frame lengths and squared errors over the grid."""
    size, error = np.zeros((len(BITS), len(DENSITIES))), np.zeros((len(BITS), len(DENSITIES)))
    for row, bits in enumerate(BITS):
        for column, density in enumerate(DENSITIES):
            codec = Codec.parse(quantised(bits, density, entropy))
            frame = codec.encode(update, schema, key=row * 100 + column, round=1, client=2).frame
            size[row, column] = len(frame)
            error[row, column] = ((decode(frame, schema).astype(np.float64) - update) ** 2).sum()
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


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Flat, Schema]]:
    folder: Path = tmp_path_factory.mktemp("digits")
    file = folder / "digits.yaml"
    file.write_text(
        "{name: digits, rounds: 3, data: {name: digits}, partition: {name: dirichlet, alpha: 0.5},"
        " model: {name: mlp, hidden: [128, 64]}, training: {epochs: 5, batch: 10, lr: 0.1},"
        " population: {clients: 100}, participation: {cohort: 4}, policy: {name: fixed, codec: uniform(8)}}"
    )
    return [load_update(path) for path in capture(file, (), (1, 3), 2, folder / "updates", Console(quiet=True))]


def test_real_updates_are_predicted_within_3_percent_of_bytes_and_10_percent_of_error(
    captured: list[tuple[Flat, Schema]],
) -> None:
    assert len(captured) == 4
    for update, schema in captured:
        grid = predict(UpdateStats.of(update, schema), BITS, DENSITIES, "rans")
        size, error = measured(update, "rans", schema)
        assert np.median(np.abs(grid.bytes / size - 1)) < 0.03
        assert np.median(np.abs(grid.error / error - 1)) < 0.10
        assert np.percentile(np.abs(grid.bytes / size - 1), 90) < 0.05


@pytest.mark.parametrize("entropy", ["rans", "none"])
@pytest.mark.parametrize("draw", DRAWS)
def test_the_search_finds_what_the_whole_grid_holds(draw: str, entropy: Entropy) -> None:
    stats = UpdateStats.of(update_of(draw), SCHEMA)
    densities = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0)
    grid = predict(stats, BITS, densities, entropy)
    for limit in np.geomspace(50, 4 * SCHEMA.size, 25):
        point = best_within(stats, BITS, densities, entropy, np.full(len(densities), limit))
        fits = grid.bytes <= limit
        assert (point is None) == (not fits.any())
        if point is not None:
            assert point.bytes == pytest.approx(grid.bytes[point.row, point.column], rel=1e-9)
            assert point.error == pytest.approx(grid.error[fits].min(), rel=1e-9)
            assert point.bytes <= limit
            assert point.free == (point.error == pytest.approx(grid.error.min(), rel=1e-9))


def test_the_search_keeps_to_a_limit_of_its_own_at_each_density() -> None:
    stats = UpdateStats.of(update_of("laplace"), SCHEMA)
    grid = predict(stats, BITS, DENSITIES, "rans")
    limits = np.array([1e9, 1e9, 1e9, 2000.0, 1000.0, 0.0])
    point = best_within(stats, BITS, DENSITIES, "rans", limits)
    assert point is not None
    assert point.error == pytest.approx(grid.error[grid.bytes <= limits].min(), rel=1e-9)


def test_tensors_and_what_no_tensor_has_add_up_to_the_frame() -> None:
    stats = UpdateStats.of(update_of("student"), SCHEMA)
    grid, table = predict(stats, BITS, DENSITIES, "rans"), predict_tensors(stats, BITS, DENSITIES, "rans")
    assert table.bytes.shape == (
        5,
        len(BITS),
        len(DENSITIES),
    )  # of seven tensors one is empty, and ten values are plain
    np.testing.assert_allclose(table.error.sum(axis=0), grid.error)
    rest = grid.bytes - table.bytes.sum(axis=0)
    for row, bits in enumerate(BITS):
        for column, density in enumerate(DENSITIES):
            compact = Codec.parse(quantised(bits, density, "rans")).compact
            assert rest[row, column] == pytest.approx(envelope_length(compact) + 4 * 10)


def test_the_shortest_frame_is_that_of_the_whole_grid() -> None:
    stats = UpdateStats.of(update_of("gaussian"), SCHEMA)
    for densities in (DENSITIES, (0.9, 1.0), (1.0,), (0.3,)):
        grid = predict(stats, BITS, densities, "rans")
        assert shortest_frame(stats, BITS, densities, "rans") == pytest.approx(grid.bytes.min(), rel=0.02)
