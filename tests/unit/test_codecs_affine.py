import math
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs.affine import AffineStage
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.qsgd import QSGD
from tightwire.codecs.signs import OneBit, Sign
from tightwire.codecs.stage import Context, Layout, Plane
from tightwire.codecs.ternary import TernGrad
from tightwire.codecs.uniform import Uniform
from tightwire.errors import CodecError, FrameError
from tightwire.wire.packing import pack, unpack
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Sink, Source


def gaussian(n: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(n, np.float32)


def encoded(
    stage: AffineStage, values: Flat, shape: tuple[int, ...] = (), key: int = 1, memory: Flat | None = None
) -> tuple[Plane, bytes, Context]:
    sink, context = Sink(), Context(key, memory=memory)
    plane = stage.encode(Plane.reals(values, shape), sink, context)
    return plane, b"".join(sink.pieces), context


def codes_of(stage: AffineStage, values: Flat, key: int = 1) -> AnyArray:
    plane = encoded(stage, values, key=key)[0]
    return unpack(plane.data, plane.layout.count, plane.layout.bits).astype(np.int64)


def through(
    stage: AffineStage, values: Flat, shape: tuple[int, ...] = (), key: int = 1, memory: Flat | None = None
) -> Flat:
    plane, scales, _ = encoded(stage, values, shape, key, memory)
    layout, undo = stage.read(Layout("reals", values.size, 32, shape), Source(memoryview(scales)))
    assert layout == plane.layout
    restored: Flat = undo(plane, None).data
    return restored


def error(stage: AffineStage, values: Flat, draws: int = 4) -> float:
    """Mean NMSE over keys."""
    exact = values.astype(np.float64)
    lost = [np.sum((through(stage, values, key=key) - exact) ** 2) for key in range(draws)]
    return float(np.mean(lost) / np.sum(exact**2))


# Reference values: shared notes "Algorithms", table A.2, computed there for Gaussian values and large n.


@pytest.mark.parametrize(("levels", "reference"), [(256, 0.167), (16, 11.8)])
def test_qsgd_has_the_variance_of_the_reference(levels: int, reference: float) -> None:
    assert error(QSGD(levels=levels), gaussian(65_536)) == pytest.approx(reference, rel=0.02)


def test_qsgd_with_one_level_keeps_as_many_as_the_reference() -> None:
    values = gaussian(65_536)
    kept = [np.count_nonzero(codes_of(QSGD(levels=1), values, key=key) != 1) for key in range(40)]
    assert np.mean(kept) == pytest.approx(math.sqrt(2 * 65_536 / math.pi), abs=5 * math.sqrt(204 / 40))


def test_qsgd_under_rans_takes_its_entropy_of_the_reference() -> None:
    # algorithms A.2: entropy 2.157 bits a value at s = sqrt(n), where Elias codes take 2.755
    frame = Codec.parse("qsgd(levels=256) | rans").encode(
        gaussian(65_536), Schema.single(65_536), key=1, round=0, client=0
    )
    assert 8 * len(frame.frame) / 65_536 == pytest.approx(2.157, rel=0.015)


@pytest.mark.parametrize(("bits", "reference"), [(2, 1.58), (4, 0.036), (8, 0.00011)])
def test_qsgd_of_max_norm_buckets_has_the_error_of_the_reference(bits: int, reference: float) -> None:
    # s = 2**(bits - 1) - 1 levels above 0, so 1, 7 and 127, give those numbers; s = 2**(bits - 1) would not.
    assert error(QSGD(bits, norm="max", bucket=512), gaussian(2**18)) == pytest.approx(reference, rel=0.03)


@pytest.mark.parametrize(("bits", "reference"), [(1, 15.5), (2, 1.28), (4, 0.049), (8, 0.0002)])
def test_uniform_has_the_error_of_the_reference(bits: int, reference: float) -> None:
    values = gaussian(65_536).astype(np.float64)
    # The reference is one draw, and the range of Gaussian values varies; given the range the error is known.
    step = (values.max() - values.min()) / (2**bits - 1)
    part = (values - values.min()) / step % 1
    found = error(Uniform(bits), values.astype(np.float32))
    assert found == pytest.approx(float(np.mean(part * (1 - part)) * step**2 / np.mean(values**2)), rel=0.03)
    assert found == pytest.approx(reference, rel=0.25)


@pytest.mark.parametrize(("clip", "reference", "density"), [(0.0, 2.3, 0.19), (2.5, 1.0, 0.32)])
def test_terngrad_has_the_error_and_density_of_the_reference(clip: float, reference: float, density: float) -> None:
    values = gaussian(2**15)
    largest = min(np.abs(values).max(), clip * values.std() or np.inf)
    cut = np.clip(values.astype(np.float64), -largest, largest)
    known = (np.sum((values - cut) ** 2) + np.sum(largest * abs(cut) - cut**2)) / np.sum(values.astype(float) ** 2)
    found = error(TernGrad(clip), values)
    assert found == pytest.approx(float(known), rel=0.02)
    assert found == pytest.approx(reference, rel=0.1)
    assert np.mean(codes_of(TernGrad(clip), values) != 1) == pytest.approx(density, abs=0.01)


def test_scaled_sign_has_the_error_of_the_reference() -> None:
    assert error(Sign(), gaussian(2**20)) == pytest.approx(0.3634, abs=0.002)
    assert error(OneBit(), gaussian(2**20)) == pytest.approx(0.3634, abs=0.002)


@pytest.mark.parametrize("line", ["uniform(4)", "uniform(4, form=symmetric)", "qsgd(4)", "qsgd(4, bucket=512)"])
def test_scales_and_metadata_are_below_two_percent_of_a_four_bit_frame(line: str) -> None:
    schema = Schema.single(100_000)
    sections = Codec.parse(line).encode(gaussian(100_000), schema, key=1, round=0, client=0).sections
    assert sections.codes == 50_000
    assert sections.total - sections.codes < 0.02 * sections.total


SIZES = [
    (Uniform(3), 8, 3),
    (Uniform(levels=5), 8, 3),
    (Uniform(levels=65_536), 8, 16),
    (Uniform(5, form="symmetric"), 4, 5),
    (Uniform(4, per="channel"), 8 * 37, 4),
    (Uniform(4, form="symmetric", bucket=100), 4 * 10, 4),
    (Uniform(4, "nearest", range="fitted", bucket=100), 8 * 10, 4),
    (QSGD(4), 4, 4),
    (QSGD(levels=16), 4, 6),
    (QSGD(levels=7), 4, 4),
    (TernGrad(per="channel"), 4 * 37, 2),
    (Sign(bucket=999), 4, 1),
    (OneBit(bucket=998), 16, 1),
]


@pytest.mark.parametrize(("stage", "side", "bits"), SIZES, ids=lambda part: str(part))
def test_size_is_exact_and_as_tallied(stage: AffineStage, side: int, bits: int) -> None:
    plane, scales, _ = encoded(stage, gaussian(999), (37, 27))
    assert len(scales) == side
    assert plane.layout.bits == bits
    assert plane.data.size == math.ceil(999 * bits / 8)
    line = Codec.parse(str(stage))
    assert line.nominal_bits(Schema((TensorSpec("w", (37, 27)),))) == 8 * side + bits * 999


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_symmetric_levels_are_odd_and_hold_zero_and_both_ends_exactly(rounding: str) -> None:
    for bits in (2, 3, 4, 8, 16):
        stage = Uniform(bits, rounding=rounding, form="symmetric")  # type: ignore[arg-type]  # one of its literals
        values = np.array([0, -0.7, 0.7, 1e-3, 0], np.float32)
        codes = codes_of(stage, values)
        middle = 2 ** (bits - 1) - 1
        assert codes[[0, 1, 2, 4]].tolist() == [middle, 0, 2 * middle, middle]
        assert encoded(stage, values)[0].layout.zero == middle
        restored = through(stage, values)
        np.testing.assert_allclose(restored[1:3], [-0.7, 0.7], rtol=1e-6)
        assert restored[0] == restored[4] == 0


@pytest.mark.parametrize("shape", [(), (40, 25)])
@pytest.mark.parametrize(
    "stage",
    [
        Uniform(4),
        Uniform(4, rounding="floor"),
        Uniform(levels=11, rounding="nearest"),
        Uniform(4, "nearest", range="fitted"),
    ],
)
def test_the_code_for_zero_is_the_nearest_one(stage: Uniform, shape: tuple[int, ...]) -> None:
    for shift in (0.0, 2.0, 50.0, -50.0):
        values = gaussian(1000) + np.float32(shift)
        plane, scales, _ = encoded(stage, values, shape)
        affine = stage.affine(np.frombuffer(scales, np.float32).reshape(1, 2), 1000)
        levels = affine.base + np.arange(stage.count) * affine.step
        assert plane.layout.zero == np.argmin(abs(levels))


def test_only_where_groups_share_it_is_there_a_code_for_zero() -> None:
    for stage, has in ((Uniform(4), True), (Uniform(4, bucket=9), False), (Uniform(4, per="channel"), False)):
        assert stage.has_zero == has
        assert (encoded(stage, gaussian(100), (10, 10))[0].layout.zero is not None) == has
    for other, has in (
        (Uniform(4, form="symmetric", bucket=9), True),
        (QSGD(4, bucket=9), True),
        (TernGrad(), True),
        (Sign(), False),
        (OneBit(), False),
    ):
        assert other.has_zero == has


def test_floor_takes_the_cell_and_restores_its_middle() -> None:
    stage = Uniform(3, rounding="floor")
    values = np.array([-1, -0.76, -0.74, 0, 0.49, 0.99, 1], np.float32)
    assert codes_of(stage, values).tolist() == [0, 0, 1, 4, 5, 7, 7]
    np.testing.assert_allclose(through(stage, values), [-0.875, -0.875, -0.625, 0.125, 0.375, 0.875, 0.875], atol=1e-6)


def test_levels_are_as_many_as_asked_for() -> None:
    for levels in (2, 3, 11, 4097):
        codes = codes_of(Uniform(levels=levels, rounding="nearest"), np.linspace(-2, 5, 20_000, dtype=np.float32))
        assert np.unique(codes).size == levels
        assert codes.max() == levels - 1
    for s in (1, 5, 100):
        codes = codes_of(QSGD(levels=s, norm="max"), np.linspace(-2, 2, 20_000, dtype=np.float32))
        assert np.unique(codes).tolist() == list(range(2 * s + 1))


@pytest.mark.parametrize("form", ["affine", "symmetric"])
def test_a_static_range_follows_the_rounds_and_cuts_what_is_outside(form: str) -> None:
    stage = Uniform(4, form=form, range="static")  # type: ignore[arg-type]  # one of its literals
    rounds = [np.array([-1, 0, 2], np.float32) * np.float32(scale) for scale in (1, 3, 0.5)]
    own = [np.array([-1, 2] if form == "affine" else [2], np.float64) * scale for scale in (1, 3, 0.5)]
    running, memory = own[0], None
    for position, (values, extent) in enumerate(zip(rounds, own, strict=True)):
        _, scales, context = encoded(stage, values, memory=memory)
        np.testing.assert_allclose(np.frombuffer(scales, np.float32), running, rtol=1e-6)
        restored = through(stage, values, memory=memory)
        assert abs(restored.max() - min(values.max(), running[-1])) <= np.ptp(running) / 15 + running[-1] / 7
        if position:
            running = 0.9 * running + 0.1 * extent
        memory = context.left
        assert memory is not None
        np.testing.assert_allclose(memory, running, rtol=1e-6)
        np.testing.assert_array_equal(through(stage, np.zeros(3, np.float32), memory=memory), np.zeros(3))
    assert encoded(stage, gaussian(5), memory=np.ones(7, np.float32))[2].left is not None


def test_a_static_range_that_leaves_everything_outside_still_decodes() -> None:
    memory = np.array([-1e-3, 1e-3], np.float32)
    values = np.array([3.4e38, -3.4e38, 0, 1], np.float32)
    restored = through(Uniform(4, range="static"), values, memory=memory)
    np.testing.assert_allclose(restored[[0, 1, 3]], [1e-3, -1e-3, 1e-3], rtol=1e-5)
    for extreme in ([0, 0], [-3e38, 3e38], [3e38, 3.1e38], [-1e-45, 0]):
        assert np.isfinite(through(Uniform(4, range="static"), values, memory=np.array(extreme, np.float32))).all()


@pytest.mark.parametrize("form", ["affine", "symmetric"])
@pytest.mark.parametrize("levels", [3, 15, 1001])
def test_a_fitted_range_has_the_codes_of_the_nearest_levels_and_the_values_of_least_squares(
    levels: int, form: Literal["affine", "symmetric"]
) -> None:
    plain = Uniform(levels=levels, rounding="nearest", form=form)
    fitted = replace(plain, range="fitted")
    for values in (gaussian(9000), gaussian(9000) ** 3 + 2, np.exp(gaussian(9000)), gaussian(33) * np.float32(1e-44)):
        np.testing.assert_array_equal(encoded(fitted, values)[0].data, encoded(plain, values)[0].data)
        codes, exact = codes_of(plain, values).astype(np.float64), values.astype(np.float64)
        columns = [codes, np.ones_like(codes)] if form == "affine" else [codes - levels // 2]
        design = np.stack(columns, axis=1)
        wanted = design @ np.linalg.lstsq(design, exact)[0]
        np.testing.assert_allclose(through(fitted, values), wanted, rtol=1e-5, atol=1e-6 * abs(exact).max() + 2e-45)
        assert error(fitted, values, 1) <= error(plain, values, 1) * (1 + 1e-6)


def test_a_fitted_range_loses_less_than_its_own_range_and_under_rans_is_where_even_levels_can_be() -> None:
    # At high rates that is 0.2546 bit above the rate-distortion bound (Gish and Pierce 1968); the coder adds to it.
    values, schema = gaussian(2**18), Schema.single(2**18)
    frame = Codec.parse("uniform(levels=13, rounding=nearest, range=fitted) | rans").encode(
        values, schema, key=1, round=0, client=0
    )
    lost = error(Uniform(levels=13, rounding="nearest", range="fitted"), values, 1)
    assert lost < 0.96 * error(Uniform(levels=13, rounding="nearest"), values, 1)
    assert 8 * len(frame.frame) / values.size + 0.5 * math.log2(lost) < 0.2546 + 0.01


def test_a_fitted_range_of_what_cannot_be_fitted_is_its_own() -> None:
    most = np.finfo(np.float32).max
    ends = np.array([-most, -most, most, most * np.float32(0.6), most * np.float32(0.6)], np.float32)
    for form in ("affine", "symmetric"):
        plain = Uniform(levels=3, rounding="nearest", form=form)
        fitted = replace(plain, range="fitted")
        for values in (np.zeros(9, np.float32), np.full(9, -0.3, np.float32), np.full(1, 1e-45, np.float32)):
            np.testing.assert_array_equal(through(fitted, values), values)
        assert np.isfinite(through(fitted, ends)).all()
        levels = np.array([-most, most, 0], np.float32)
        np.testing.assert_array_equal(through(fitted, levels), levels)


@pytest.mark.parametrize(
    "stage",
    [
        Uniform(4),
        Uniform(4, form="symmetric"),
        QSGD(4),
        QSGD(4, norm="max"),
        TernGrad(),
        Sign(),
        OneBit(),
        Uniform(4, "nearest", range="fitted"),
    ],
)
def test_channels_and_buckets_are_coded_as_if_they_were_alone(stage: AffineStage) -> None:
    values = gaussian(40 * 25) * np.repeat(np.float32(10) ** np.arange(-2, 2, 0.1), 25).astype(np.float32)
    for shape, more in (((40, 25), {"per": "channel"}), ((40, 5, 5), {"per": "channel"}), ((), {"bucket": 25})):
        grouped = type(stage)(**{**vars(stage), **more})
        scales = np.frombuffer(encoded(grouped, values, shape)[1], np.float32).reshape(40, -1)
        alone = [encoded(stage, row)[1] for row in values.reshape(40, 25)]
        np.testing.assert_array_equal(scales, np.frombuffer(b"".join(alone), np.float32).reshape(40, -1))
        decoded = through(grouped, values, shape).reshape(40, 25)
        for row, exact in zip(decoded, values.reshape(40, 25), strict=True):
            assert np.linalg.norm(row - exact) <= math.sqrt(25) * np.linalg.norm(exact)
    if not stage.unbiased:
        return
    rowwise = type(stage)(**{**vars(stage), "per": "channel"})
    mean = np.mean([through(rowwise, values, (40, 25), key) for key in range(400)], axis=0, dtype=np.float64)
    off = np.linalg.norm((mean - values).reshape(40, 25), axis=1) / np.linalg.norm(values.reshape(40, 25), axis=1)
    assert off.max() < 0.12


def test_a_bucket_longer_than_the_tensor_is_the_tensor() -> None:
    values = gaussian(1000)
    for stage, same in (
        (Uniform(4), Uniform(4, bucket=5000)),
        (QSGD(4), QSGD(4, bucket=1000)),
        (Sign(), Sign("tensor", 1001)),
    ):
        assert encoded(stage, values)[1] == encoded(same, values)[1]
        np.testing.assert_array_equal(through(stage, values), through(same, values))


def test_signs_restore_the_means_of_the_two_sides() -> None:
    values = np.array([-1, -3, 0, -0.0, 5, 1], np.float32)
    np.testing.assert_allclose(through(OneBit(), values), [-2, -2, 1.5, 1.5, 1.5, 1.5])
    mean = np.float32(10 / 6)
    np.testing.assert_array_equal(through(Sign(), values), [-mean, -mean, mean, mean, mean, mean])
    for constant in (-0.1, 0.3):
        np.testing.assert_array_equal(through(OneBit(), np.full(100, constant, np.float32)), np.float32(constant))
        np.testing.assert_array_equal(through(Sign(), np.full(100, constant, np.float32)), np.float32(constant))


def test_the_error_of_the_scaled_sign_is_what_its_lemma_says() -> None:
    values = np.random.default_rng(5).standard_t(3, 5000).astype(np.float32)
    exact = values.astype(np.float64)
    assert error(Sign(), values) == pytest.approx(1 - np.abs(exact).sum() ** 2 / (5000 * (exact @ exact)), rel=1e-5)


def test_a_norm_is_rounded_up_and_never_infinite() -> None:
    for seed in range(50):
        values = gaussian(77, seed)
        norm = np.frombuffer(encoded(QSGD(4), values)[1], np.float32)[0]
        exact = math.sqrt(math.fsum(float(value) ** 2 for value in values))
        assert exact <= norm <= np.nextafter(np.float32(exact), np.float32(np.inf))
    huge = np.full(1000, 3e38, np.float32)
    assert np.frombuffer(encoded(QSGD(4), huge)[1], np.float32)[0] == np.finfo(np.float32).max
    assert np.mean(through(QSGD(4), huge), dtype=np.float64) == pytest.approx(3e38, rel=0.05)


def test_terngrad_does_not_cut_equal_values() -> None:
    values = np.full(300, -0.3, np.float32)
    np.testing.assert_array_equal(through(TernGrad(), values), values)
    largest = np.frombuffer(encoded(TernGrad(1.0), np.array([1, 2, 3, 10], np.float32))[1], np.float32)[0]
    assert largest == pytest.approx(np.std([1, 2, 3, 10]))


@pytest.mark.parametrize("bucket", [0, 2])
def test_a_clip_beyond_all_values_cuts_nothing(bucket: int) -> None:
    values = np.array([1, 2, 3, -3e38], np.float32)
    assert through(TernGrad(1.7e308, bucket=bucket), values)[3] == values[3]


def test_bounds_fall_with_levels_and_hold_for_the_worst_inputs() -> None:
    layout = Layout("reals", 400, 32)
    stages: list[list[AffineStage]] = [
        [Uniform(bits) for bits in (1, 2, 8, 16)],
        [Uniform(bits, form="symmetric", rounding="nearest") for bits in (3, 8, 16)],
        [Uniform(bits, rounding="nearest", range="fitted") for bits in (1, 5, 8, 16)],
        [Uniform(bits, form="symmetric", rounding="nearest", range="fitted") for bits in (3, 8, 16)],
        [QSGD(bits) for bits in (2, 3, 8)],
        [QSGD(2, norm="max"), QSGD(2, norm="max", bucket=20), QSGD(2, norm="max", bucket=1)],
    ]
    spike = np.full(400, 0.05, np.float32)
    spike[0] = 1
    pair = np.zeros(400, np.float32)
    pair[:2] = 1, -1
    for family in stages:
        assert all(first.bound(layout) > second.bound(layout) for first, second in pairwise(family))
        for stage in family:
            for values in (spike, pair, gaussian(400)):
                assert error(stage, values, 60) <= stage.bound(layout) * 1.1 + 1e-6
    for clip in (0.0, 1.0, 2.5, 5.0):
        for values in (spike, pair, gaussian(400), gaussian(400) ** 3):
            assert error(TernGrad(clip), values, 60) <= TernGrad(clip).bound(layout) * 1.1 + 1e-6


WRONG = [
    ("uniform", "either bits or levels"),
    ("uniform(4, levels=9)", "either bits or levels"),
    ("uniform(17)", "1 to 16 bits, got 17"),
    ("uniform(levels=1)", "2 to 65536 levels, got 1"),
    ("uniform(levels=65537)", "2 to 65536 levels, got 65537"),
    ("uniform(1, form=symmetric)", "2 bits or more, got 1"),
    ("uniform(levels=8, form=symmetric)", "odd number of levels, got 8"),
    ("uniform(4, form=symmetric, rounding=floor)", "not floor"),
    ("uniform(4, range=fitted)", "it takes rounding=nearest, got stochastic"),
    ("uniform(4, rounding=floor, range=fitted)", "it takes rounding=nearest, got floor"),
    ("uniform(4, bucket=-1)", "got -1"),
    ("uniform(4, per=channel, bucket=8)", "not both"),
    ("qsgd", "either bits or levels"),
    ("qsgd(1)", "2 to 16 bits, got 1"),
    ("qsgd(levels=0)", "1 to 32767 levels, got 0"),
    ("qsgd(4, norm=l3)", "l2 or max"),
    ("terngrad(-1)", "0 or more standard deviations, got -1"),
    ("terngrad(nan)", "0 or more standard deviations, got nan"),
    ("sign(per=channel, bucket=8)", "not both"),
    ("onebit(bucket=-3)", "got -3"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_arguments_that_make_no_sense_are_refused(line: str, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        Codec.parse(line)


@pytest.mark.parametrize(
    ("stage", "scales", "reason"),
    [
        (Uniform(4), [1, -1], "scales"),
        (Uniform(4, bucket=50), [0, 1, 1, 0.5], "scales"),
        (Uniform(4), [-np.inf, 1], "non-finite"),
        (Uniform(4, form="symmetric"), [-1], "scales"),
        (QSGD(4), [np.nan], "non-finite"),
        (QSGD(4), [-1e-45], "scales"),
        (TernGrad(), [-2], "scales"),
        (Sign(), [-2], "scales"),
        (OneBit(), [0.5, 1], "scales"),
        (OneBit(), [-1, -0.5], "scales"),
        (OneBit(), [-1], "truncated"),
    ],
)
def test_scales_that_no_encoder_writes_are_refused(stage: AffineStage, scales: list[float], reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        stage.read(Layout("reals", 100, 32), Source(memoryview(np.array(scales, "<f4").tobytes())))
    assert caught.value.reason == reason


@pytest.mark.parametrize("stage", [QSGD(4), TernGrad(), Uniform(3, form="symmetric"), Uniform(levels=5)])
def test_codes_that_no_encoder_writes_are_refused(stage: AffineStage) -> None:
    scales = np.arange(stage.numbers, dtype="<f4") + 3e38
    layout, undo = stage.read(Layout("reals", 100, 32), Source(memoryview(scales.tobytes())))
    with pytest.raises(FrameError) as caught:
        undo(Plane(layout, pack(np.full(100, 2**layout.bits - 1, np.uint32), layout.bits)), None)
    assert caught.value.reason == "codes"


def test_a_tensor_shape_reaches_the_channels() -> None:
    schema = Schema((TensorSpec("w", (50, 20)), TensorSpec("b", (50,))))
    update = gaussian(schema.size)
    update[:20] *= 1000
    frame = Codec.parse("uniform(8, per=channel); b: none").encode(update, schema, key=1, round=0, client=0).frame
    rest = slice(20, None)
    assert np.abs(decode(frame, schema)[rest] - update[rest]).max() < 8 / 255
