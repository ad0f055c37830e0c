import math

import numpy as np
import pytest

from tightwire.arrays import Flat, Floats
from tightwire.codecs import lowrank_kernels
from tightwire.codecs.codec import Codec, decode, decode_add
from tightwire.codecs.lowrank import PowerSGD, TruncatedSVD, balanced, highest
from tightwire.codecs.sparse_twins import folded
from tightwire.codecs.stage import Layout
from tightwire.errors import CodecError, FrameError
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Source, varint


def gaussian(*shape: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def of_rank(rank: int, rows: int, columns: int, decay: float = 1.0) -> Flat:
    strengths = np.float32(decay) ** np.arange(rank, dtype=np.float32)
    return (gaussian(rows, rank, seed=1) * strengths @ gaussian(rank, columns, seed=2)).astype(np.float32)


def through(line: str, matrix: Flat, key: int = 1) -> Flat:
    schema = Schema((TensorSpec("w", matrix.shape),))
    frame = Codec.parse(line).encode(matrix.reshape(-1), schema, key=key, round=0, client=0).frame
    return decode(frame, schema).reshape(matrix.shape)


def error(line: str, matrix: Flat) -> float:
    lost = through(line, matrix).astype(np.float64) - matrix
    return float(np.square(lost).sum() / np.square(matrix, dtype=np.float64).sum())


def tail(matrix: Flat, rank: int) -> float:
    squares = np.square(np.linalg.svd(matrix.astype(np.float64), compute_uv=False))
    return float(squares[rank:].sum() / squares.sum())


def times_rows(matrix: Flat, basis: Flat) -> Floats:
    exact = matrix.astype(np.float64)
    return np.array([[folded(row * vector, lowrank_kernels.LANES) for row in exact] for vector in basis])


def times_columns(matrix: Flat, basis: Flat) -> Floats:
    out = np.zeros((basis.shape[0], matrix.shape[1]))
    for row in range(matrix.shape[0]):
        out += np.outer(basis[:, row].astype(np.float64), matrix[row].astype(np.float64))
    return out


def orthonormalise(vectors: Floats) -> None:
    lanes = lowrank_kernels.LANES
    for at, vector in enumerate(vectors):
        before = math.sqrt(folded(vector * vector, lanes))
        for _ in range(2):
            for other in vectors[:at]:
                vector -= folded(vector * other, lanes) * other
        norm = math.sqrt(folded(vector * vector, lanes))
        vectors[at] = vector / norm if norm > 1e-10 * before else 0.0


def product(left: Flat, right: Flat, real: type[np.floating]) -> Flat:
    out = np.zeros((left.shape[1], right.shape[1]), real)
    for one, other in zip(left.astype(real), right.astype(real), strict=True):
        out += np.outer(one, other)
    largest = np.finfo(np.float32).max
    return np.clip(out, -largest, largest).astype(np.float32).reshape(-1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (130, 65), (5, 1500)])
def test_products_run_in_one_fixed_order(shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape) * np.float32(1e20)
    wide, tall = gaussian(3, shape[1]), gaussian(3, shape[0])
    np.testing.assert_array_equal(lowrank_kernels.times_rows(matrix, wide), times_rows(matrix, wide))
    np.testing.assert_array_equal(lowrank_kernels.times_columns(matrix, tall), times_columns(matrix, tall))
    out = np.empty(matrix.size, np.float32)
    for scale, real in ((1.0, np.float32), (1e30, np.float64)):
        left, right = tall * np.float32(scale), wide * np.float32(scale)
        lowrank_kernels.product(left, right, out, None)
        np.testing.assert_array_equal(out, product(left, right, real))
        assert np.isfinite(out).all()
    total = matrix.reshape(-1).copy()
    lowrank_kernels.product(tall, wide, total, np.float32(0.3))
    np.testing.assert_array_equal(total, matrix.reshape(-1) + product(tall, wide, np.float32) * np.float32(0.3))


def test_vectors_become_orthonormal_and_those_that_others_span_zero() -> None:
    vectors = gaussian(5, 300).astype(np.float64)
    vectors[3] = vectors[0] - 2 * vectors[1]
    vectors[1] = vectors[0] + 1e-6 * vectors[1]
    twin = vectors.copy()
    lowrank_kernels.orthonormalise(vectors)
    orthonormalise(twin)
    np.testing.assert_array_equal(vectors, twin)
    np.testing.assert_allclose(vectors @ vectors.T, np.diag([1, 1, 1, 0, 1]), atol=1e-12)


