"""k-means quantisation."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import AnyArray, Flat, Floats
from tightwire.codecs import kernels as base_kernels
from tightwire.codecs import kmeans, kmeans_twins, lloyd_kernels
from tightwire.codecs import kmeans_kernels as kernels
from tightwire.codecs.codec import Codec, decode, decode_add
from tightwire.codecs.kmeans import KMeans
from tightwire.codecs.stage import Layout, Plane
from tightwire.errors import CodecError, FrameError
from tightwire.wire import packing
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Source

LLOYD_MAX = {1: 0.36338, 2: 0.11748, 3: 0.03455, 4: 0.00950}
"""Distortion of the best quantisers of a Gaussian; Max 1960, table I."""
SHAPES = ("gaussian", "heavy-tailed", "few different", "sparse", "huge", "denormal", "far from zero")


def values_of(shape: str, n: int, seed: int = 0) -> Flat:
    random = np.random.default_rng(seed)
    values = random.standard_normal(n)
    match shape:
        case "heavy-tailed":
            values = random.standard_cauchy(n)
        case "few different":
            values = values.round(1)
        case "sparse":
            values *= random.random(n) < 0.05
        case "huge":
            values = random.uniform(-3.4e38, 3.4e38, n)
        case "denormal":
            values *= 1e-42
        case "far from zero":
            values = values * 1e-3 - 7
    return values.astype(np.float32)


def through(line: str, values: Flat) -> Flat:
    schema = Schema.single(values.size)
    return decode(Codec.parse(line).encode(values, schema, key=1, round=0, client=0).frame, schema)


def nmse(decoded: AnyArray, values: Flat) -> float:
    exact = values.astype(np.float64)
    energy = float(np.square(exact).sum())
    return float(np.square(decoded - exact).sum()) / energy if energy else float(decoded.any())


@pytest.mark.parametrize("bits", LLOYD_MAX)
@pytest.mark.parametrize("n", [60_000, 1_000_000])
def test_gaussian_values_are_distorted_as_by_the_best_quantiser(bits: int, n: int) -> None:
    values = values_of("gaussian", n, bits)
    assert nmse(through(f"kmeans({bits})", values), values) == pytest.approx(LLOYD_MAX[bits], rel=0.02)


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_many_levels_are_near_the_asymptotic_distortion(bits: int) -> None:
    """Panter and Dite 1951: sqrt(3) pi / 2 * 4**-bits of the variance of a Gaussian."""
    values = values_of("gaussian", 500_000, bits)
    assert nmse(through(f"kmeans({bits})", values), values) < 1.04 * np.sqrt(3) * np.pi / 2 * 4.0**-bits


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("length", [70_000, 9_000, 300, 70])
def test_every_loop_equals_its_twin_bit_for_bit(shape: str, bits: int, length: int) -> None:
    n = 70_000 if length > 1000 else 3_333
    values = values_of(shape, n)
    length = min(length, n)
    tables, counts = kmeans.fit(Plane.reals(values), length, bits)
    size = kmeans.sample_size(length, bits)
    expected = []
    for start in range(0, n, length):
        part = values[start : start + length]
        points, weights = np.sort(part), np.ones(part.size)
        if part.size > size:
            points, weights = spotted(part, size, 2**bits // 8 + 1)
        expected.append(kmeans_twins.lloyd(points, weights, kmeans.most_centroids(part.size, bits)))
    assert counts.tolist() == [table.size for table in expected]
    np.testing.assert_array_equal(tables.view(np.uint32), np.concatenate(expected).view(np.uint32))

    frame_plane = encoded(values, length, bits, tables, counts)
    starts, thresholds = kmeans.starts_of(counts), kmeans.thresholds_of(tables)
    codes = packing.unpack(frame_plane, n, bits).astype(np.int64)
    np.testing.assert_array_equal(codes, kmeans_twins.assign(values, length, starts, thresholds))
    out = np.empty(n, np.float32)
    split = packing.split(frame_plane, n, bits)
    assert kernels.look_up(*split, bits, length, starts, tables, None, out)
    np.testing.assert_array_equal(out, kmeans_twins.look_up(codes, length, starts, tables))


def spotted(values: Flat, size: int, tail: int) -> tuple[Flat, Floats]:
    points = np.sort(kmeans_twins.sample(values, size))
    first, last = points[tail - 1], points[-tail]
    if (first, last) == (values.min(), values.max()):
        return points, np.ones(size)
    inner = points[(points >= first) & (points <= last)]
    beyond = kmeans_twins.outside(values, first, last, values.size)
    below, above = np.sort(beyond[beyond < first]), np.sort(beyond[beyond > last])
    weight = (values.size - beyond.size) / inner.size
    weights = [np.ones(below.size), np.full(inner.size, weight), np.ones(above.size)]
    return np.concatenate([below, inner, above]), np.concatenate(weights)


def encoded(values: Flat, length: int, bits: int, tables: Flat, counts: AnyArray) -> AnyArray:
    data = packing.empty(values.size, bits)
    thresholds = kmeans.thresholds_of(tables)
    guide = kmeans.guide(thresholds) if counts.size == 1 and counts[0] > 16 else None
    split = packing.split(data, values.size, bits)
    kernels.assign(values, length, kmeans.starts_of(counts), thresholds, guide, bits, *split)
    return data


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 200), spread=st.integers(0, 60))
def test_every_value_gets_the_nearest_centroid_exactly(seed: int, k: int, spread: int) -> None:
    """Whatever the table: some with midpoints that no float32 and not even a float64 holds."""
    random = np.random.default_rng(seed)
    table = np.unique((random.standard_normal(k) * 2.0 ** random.uniform(-spread, spread, k)).astype(np.float32))
    middles = (table[:-1].astype(np.float64) + table[1:]) / 2
    near = middles.astype(np.float32)
    values = np.concatenate([table, near, np.nextafter(near, -np.inf), np.nextafter(near, np.inf), [0]])
    values = np.concatenate([values, random.uniform(table[0], table[-1], 50)]).astype(np.float32)
    data = encoded(values, values.size, 8, table, np.array([table.size]))
    codes = packing.unpack(data, values.size, 8)
    for value, code in zip(values.tolist(), codes.tolist(), strict=True):
        numbers = [as_integer(value), *map(as_integer, table.tolist())]
        distances = [abs(number - numbers[0]) for number in numbers[1:]]
        assert distances[code] == min(distances)


def as_integer(value: float) -> int:
    """A float32 in units of the smallest one, exactly."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * 2**149 // denominator


