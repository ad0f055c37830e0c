import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Flat
from tightwire.codecs import selection_kernels, sparse_kernels
from tightwire.codecs import sparse_twins as twins
from tightwire.codecs.codec import Codec, decode, decode_add
from tightwire.codecs.dgc import DeepGradientCompression
from tightwire.codecs.randk import positions
from tightwire.codecs.selection import kth, select
from tightwire.codecs.sparse import magnitudes
from tightwire.codecs.stage import Context, Layout, Plane, Stage
from tightwire.codecs.stc import SparseTernary
from tightwire.codecs.structured import Structured
from tightwire.codecs.threshold import Threshold
from tightwire.codecs.topk import TopK
from tightwire.errors import CodecError, FrameError
from tightwire.wire.packing import pack, unpack
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Sink, Source


def gaussian(n: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def through(line: str, values: Flat, shape: tuple[int, ...] | None = None, key: int = 1, round: int = 9) -> Flat:
    schema = Schema((TensorSpec("w", shape or (values.size,)),))
    return decode(Codec.parse(line).encode(values, schema, key=key, round=round, client=0).frame, schema)


def energy(values: Flat) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def staged(stage: Stage, plane: Plane, round: int = 0) -> tuple[Plane, bytes]:
    sink = Sink()
    given_plane = stage.encode(plane, sink, Context(7, round))
    return given_plane, b"".join(sink.pieces)


# Selection


KINDS = ("gaussian", "equal", "zeros", "two levels", "striped", "huge and denormal")


def kind_of(kind: str, n: int) -> Flat:
    values = gaussian(n, 3)
    random = np.random.default_rng(4)
    if kind == "equal":
        values[:] = -2.5
    elif kind == "zeros":
        values[random.random(n) < 0.9] = 0
    elif kind == "two levels":
        values = np.where(random.random(n) < 0.3, 2, -1).astype(np.float32)
    elif kind == "striped":
        values[::3] *= 1e6
    elif kind == "huge and denormal":
        values[::2] *= np.float32(1e-42)
        values[1::4] *= np.float32(1e37)
    return values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 100, 9_999, 20_000, 50_000, 99_999])
def test_selection_is_exact_and_takes_the_first_of_equals(kind: str, k: int) -> None:
    values = kind_of(kind, 100_000)
    for found, wanted in zip(select(values, k), twins.select(values, k), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert kth(values.view(np.int32), k) == twins.rank(values.view(np.int32), k)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 500), seed=st.integers(0, 99), levels=st.integers(1, 50))