@pytest.mark.parametrize("line", ["powersgd(3)", "svd(3)", "svd(energy=0.999999)"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e36])
def test_a_matrix_of_low_rank_comes_back(line: str, scale: float) -> None:
    matrix = of_rank(3, 60, 40) * np.float32(scale)
    assert error(line, matrix) < 1e-11


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (64, 3, 3, 3)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_svd_loses_just_the_singular_values_behind_the_rank(shape: tuple[int, ...], rank: int) -> None:
    matrix = gaussian(*shape)
    assert error(f"svd({rank})", matrix) == pytest.approx(tail(matrix.reshape(shape[0], -1), rank), rel=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_svd_takes_the_lowest_rank_that_holds_the_energy(share: float) -> None:
    matrix = of_rank(20, 80, 90, decay=0.7)
    rank = next(rank for rank in range(21) if 1 - tail(matrix, rank) >= share)
    assert error(f"svd(energy={share})", matrix) == pytest.approx(tail(matrix, rank), rel=1e-3)
    schema = Schema((TensorSpec("w", matrix.shape),))
    encoded = Codec.parse(f"svd(energy={share})").encode(matrix.reshape(-1), schema, key=1, round=0, client=0)
    assert encoded.sections.codes == 4 * rank * (80 + 90)
    assert encoded.sections.tables == 1


def test_power_iteration_finds_the_subspace_over_the_rounds() -> None:
    matrix, codec, memory = of_rank(20, 100, 80, decay=0.8), Codec.parse("powersgd(2)"), None
    schema = Schema((TensorSpec("w", matrix.shape),))
    errors = []
    for turn in range(1, 9):
        encoded = codec.encode(matrix.reshape(-1), schema, key=turn, round=turn, client=0, memory=memory)
        memory = encoded.memory
        lost = decode(encoded.frame, schema).reshape(matrix.shape) - matrix
        errors.append(float(np.square(lost).sum() / np.square(matrix).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.05 * tail(matrix, 2)
    assert errors[-1] == pytest.approx(tail(matrix, 2), rel=0.02)


def test_a_round_of_zeros_does_not_cost_the_rank_for_good() -> None:
    codec, memory = Codec.parse("powersgd(2)"), None
    matrix = of_rank(2, 50, 40)
    schema = Schema((TensorSpec("w", matrix.shape),))
    for values in (np.zeros_like(matrix), of_rank(1, 50, 40), matrix):
        encoded = codec.encode(values.reshape(-1), schema, key=3, round=1, client=0, memory=memory)
        memory = encoded.memory
        decoded = decode(encoded.frame, schema).reshape(matrix.shape)
        np.testing.assert_allclose(decoded, values, atol=1e-5)


@pytest.mark.parametrize("line", ["powersgd(2)", "svd(2)", "svd(energy=0.9)"])
def test_what_factors_do_not_shrink_goes_on_unchanged(line: str) -> None:
    for shape in ((50,), (4, 4), (1, 50), (50, 1), (3, 5)):
        values = gaussian(*shape)
        np.testing.assert_array_equal(through(line, values), values)
        assert Codec.parse(line).nominal_bits(Schema((TensorSpec("w", shape),))) >= 32 * values.size
    assert highest(4, 4) == 1
    assert highest(5, 1) == 0
    noise = gaussian(30, 30)
    np.testing.assert_array_equal(through("svd(energy=0.999)", noise), noise)


def test_both_factors_have_the_same_mean_square() -> None:
    left, right = gaussian(3, 20), gaussian(3, 500) * np.float32(1e-3)
    right[2] = 0
    rows = balanced(left, right)
    np.testing.assert_allclose(np.square(rows[:2, :20]).mean(axis=1), np.square(rows[:2, 20:]).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(rows[:2, :20].T @ rows[:2, 20:], left[:2].T @ right[:2], rtol=1e-3, atol=1e-6)
    assert not rows[2].any()


@pytest.mark.parametrize("line", ["powersgd(3)", "svd(3)"])
def test_a_quantiser_may_follow_with_a_scale_for_each_component(line: str) -> None:
    matrix = of_rank(3, 200, 100, decay=0.1)
    assert error(f"{line} | uniform(8, per=channel)", matrix) < 4e-4
    schema = Schema((TensorSpec("w", matrix.shape),))
    encoded = Codec.parse(f"{line} | uniform(8, per=channel)").encode(
        matrix.reshape(-1), schema, key=1, round=0, client=0
    )
    assert encoded.sections.codes == 3 * 300
    total, wanted = gaussian(matrix.size, seed=5), gaussian(matrix.size, seed=5)
    decode_add(encoded.frame, schema, total, weight=0.7)
    np.testing.assert_array_equal(total, wanted + decode(encoded.frame, schema) * np.float32(0.7))


@pytest.mark.parametrize("shape", [(20, 10), (7, 90)])
def test_bounds_hold_for_matrices_with_nothing_to_gain(shape: tuple[int, int]) -> None:
    even = np.zeros(shape, np.float32)
    np.fill_diagonal(even, 1)  # all singular values are equal
    layout = Layout("reals", even.size, 32, shape)
    assert error("svd(2)", even) == pytest.approx(TruncatedSVD(2).bound(layout), abs=1e-6)
    assert error("svd(energy=0.3)", even) <= TruncatedSVD(energy=0.3).bound(layout)
    assert error("powersgd(2)", even) <= PowerSGD(2).bound(layout)
    assert PowerSGD(99).bound(layout) == 0


@pytest.mark.parametrize(
    ("wire", "reason"), [(b"", "truncated"), (varint(14), "tables"), (b"\xff\xff\xff\xff\xff", "length")]
)
def test_impossible_ranks_are_refused(wire: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as found:
        TruncatedSVD(energy=0.5).read(Layout("reals", 800, 32, (40, 20)), Source(memoryview(wire)))
    assert found.value.reason == reason


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("powersgd(0)", "a rank of 1 or more, got 0"),
        ("svd", "a rank or an energy, one of them"),
        ("svd(2, energy=0.5)", "a rank or an energy, one of them"),
        ("svd(0)", "a rank of 1 or more, got 0"),
        ("svd(energy=1.5)", r"an energy in \(0, 1\], got 1.5"),
    ],
)
def test_lines_that_make_no_sense_are_refused(line: str, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        Codec.parse(line)