@pytest.mark.parametrize("shape", ["gaussian", "heavy-tailed", "huge", "denormal"])
def test_a_guide_finds_what_a_search_finds(shape: str) -> None:
    values = values_of(shape, 200_000)
    table = np.unique(values[:256])
    assert kmeans.guide(kmeans.thresholds_of(table)) is not None
    codes = packing.unpack(encoded(values, values.size, 8, table, np.array([table.size])), values.size, 8)
    np.testing.assert_array_equal(codes, np.searchsorted(kmeans.thresholds_of(table)[:-1], values))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [1, 2, 40, 5000, 100_000])
def test_values_that_take_few_different_numbers_are_exact(bits: int, n: int) -> None:
    random = np.random.default_rng(n)
    most = kmeans.most_centroids(n, bits)
    values = random.permutation(np.array([-3e38, 0, 1e-45, 0.1, 7, *range(9, 300)], np.float32))[:most][
        random.integers(0, most, n)
    ]
    np.testing.assert_array_equal(through(f"kmeans({bits})", values), values)
    assert not through(f"kmeans({bits})", np.zeros(n, np.float32)).view(np.uint32).any()
    assert not through(f"kmeans({bits})", np.full(n, -0.0, np.float32)).view(np.uint32).any()


@pytest.mark.parametrize("bits", [2, 6])
def test_a_few_large_values_among_many_are_not_lost_to_the_sample(bits: int) -> None:
    values = values_of("gaussian", 400_000) * np.float32(1e-3)
    values[[5, 123_456, 399_999]] = 10, -20, 20
    assert nmse(through(f"kmeans({bits})", values), values) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_means_never_increase_the_error_beyond_sending_nothing(shape: str) -> None:
    for bits in (1, 2, 5):
        for n in (7, 1000, 20_000):
            values = values_of(shape, n, n)
            assert nmse(through(f"kmeans({bits})", values), values) <= 1 + 1e-6


@pytest.mark.parametrize("n", [2, 10, 100, 1000, 3000])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_table_is_not_larger_than_the_codes_but_for_two_centroids(n: int, bits: int) -> None:
    encoded_ = Codec.parse(f"kmeans({bits}); *: kmeans({bits})").encode(
        values_of("gaussian", n), Schema.single(n), key=1, round=0, client=0
    )
    assert encoded_.sections.codes == packing.packed_length(n, bits)
    assert encoded_.sections.tables <= max(8, encoded_.sections.codes) + 1


def test_buckets_are_coded_as_tensors_of_their_own() -> None:
    values = values_of("heavy-tailed", 10_000)
    for bits in (3, 6):
        parts = [
            through(f"kmeans({bits}); *: kmeans({bits})", part) for part in np.split(values, range(700, 10_000, 700))
        ]
        np.testing.assert_array_equal(through(f"kmeans({bits}, bucket=700)", values), np.concatenate(parts))


@pytest.mark.parametrize(
    "line", ["kmeans(1)", "kmeans(4)", "kmeans(7)", "kmeans(3, bucket=33)", "kmeans(6, bucket=700)"]
)
@pytest.mark.parametrize("n", [1, 33, 16_384 + 1_000])
def test_adding_equals_decoding_and_adding_bit_for_bit(line: str, n: int) -> None:
    values, schema, total = values_of("gaussian", n), Schema.single(n), values_of("gaussian", n, 2)
    frame = Codec.parse(line).encode(values, schema, key=3, round=0, client=0).frame
    expected = total + decode(frame, schema) * np.float32(0.3)
    decode_add(frame, schema, total, weight=0.3)
    np.testing.assert_array_equal(total.view(np.uint32), expected.view(np.uint32))