def test_selection_of_few_values_equals_its_twin(n: int, seed: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(-levels, levels + 1, n).astype(np.float32)
    for k in {1, (n + 1) // 2, n}:
        for found, wanted in zip(select(values, k), twins.select(values, k), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert selection_kernels.rank(values.view(np.int32), k) == twins.rank(values.view(np.int32), k)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.99, 2.0])
def test_what_reaches_a_threshold_is_found_or_there_is_no_room_for_it(n: int, threshold: float) -> None:
    values = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    raw, least = values.view(np.int32), int(np.float32(threshold).view(np.int32))
    wanted = np.flatnonzero(np.abs(values) >= np.float32(threshold))
    assert selection_kernels.counted(raw, np.int32(least))[0] == wanted.size
    for room in (0, 1, 10, n):
        found = selection_kernels.reaching(raw, least, room)
        assert (found is None) == (wanted.size > room)
        if found is not None:
            np.testing.assert_array_equal(found[0], wanted)
            np.testing.assert_array_equal(found[1].view(np.float32), values[wanted])


@pytest.mark.parametrize("n", [1, 64, 100, 1000])
def test_magnitudes_around_a_bracket_are_counted(n: int) -> None:
    raw = np.random.default_rng(n).integers(0, 20, n).astype(np.int32)
    found = selection_kernels.around(raw, 5, 12, n)
    assert found is not None
    above, tops, inside, bottoms = found
    assert (above, tops, bottoms) == ((raw > 12).sum(), (raw == 12).sum(), (raw == 5).sum())
    np.testing.assert_array_equal(inside, raw[(raw > 5) & (raw < 12)])
    assert (selection_kernels.around(raw, 5, 12, 0) is None) == (inside.size > 0)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_selection_keeps_what_is_not_finite(bad: float) -> None:
    values = gaussian(100_000)
    values[77_777] = bad
    chosen, kept = select(values, 1)
    assert chosen.tolist() == [77_777]
    assert not np.isfinite(kept).any()
    for line in ("topk(0.001)", "threshold(3)", "threshold(quantile=0.9)", "dgc(0.001)", "stc(0.01)", "randk(0.01)"):
        with pytest.raises(CodecError, match="finite"):
            through(line, values)


# Other kernels and their twins


@pytest.mark.parametrize("n", [1, 2, 63, 5000])
def test_scattering_equals_its_twin(n: int) -> None:
    values = gaussian(n)
    chosen = np.flatnonzero(np.random.default_rng(n).random(n) < 0.3)
    out = np.full(n, np.nan, np.float32)
    sparse_kernels.place(chosen, values[chosen], out)
    np.testing.assert_array_equal(out, twins.place(chosen, values[chosen], n))
    total = gaussian(n, 1)
    wanted = total + twins.place(chosen, values[chosen], n) * np.float32(0.3)
    sparse_kernels.add(chosen, values[chosen], np.float32(0.3), total)
    np.testing.assert_array_equal(total, wanted)


@pytest.mark.parametrize("zero", [0, 7, 2**31 - 1])
def test_distances_of_codes_equal_their_twin_and_say_which_code_it_was(zero: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**31, 1000).astype(np.uint32)
    codes[:3] = [0, 2**31 - 1, zero]
    wanted = twins.distances(codes, zero)
    found = sparse_kernels.distances(codes.copy(), zero)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(sparse_kernels.at_distances(found, zero), codes)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000])
def test_sums_run_in_one_fixed_order(n: int) -> None:
    values = kind_of("huge and denormal", n)
    assert sparse_kernels.mean_magnitude(values) == twins.mean_magnitude(values)
    for length in (1, 7, 32, 100, n):
        np.testing.assert_array_equal(sparse_kernels.energies(values, length), twins.energies(values, length))


# Top-k and thresholds


CODES = np.array([3, 8, 7, 7, 15, 0, 7, 9, 5, 7], np.uint32)


def codes_plane(bits: int = 4, zero: int = 7) -> Plane:
    return Plane(Layout("ints", CODES.size, bits, zero=zero), pack(CODES, bits))


@pytest.mark.parametrize(
    ("stage", "kept"),
    [
        (TopK(0.2), {4: 15, 5: 0}),
        (TopK(0.4), {0: 3, 4: 15, 5: 0, 7: 9}),
        (TopK(1), dict(enumerate(CODES.tolist()))),
        (Threshold(3.5), {0: 3, 4: 15, 5: 0}),
        (Threshold(100), {4: 15}),
        (Threshold(0), {0: 3, 1: 8, 4: 15, 5: 0, 7: 9, 8: 5}),
        (Threshold(quantile=0.6), {0: 3, 4: 15, 5: 0, 7: 9, 8: 5}),
    ],
)
def test_codes_farthest_from_zero_are_kept_and_the_others_become_zero(stage: Stage, kept: dict[int, int]) -> None:
    plane = codes_plane()
    given_plane, wire = staged(stage, plane)
    assert given_plane.layout == Layout("ints", len(kept), 4, zero=7)
    assert unpack(given_plane.data, len(kept), 4).tolist() == list(kept.values())
    layout, undo = stage.read(plane.layout, Source(memoryview(wire)))
    assert layout == given_plane.layout
    back = undo(given_plane, None)
    assert back.layout == plane.layout
    assert unpack(back.data, CODES.size, 4).tolist() == [kept.get(at, 7) for at in range(CODES.size)]


def test_codes_of_32_bits_are_refused() -> None:
    with pytest.raises(CodecError, match="31 bits or fewer, got 32"):
        magnitudes(codes_plane(32))


def test_topk_of_a_gaussian_leaves_the_energy_of_algorithms_a2() -> None:
    values = gaussian(400_000)
    for density, left in ((0.1, 0.559), (0.01, 0.915), (0.001, 0.988)):
        assert energy(through(f"topk({density})", values) - values) / energy(values) == pytest.approx(left, abs=0.003)


