"""Narrow floats: none, fp16, bf16, fp8 and natural."""

import math

import numpy as np
import pytest
import torch

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs import float_kernels, float_twins
from tightwire.codecs.codec import Codec, decode, decode_add
from tightwire.codecs.fp8 import FORMATS, Fp8, from_narrow, to_narrow
from tightwire.codecs.minifloat import MiniFloat, Scales
from tightwire.codecs.natural import LEAST, Natural, exponents, powers
from tightwire.codecs.stage import Context, Layout, Plane, Stage
from tightwire.errors import CodecError, FrameError
from tightwire.wire.packing import unpack
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink, Source

KEY = 0x0123456789ABCDEF
KEYS = (np.uint32(KEY & 0xFFFFFFFF), np.uint32(KEY >> 32))
LINES = (
    *("none", "fp16", "bf16", "fp16(stochastic)", "bf16(stochastic)", "fp8", "fp8(e5m2)", "fp8(rounding=nearest)"),
    *("fp8(bucket=100)", "natural", "natural(3)", "natural(5, bucket=70)"),
)


def every_float(n: int = 100_000, seed: int = 0) -> Flat:
    """Finite floats of all exponents, and what lies on and beside the edges of float16."""
    raw = np.random.default_rng(seed).integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32)
    edges = np.array([0, 2.0**-25, 2.0**-24, 2.0**-14, 1, 65504, 65519, 65520, 65536, 3.4028235e38], np.float32)
    edges = np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges[:-1], np.float32(np.inf))])
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = np.concatenate([raw.view(np.float32), edges, -edges, (halves[1:] + halves[:-1]) / 2])
    finite: Flat = values[np.isfinite(values)]
    return finite


def gaussian(n: int = 1000, seed: int = 1) -> Flat:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def through(line: str, values: Flat, key: int = 1) -> Flat:
    schema = Schema.single(values.size)
    return decode(Codec.parse(line).encode(values, schema, key=key, round=0, client=0).frame, schema)


def codes_of(stage: Stage, values: Flat, key: int = KEY) -> AnyArray:
    layout = stage.encode(Plane.reals(values), Sink(), Context(key))
    return unpack(layout.data, values.size, layout.layout.bits)


def undone(stage: Stage, side: bytes, codes: AnyArray) -> Flat:
    """What a stage decodes from side information and codes, both of which may be anything."""
    reader = Source(memoryview(side))
    layout, undo = stage.read(Layout("reals", codes.size, 32), reader)
    assert reader.left == 0
    return undo(Plane(layout, codes.astype(np.uint8)), None).data


def nmse(decoded: AnyArray, values: Flat) -> float:
    exact = values.astype(np.float64)
    return float(np.square(decoded - exact).sum() / np.square(exact).sum())


def test_float16_and_bfloat16_equal_their_twins_bit_for_bit() -> None:
    values = every_float()
    raw, halves = values.view(np.uint32), np.empty(values.size, np.uint16)
    for exact, expected in (
        (float_kernels.halve_nearest, float_twins.halve_nearest(values)),
        (float_kernels.brain_nearest, float_twins.brain_nearest(values)),
    ):
        exact(raw, halves)
        np.testing.assert_array_equal(halves, expected)
    for noisy, expected in (
        (float_kernels.halve_stochastic, float_twins.halve_stochastic(values, KEY)),
        (float_kernels.brain_stochastic, float_twins.brain_stochastic(values, KEY)),
    ):
        noisy(raw, halves, KEYS[0], KEYS[1])
        np.testing.assert_array_equal(halves, expected)


def test_every_float16_and_bfloat16_widens_as_numpy_and_torch_do() -> None:
    halves, out = np.arange(2**16, dtype=np.uint16), np.empty(2**16, np.float32)
    for kernel, twin, infinite in (
        (float_kernels.widen_half, float_twins.widen_half, 0x7C00),
        (float_kernels.widen_brain, float_twins.widen_brain, 0x7F80),
    ):
        finite = halves[(halves & 0x7FFF) < infinite]
        odd = np.concatenate([np.zeros(1, np.uint8), finite.view(np.uint8)])[1:]
        for data in (finite.view(np.uint8), odd):
            assert kernel(data, out[: finite.size], None) == infinite - 1
            np.testing.assert_array_equal(out[: finite.size].view(np.uint32), twin(finite).view(np.uint32))
    wanted = torch.from_numpy(gaussian()).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(through("bf16", gaussian()), wanted)