def test_the_key_changes_nothing() -> None:
    values, schema, codec = values_of("gaussian", 100_000), Schema.single(100_000), Codec.parse("kmeans(5)")
    frames = {codec.encode(values, schema, key=key, round=0, client=0).frame for key in (1, 2)}
    assert len(frames) == 1


def test_the_cube_root_is_near_and_equals_its_twin() -> None:
    for x in [0.0, 5e-324, 1e-90, 0.1, 1.0, 7.9, 8.0, 1e77, *np.random.default_rng(0).exponential(size=100)]:
        assert lloyd_kernels.cube_root(x) == kmeans_twins.cube_root(x)
        assert kmeans_twins.cube_root(x) == pytest.approx(np.cbrt(x), rel=0.01)


@settings(deadline=None, max_examples=100)
@given(left=st.floats(-(2.0**127), 2.0**127, width=32), seed=st.integers(0, 99))
def test_places_grow_with_values(left: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    offset = np.float32(random.random() * 10.0 ** random.integers(-44, 38))
    low, high = np.float32(left), np.nextafter(np.float32(left), np.float32(np.inf))
    assert kernels.place_of(low, offset) <= kernels.place_of(high, offset)
    assert abs(kernels.place_of(low, offset)) < 2**29


def test_impossible_tables_and_codes_are_refused() -> None:
    codes = np.zeros(40, np.uint32)
    for stage, side, chosen, reason in (
        (KMeans(2), bytes([4]) + table(0, 1, 2, 3, 4), codes, "tables"),
        (KMeans(2), bytes([1]) + table(1, 0), codes, "tables"),
        (KMeans(2), bytes([1]) + table(1, 1), codes, "tables"),
        (KMeans(2), bytes([1]) + table(0, np.inf), codes, "non-finite"),
        (KMeans(2), bytes([0]) + table(np.nan), codes, "non-finite"),
        (KMeans(2), bytes([1]) + table(0), codes, "truncated"),
        (KMeans(2), b"", codes, "truncated"),
        (KMeans(2), bytes([1]) + table(0, 1), codes + 2, "codes"),
        (KMeans(8), bytes([9]) + table(*range(10)), codes + 255, "codes"),
        (KMeans(8), bytes([10]) + table(*range(11)), codes, "tables"),
        (KMeans(4, bucket=30), bytes([1, 2]) + table(*range(5)), codes, "tables"),
    ):
        with pytest.raises(FrameError) as error:
            undone(stage, side, chosen)
        assert error.value.reason == reason
    assert undone(KMeans(2), bytes([1]) + table(-1, 1), codes + 1).tolist() == [1] * 40
    assert undone(KMeans(4, bucket=30), bytes([1, 0]) + table(1, 2, -5), codes).tolist() == [1] * 30 + [-5] * 10


def table(*centroids: float) -> bytes:
    return np.array(centroids, np.float32).tobytes()


def undone(stage: KMeans, side: bytes, codes: AnyArray) -> Flat:
    reader = Source(memoryview(side))
    layout, undo = stage.read(Layout("reals", codes.size, 32), reader)
    assert reader.left == 0
    return undo(Plane(layout, packing.pack(codes.astype(np.uint32), stage.bits)), None).data


def test_wrong_arguments_say_what_is_right() -> None:
    for line in ("kmeans(0)", "kmeans(9)"):
        with pytest.raises(CodecError, match="kmeans takes 1 to 8 bits"):
            Codec.parse(line)


def test_samples_come_from_all_of_the_values() -> None:
    values = np.arange(100_000, dtype=np.float32)
    chosen = np.empty(4096, np.float32)
    lloyd_kernels.sample(values, chosen)
    assert (np.diff(chosen) > 0).all()
    assert np.diff(chosen).max() < 50
    low, high = base_kernels.extremes(chosen)
    found = np.empty(100, np.float32)
    ends = base_kernels.group_extremes(values, lloyd_kernels.RUN)
    count = lloyd_kernels.outside(values, ends, low, high, found)
    assert count == values[(values < low) | (values > high)].size


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 5000])
def test_sorting_by_digits_is_sorting(shape: str, n: int) -> None:
    values = values_of(shape, n, 3)
    expected = np.sort(values)
    lloyd_kernels.sort(values)
    np.testing.assert_array_equal(values, expected)


def test_thresholds_are_the_largest_floats_not_beyond_the_middle() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x7F800000, 400, dtype=np.uint32)
    sizes = np.concatenate([bits, np.arange(99, dtype=np.uint32)]).view(np.float32)
    table = np.unique(np.concatenate([sizes, -sizes]))
    found = kmeans.thresholds_of(table)
    assert found[-1] == np.inf
    for left, right, threshold in zip(table[:-1], table[1:], found[:-1], strict=True):
        middle = (Fraction(float(left)) + Fraction(float(right))) / 2
        above = np.nextafter(threshold, np.float32(np.inf))
        assert Fraction(float(threshold)) <= middle
        assert not np.isfinite(above) or Fraction(float(above)) > middle