def test_a_threshold_keeps_just_what_reaches_it() -> None:
    values = gaussian(5000)
    np.testing.assert_array_equal(through("threshold(1.5)", values), np.where(np.abs(values) >= 1.5, values, 0))
    np.testing.assert_array_equal(
        through("threshold(99)", values), np.where(np.abs(values) == abs(values).max(), values, 0)
    )
    exact = np.array([0.1, -0.1, 0.0999], np.float32)  # the float32 next to 0.1 is above it
    assert through("threshold(0.1)", exact).tolist() == [exact[0], exact[1], 0]
    sparse = np.where(np.abs(values) > 2, values, 0).astype(np.float32)
    np.testing.assert_array_equal(through("threshold(0)", sparse), sparse)
    assert not through("threshold(0.5)", np.zeros(5, np.float32)).any()


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.99])
def test_a_quantile_keeps_its_share_and_all_that_are_equal(quantile: float) -> None:
    values = gaussian(50_000)
    kept = np.flatnonzero(through(f"threshold(quantile={quantile})", values))
    assert kept.size == pytest.approx((1 - quantile) * values.size, abs=1)
    ties = np.full(1000, 0.5, np.float32)
    ties[:10] = 2
    assert np.count_nonzero(through(f"threshold(quantile={quantile})", ties)) == (1000 if quantile < 0.99 else 10)


# Random positions


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_positions_equal_their_twin_and_are_k_increasing(data: st.DataObject, n: int, seed: int) -> None:
    k = data.draw(st.integers(1, n))
    chosen = positions(n, k, seed)
    np.testing.assert_array_equal(chosen, twins.positions(n, k, seed))
    assert chosen.size == k
    assert (np.diff(chosen) > 0).all()