@pytest.mark.parametrize(("line", "width"), [("none", 4), ("fp16", 2), ("bf16(stochastic)", 2)])
@pytest.mark.parametrize("at", [0, 500, 999])
def test_floats_that_are_not_finite_are_refused(line: str, width: int, at: int) -> None:
    (stage,) = Codec.parse(line).default.stages
    patterns = {"none": b"\0\0\x80\x7f", "fp16": b"\0\xfc", "bf16(stochastic)": b"\xc1\x7f"}
    data = np.zeros(1000 * width, np.uint8)
    data[at * width : (at + 1) * width] = list(patterns[line])
    _, undo = stage.read(Layout("reals", 1000, 32), Source(memoryview(b"")))
    with pytest.raises(FrameError) as error:
        undo(Plane(Layout("bytes", data.size, 8), data), None)
    assert error.value.reason == "non-finite"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("n", [1, 31, 33, 16_384 + 1_000])
def test_adding_equals_decoding_and_adding_bit_for_bit(line: str, n: int) -> None:
    values, schema, total = gaussian(n), Schema.single(n), gaussian(n, 2)
    frame = Codec.parse(line).encode(values, schema, key=3, round=0, client=0).frame
    expected = total + decode(frame, schema) * np.float32(0.3)
    decode_add(frame, schema, total, weight=0.3)
    np.testing.assert_array_equal(total.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("line", ["fp16(stochastic)", "bf16(stochastic)", "fp8", "fp8(e5m2)", "natural", "natural(3)"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 2.0**-135])
def test_stochastic_rounding_is_unbiased_denormals_included(line: str, scale: float) -> None:
    """Each of 64 magnitudes is repeated, so one frame holds many draws of each."""
    if line == "fp16(stochastic)" and scale < 2.0**-100:
        return  # hardly one in 2**100 would be rounded up
    repeats = 4000
    magnitudes = (np.linspace(-1, 1, 64) * scale).astype(np.float32)
    values = np.repeat(magnitudes, repeats)
    decoded = through(line, values).astype(np.float64).reshape(64, repeats) / scale
    spread = decoded.std(axis=1) / math.sqrt(repeats) + 2e-7
    assert (np.abs(decoded.mean(axis=1) - magnitudes.astype(np.float64) / scale) < 5 * spread).all()


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("length", [1, 50, 40_000])
@pytest.mark.parametrize("scale", [1.0, 1e-44, 3.4e38])
def test_fp8_equals_its_twin_bit_for_bit(format: MiniFloat, key: int | None, length: int, scale: float) -> None:
    values = (np.random.default_rng(4).uniform(-1, 1, 33_333) ** 9 * scale).astype(np.float32)
    peaks = np.abs(np.append(values, np.zeros(-values.size % length, np.float32))).reshape(-1, length).max(axis=1)
    same_as_twin(values, length, to_narrow(peaks, format.largest), from_narrow(peaks, format.largest), format, key)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("length", [50, 40_000])
@pytest.mark.parametrize("scale", [1.0, 1e-44, 3.4e38])
def test_natural_equals_its_twin_bit_for_bit(bits: int, length: int, scale: float) -> None:
    values = (np.random.default_rng(5).uniform(-1, 1, 33_333) ** 9 * scale).astype(np.float32)
    values[100:150] = 0
    peaks = np.abs(np.append(values, np.zeros(-values.size % length, np.float32))).reshape(-1, length).max(axis=1)
    top = exponents(peaks)
    to, back = powers(np.where(peaks > 0, -top, top)), powers(top)
    same_as_twin(values, length, to, back, Natural(bits).format, KEY)


def same_as_twin(values: Flat, length: int, to: Scales, back: Scales, format: MiniFloat, key: int | None) -> None:
    keys = None if key is None else KEYS
    plane = format.encode(values, length, to, keys)
    np.testing.assert_array_equal(plane.data, float_twins.narrow(values, length, to, format, key))
    decoded = format.undo(values.size, length, back)(plane, None).data
    expected = float_twins.widen(plane.data, values.size, length, back, format)
    np.testing.assert_array_equal(decoded.view(np.uint32), expected.view(np.uint32))
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(("format", "wide"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_fp8_has_the_numbers_of_the_paper(format: str, wide: torch.dtype) -> None:
    """Micikevicius et al. 2022, table 1; torch's types are an implementation of it."""
    every = torch.arange(256, dtype=torch.uint8).view(wide).to(torch.float32).numpy()
    numbers = np.unique(every[np.isfinite(every)])
    assert numbers[-1] == FORMATS[format].largest == {"e4m3": 448, "e5m2": 57344}[format]
    assert numbers[numbers > 0][0] == FORMATS[format].least == {"e4m3": 2.0**-9, "e5m2": 2.0**-16}[format]
    for rounding in ("nearest", "stochastic"):
        np.testing.assert_array_equal(through(f"fp8({format}, {rounding})", numbers), numbers)
    values = np.append(every_float()[np.abs(every_float()) < numbers[-1]], numbers[-1])
    expected = torch.from_numpy(values).to(wide).to(torch.float32).numpy()
    np.testing.assert_array_equal(through(f"fp8({format}, nearest)", values), expected)


@pytest.mark.parametrize("line", ["fp8", "fp8(e5m2)", "natural", "natural(4)"])
def test_codes_are_in_the_order_of_the_values_around_zero(line: str) -> None:
    (stage,) = Codec.parse(line).default.stages
    values = np.sort(np.append(gaussian(5000), np.array([0.0, -0.0], np.float32)))
    spaced = values[::40]
    codes = codes_of(stage, values).astype(np.int64)
    zero = stage.encode(Plane.reals(values), Sink(), Context(1)).layout.zero
    assert zero is not None
    assert (codes[values == 0] == zero).all()
    assert ((codes > zero) <= (values > 0)).all()
    assert ((codes < zero) <= (values < 0)).all()
    levels = np.unique(through(line, spaced))
    assert (np.diff(codes_of(stage, levels).astype(np.int64)) > 0).all()


@pytest.mark.parametrize("line", ["fp8", "fp8(e5m2)", "fp8(rounding=nearest)"])
@pytest.mark.parametrize("peak", [0.3, 1.1e-38, 3e-45, 3.4028235e38])
def test_fp8_sends_the_largest_magnitude_exactly(line: str, peak: float) -> None:
    values = gaussian() / np.float32(8)
    values = np.append(values * np.float32(peak), np.float32(-peak))
    decoded = through(line, values)
    assert decoded[-1] == values[-1]
    assert np.abs(decoded).max() == np.abs(values).max()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_fp8_errs_as_its_bound_says_and_no_less_at_the_worst_value(format: str, rounding: str) -> None:
    step = 2.0 ** -FORMATS[format].mantissa
    worst = 2 * (1 + step) / (2 + step) if rounding == "stochastic" else 1 + step / 2
    scale = FORMATS[format].largest / 2 ** math.floor(math.log2(FORMATS[format].largest))
    values = np.append(np.full(50_000, worst), scale).astype(np.float32)
    stage = Fp8(format, rounding)  # type: ignore[arg-type]  # one of the formats
    bound = stage.bound(Layout("reals", values.size, 32))
    assert nmse(through(str(stage), values), values) == pytest.approx(bound, rel=0.02)
    assert bound == pytest.approx({"e4m3": 1 / 288, "e5m2": 1 / 80}[format], rel=0.04)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_natural_compression_of_gaussian_values_errs_as_the_paper_says(bits: int) -> None:
    """Horvath et al. 2019, theorem 1: at most 1/8; for each value (|x| - 2**a) (2**(a+1) - |x|)."""
    values = gaussian(400_000)
    below = 2.0 ** np.floor(np.log2(np.abs(values).astype(np.float64)))
    expected = ((np.abs(values) - below) * (2 * below - np.abs(values))).sum() / np.square(values).sum()
    assert 0.08 < expected < 0.1
    error = nmse(through(f"natural({bits})", values), values)
    assert error == pytest.approx(expected, rel=0.02)
    assert Natural(8).bound(Layout("reals", values.size, 32)) == pytest.approx(0.125)


def test_natural_compression_keeps_powers_of_two_and_zeros() -> None:
    values = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    values = np.concatenate([values[150:], -values[150:], np.zeros(5, np.float32)])
    np.testing.assert_array_equal(through("natural", values), values)
    tiny = np.ldexp(np.float32(1), np.arange(-149, -100)).astype(np.float32)
    np.testing.assert_array_equal(through("natural", tiny), tiny)
    assert not through("natural(2)", np.zeros(77, np.float32)).any()


def test_natural_compression_rounds_only_to_the_powers_beside_a_value() -> None:
    values = gaussian(20_000)
    decoded = through("natural", values)
    ratio = np.abs(decoded.astype(np.float64) / values)
    assert (np.sign(decoded) == np.sign(values)).all()
    assert ratio.min() > 0.5
    assert ratio.max() < 2
    assert set(np.frexp(decoded)[0].tolist()) == {0.5, -0.5}


def test_natural_compression_of_the_largest_float_stays_finite_and_is_cut() -> None:
    values = np.full(1000, 3.4028235e38, np.float32)
    assert (through("natural", values) == values).all()
    values[:] = 2.6e38
    decoded = through("natural", values)
    assert set(decoded.tolist()) == {2.0**127, float(np.finfo(np.float32).max)}


def test_impossible_scales_and_codes_are_refused() -> None:
    zero, one = np.full(5, 128), np.array([1], np.float32).tobytes()
    for stage, side, codes, reason in (
        (Fp8(), np.array([np.inf], np.float32).tobytes(), zero, "non-finite"),
        (Fp8(), np.array([np.nan], np.float32).tobytes(), zero, "non-finite"),
        (Fp8(), np.array([-1], np.float32).tobytes(), zero, "scales"),
        (Fp8(), np.array([-0.0], np.float32).tobytes(), zero, "scales"),
        (Fp8(), one, np.array([128, 255, 0]), "codes"),
        (Fp8(), one, np.array([128, 1]), "codes"),
        (Fp8("e5m2"), one, np.array([4]), "codes"),
        (Fp8("e5m2"), one, np.array([252]), "codes"),
        (Natural(), (279).to_bytes(2, "little"), zero, "scales"),
        (Natural(), (100).to_bytes(2, "little"), np.array([128, 0]), "codes"),
        (Natural(), b"\1", zero, "truncated"),
    ):
        with pytest.raises(FrameError) as error:
            undone(stage, side, codes)
        assert error.value.reason == reason
    assert undone(Fp8(), one, np.array([2, 128, 254])).tolist() == [-1, 0, 1]
    assert undone(Fp8("e5m2"), one, np.array([5, 128, 251])).tolist() == [-1, 0, 1]
    assert undone(Natural(), (150).to_bytes(2, "little"), np.array([1, 128, 254])).tolist() == [-1, 0, 0.5]


def test_wrong_arguments_say_what_is_right() -> None:
    for line, message in (
        ("natural(9)", "natural takes 2 to 8 bits, got 9"),
        ("natural(1)", "natural takes 2 to 8 bits, got 1"),
        ("fp8(bucket=-1)", "bucket of 1 value or more"),
        ("fp8(per=channel, bucket=5)", "leave one out"),
        ("fp16(up)", "nearest or stochastic"),
        ("fp8(e3m4)", "e4m3 or e5m2"),
    ):
        with pytest.raises(CodecError, match=message):
            Codec.parse(line)


def peaks_of_all_sizes() -> Flat:
    bits = np.random.default_rng(0).integers(1, 0x7F800000, 5000, dtype=np.uint32)
    even = np.concatenate([np.arange(1, 255, dtype=np.uint32) << 23, 1 << np.arange(23, dtype=np.uint32)])
    return np.concatenate([bits, even, even + 1, even - 1]).astype(np.uint32).view(np.float32)


def test_natural_scales_take_any_peak_to_one_and_back() -> None:
    peaks = peaks_of_all_sizes()
    top = exponents(peaks)
    some = peaks > 0
    assert (np.ldexp(1.0, top[some]) >= peaks[some]).all()
    assert (np.ldexp(1.0, top[some] - 1) < peaks[some]).all()
    assert (top[~some] == LEAST - 1).all()
    for sign in (1, -1):
        scales = powers(sign * top[some])
        product = scales.first.astype(np.float64) * scales.second
        np.testing.assert_array_equal(product, np.ldexp(1.0, sign * top[some]))
        for factor in (scales.first, scales.second):
            assert (factor >= np.finfo(np.float32).tiny).all()


@pytest.mark.parametrize("largest", [448.0, 57344.0])
def test_float8_scales_take_any_peak_to_the_largest(largest: float) -> None:
    peaks = peaks_of_all_sizes()
    scales = to_narrow(peaks, largest)
    product = peaks * scales.first.astype(np.float64) * scales.second
    np.testing.assert_allclose(product[peaks > 0], largest, rtol=2e-7)
    assert (scales.second[peaks == 0] == 0).all()