@pytest.mark.parametrize(("n", "k"), [(40, 4), (40, 30), (1000, 100)])
def test_every_position_and_every_pair_is_drawn_equally_often(n: int, k: int) -> None:
    trials = 4000
    drawn = np.zeros((trials, n))
    for seed in range(trials):
        drawn[seed, positions(n, k, seed)] = 1
    share = k / n
    deviation = math.sqrt(share * (1 - share) / trials)
    assert np.abs(drawn.mean(axis=0) - share).max() < 5 * deviation
    pairs = (drawn[:, : n // 2] * drawn[:, n // 2 : n // 2 * 2]).mean(axis=0)
    both = share * (k - 1) / (n - 1)
    assert np.abs(pairs - both).max() < 5 * math.sqrt(both * (1 - both) / trials)


@pytest.mark.parametrize(("scale", "error"), [("unbiased", 9.0), ("none", 0.9)])
def test_randk_errs_as_its_guarantee_says(scale: str, error: float) -> None:
    values = gaussian(20_000)
    decoded = [through(f"randk(0.1, scale={scale})", values, key=key) for key in range(20)]
    found = np.mean([energy(one - values) for one in decoded]) / energy(values)
    assert found == pytest.approx(error, rel=0.03)
    factor = np.float32(10 if scale == "unbiased" else 1)
    kept = decoded[0] != 0
    assert kept.sum() == 2000
    np.testing.assert_array_equal(decoded[0][kept], values[kept] * factor)


def test_randk_sends_a_seed_and_no_positions() -> None:
    encoded = Codec.parse("randk(0.1)").encode(gaussian(1000), Schema.single(1000), key=1, round=0, client=0)
    assert encoded.sections.indices == 4
    assert encoded.sections.codes == 400
    whole = Codec.parse("randk(1)").encode(gaussian(1000), Schema.single(1000), key=1, round=0, client=0)
    assert whole.sections.indices == 0


# Structured


def test_whole_rows_filters_and_blocks_are_kept() -> None:
    values = gaussian(6 * 4 * 3 * 3).reshape(6, 4, 3, 3)
    values[2] *= 10
    values[4, 1] *= 30
    flat = values.reshape(-1)
    rows = through("structured(rows, 0.3)", flat, values.shape).reshape(values.shape)
    assert np.flatnonzero(rows.any(axis=(1, 2, 3))).tolist() == [2, 4]
    np.testing.assert_array_equal(rows[[2, 4]], values[[2, 4]])
    filters = through("structured(filters, 0.04)", flat, values.shape).reshape(values.shape)
    np.testing.assert_array_equal(filters[4, 1], values[4, 1])
    assert np.count_nonzero(filters) == 9
    blocks = through("structured(blocks, 0.2, block=50)", flat)  # the last of five has 16 values
    assert np.count_nonzero(blocks) == 50


def test_the_last_block_may_be_short_and_kept() -> None:
    values = np.r_[gaussian(100), np.float32(50), np.float32(-60)].astype(np.float32)
    total, schema = gaussian(102, 5), Schema.single(102)
    frame = Codec.parse("structured(blocks, 0.3, block=25)").encode(values, schema, key=1, round=0, client=0).frame
    decoded = decode(frame, schema)
    assert np.flatnonzero(decoded)[-2:].tolist() == [100, 101]
    assert np.count_nonzero(decoded) == 27
    wanted = total + decoded * np.float32(0.5)
    decode_add(frame, schema, total, weight=0.5)
    np.testing.assert_array_equal(total, wanted)


def test_a_bias_has_no_rows_and_is_sent_whole() -> None:
    values = gaussian(50)
    for unit in ("rows", "filters"):
        np.testing.assert_array_equal(through(f"structured({unit}, 0.1)", values), values)
    np.testing.assert_array_equal(through("structured(filters, 0.1)", values, (10, 5)), values)


def test_kept_rows_go_on_as_a_tensor_and_equal_ones_are_taken_from_the_front() -> None:
    plane = Plane.reals(np.ones(60, np.float32), (6, 5, 2))
    given_plane, _ = staged(Structured("rows", 0.5), plane)
    assert given_plane.layout.shape == (3, 5, 2)
    assert np.flatnonzero(through("structured(rows, 0.5)", plane.data, (6, 5, 2))).tolist() == list(range(30))
    assert staged(Structured("filters", 0.1), plane)[0].layout.shape == (3, 2)


# Deep Gradient Compression


def test_dgc_keeps_about_what_it_aims_at_and_the_largest() -> None:
    values = gaussian(300_000)
    for density in (0.1, 0.01, 0.001):
        decoded = through(f"dgc({density})", values)
        kept = decoded != 0
        assert 0.8 * density <= kept.mean() <= 1.3 * density
        np.testing.assert_array_equal(decoded[kept], values[kept])
        assert np.abs(values[kept]).min() > np.abs(values[~kept]).max()


@pytest.mark.parametrize("kind", KINDS)
def test_dgc_keeps_its_bounds_whatever_the_values(kind: str) -> None:
    values = kind_of(kind, 100_000)
    kept = np.count_nonzero(through("dgc(0.01, warmup=0)", values))
    assert 1 <= kept <= 1300


@pytest.mark.parametrize("line", ["dgc(1)", "dgc(1, warmup=0)"])
def test_dgc_of_density_one_keeps_everything_as_it_declares(line: str) -> None:
    values = gaussian(3000)
    np.testing.assert_array_equal(through(line, values), values)


def test_dgc_takes_densities_whose_inverse_overflows() -> None:
    values = gaussian(500)
    kept = np.flatnonzero(through("dgc(1e-320, warmup=0)", values))
    np.testing.assert_array_equal(kept, [np.abs(values).argmax()])


def test_the_warm_up_falls_as_in_the_paper() -> None:
    stage = DeepGradientCompression(0.001)
    densities = [stage.density_of(turn) for turn in range(1, 8)]
    assert densities == pytest.approx([0.25, 0.063, 0.0158, 0.004, 0.001, 0.001, 0.001], rel=0.01)
    assert stage.density_of(0) == densities[0]
    assert DeepGradientCompression(0.001, warmup=0).density_of(1) == 0.001
    values = gaussian(20_000)
    for turn, density in ((1, 0.25), (4, 0.004)):
        assert np.count_nonzero(through("dgc(0.001)", values, round=turn)) == pytest.approx(20_000 * density, rel=0.31)


# Sparse ternary compression


@pytest.mark.parametrize(("density", "ratio"), [(0.1, 56), (0.04, 113), (0.01, 351), (0.0025, 1152), (0.001, 2561)])
def test_stc_compresses_as_much_as_algorithms_a2_says(density: float, ratio: float) -> None:
    n = int(20_000 / density)
    values = np.zeros(n, np.float32)  # independent positions, at which values are large
    values[np.random.default_rng(1).choice(n, 20_000, replace=False)] = 1
    encoded = Codec.parse(f"stc({density})").encode(values, Schema.single(n), key=1, round=0, client=0)
    assert 32 * n / (8 * (encoded.sections.indices + encoded.sections.codes)) == pytest.approx(ratio, rel=0.01)
    assert encoded.sections.scales == 4


def test_the_ternary_magnitude_is_the_mean_of_the_kept_values() -> None:
    values = np.array([0.1, -3, 0.2, 5, 0], np.float32)
    assert through("stc(0.4)", values).tolist() == [0, -4, 0, 4, 0]
    assert through("stc(0.2)", values).tolist() == [0, 0, 0, 5, 0]
    big = np.full(100, 3.4e38, np.float32)
    np.testing.assert_array_equal(through("stc(0.5)", big)[:50], big[:50])


@pytest.mark.parametrize("density", [0.01, 0.2, 0.7, 1.0])
def test_the_bound_of_stc_is_reached_by_one_value_or_by_equal_ones(density: float) -> None:
    n = 200
    one = np.zeros(n, np.float32)
    one[7] = 1
    errors = [
        energy(through(f"stc({density})", values) - values) / energy(values) for values in (one, np.ones_like(one))
    ]
    assert max(errors) == pytest.approx(SparseTernary(density).bound(Layout("reals", n, 32)), abs=1e-6)


# What a receiver refuses, and what a line may say


@pytest.mark.parametrize(
    ("stage", "wire", "reason"),
    [
        (Threshold(1.0), b"\x00", "indices"),
        (Threshold(1.0), b"\x65", "indices"),
        (Threshold(1.0), b"\x80\x80\x80\x80\x80\x01", "length"),
        (DeepGradientCompression(0.1), b"\x00", "indices"),
        (SparseTernary(0.01), b"\x01\x00\x00\x00\x80\x7f", "non-finite"),
        (SparseTernary(0.01), b"\x01\x00\x00\x00\x80\xbf", "scales"),
        (SparseTernary(0.01), b"\x01\x00\x00\x00", "truncated"),
        (Structured("blocks", 0.5), b"\x01", "truncated"),
        (Structured("blocks", 0.5, block=10), b"\x00\x0f\x00", "indices"),
    ],
)
def test_impossible_side_information_is_refused(stage: Stage, wire: bytes, reason: str) -> None:
    with pytest.raises(FrameError) as error:
        stage.read(Layout("reals", 100, 32), Source(memoryview(wire)))
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("topk(0)", r"topk takes a density in \(0, 1\], got 0"),
        ("randk(2)", r"randk takes a density in \(0, 1\], got 2"),
        ("dgc(nan)", "dgc takes a density"),
        ("dgc(0.1, warmup=-1)", "0 rounds or more, got -1"),
        ("stc(-1)", "stc takes a density"),
        ("structured(rows, 0)", "structured takes a density"),
        ("structured(blocks, 0.1, block=0)", "1 value or more, got 0"),
        ("threshold", "a value or a quantile, one of them"),
        ("threshold(1, quantile=0.5)", "a value or a quantile, one of them"),
        ("threshold(-1)", "from 0 to 3.40282e[+]38, got -1"),
        ("threshold(quantile=1)", r"a quantile in \[0, 1\), got 1"),
        ("qsgd(4) | stc(0.1)", "takes real values"),
    ],
)
def test_lines_that_make_no_sense_are_refused(line: str, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        Codec.parse(line)


def test_quantise_then_sparsify_then_code() -> None:
    values = gaussian(20_000)
    decoded = through("uniform(4) | topk(0.1) | rans", values)
    largest = np.zeros(values.size, bool)
    largest[select(values, 100)[0]] = True
    assert np.abs(decoded[largest] - values[largest]).max() < np.ptp(values) / 15
    assert np.unique(decoded, return_counts=True)[1].max() == 18_000
