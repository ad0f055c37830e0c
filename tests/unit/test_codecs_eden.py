import math

import numpy as np
import pytest

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs import eden_kernels, hadamard, hadamard_twins, lloyd_max
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.eden import Eden
from tightwire.codecs.grammar import parse
from tightwire.codecs.hadamard_vectors import BLOCK, LARGEST
from tightwire.codecs.stage import Context, Layout, Plane
from tightwire.errors import CodecError, FrameError
from tightwire.wire import packing
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Sink, Source

DISTORTION = {1: 0.36338, 2: 0.11748, 3: 0.03455, 4: 0.00950}


def gaussian(n: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def body(values: Flat, stage: Eden, key: int = 1, shape: tuple[int, ...] = ()) -> tuple[bytes, Plane]:
    sink = Sink()
    plane = stage.encode(Plane.reals(values, shape), sink, Context(key))
    return b"".join(sink.pieces) + plane.data.tobytes(), plane


def through(values: Flat, stage: Eden, key: int = 1, shape: tuple[int, ...] = ()) -> Flat:
    data, _ = body(values, stage, key, shape)
    source = Source(memoryview(data))
    layout, undo = stage.read(Layout("reals", values.size, 32, shape), source)
    decoded = undo(Plane(layout, source.array(layout.length)), None).data
    assert source.left == 0
    return decoded


def nmse(values: Flat, decoded: Flat) -> float:
    return float(np.square(decoded.astype(float) - values).sum() / np.square(values.astype(float)).sum())


def upper(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("bits", range(1, 9))
def test_levels_are_the_fixed_point_of_lloyd_and_max(bits: int) -> None:
    levels = lloyd_max.LEVELS[bits - 1].astype(float)
    limits = [0.0, *((levels[1:] + levels[:-1]) / 2), math.inf]
    assert levels.size == 2 ** (bits - 1)
    energy = 0.0
    for level, low, high in zip(levels, limits, limits[1:], strict=False):
        share = upper(low) - upper(high)
        mean = (density(low) - density(high)) / share
        assert abs(mean - level) < 1e-6
        energy += 2 * share * mean**2
    assert abs(1 - energy - lloyd_max.DISTORTIONS[bits - 1]) < 1e-9
    if bits in DISTORTION:
        assert abs(lloyd_max.DISTORTIONS[bits - 1] - DISTORTION[bits]) < 6e-6


@pytest.mark.parametrize(("bits", "reference"), [(1, 0.5708), (2, 0.1331), (3, 0.03578), (4, 0.00959)])
def test_error_is_that_of_the_paper(bits: int, reference: float) -> None:
    values = gaussian(400_000)
    assert abs(nmse(values, through(values, Eden(bits))) / reference - 1) < 0.01
    best = nmse(values, through(values, Eden(bits, scale="biased")))
    assert abs(best / DISTORTION[bits] - 1) < 0.01


@pytest.mark.parametrize(("bits", "reference"), [(2, 1.911), (3, 2.825), (4, 3.765)])
def test_entropy_of_the_codes_is_that_of_the_levels(bits: int, reference: float) -> None:
    _, plane = body(gaussian(400_000), Eden(bits))
    shares = np.bincount(packing.unpack(plane.data, plane.layout.count, bits)) / plane.layout.count
    assert abs(-(shares * np.log2(shares)).sum() - reference) < 0.003


@pytest.mark.parametrize("kind", ["dense", "one", "two", "last", "constant"])
@pytest.mark.parametrize("n", [2, 3, 5, 16, 100, 300])
@pytest.mark.parametrize("bits", [1, 0.5, 1.5])
def test_mean_over_keys_is_the_input_at_every_length(bits: float, n: int, kind: str) -> None:
    values = np.zeros(n, np.float32)
    if kind == "dense":
        values = gaussian(n)
    elif kind == "one":
        values[n // 2] = 1
    elif kind == "two":
        values[:2] = 3, 1
    elif kind == "last":
        values[-(n // 3 + 1) :] = 1
    else:
        values[:] = 1
    decoded = np.array([through(values, Eden(bits), key) for key in range(1, 401)], float)
    off = np.abs(decoded.mean(0) - values)
    assert (off <= 5.5 * decoded.std(0) / 20 + 1e-5).all()
    bound = Eden(bits).bound(Layout("reals", n, 32))
    errors = np.square(decoded - values).sum(1) / np.square(values.astype(float)).sum()
    assert errors.mean() <= bound + 5.5 * errors.std() / 20


@pytest.mark.parametrize("places", [(7,), (7, 23), (7, 8), (7, 263), (1, 2, 3), tuple(range(0, 4096, 256))])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_full_blocks_of_few_values_are_as_normal_as_others(bits: int, places: tuple[int, ...]) -> None:
    block = np.zeros(BLOCK, np.float32)
    block[list(places)] = np.resize([1, 1, 3], len(places))
    energy, stage = float((block.astype(float) ** 2).sum()), Eden(bits)
    decoded = through(np.tile(block, 600), stage).reshape(600, -1).astype(float)  # signs differ from block to block
    errors = np.square(decoded - block).sum(1) / energy
    assert errors.mean() <= stage.bound(Layout("reals", BLOCK, 32)) + 5.5 * errors.std() / math.sqrt(600)
    off = np.square(decoded.mean(0) - block).sum() / energy
    assert off <= 1.5 * errors.mean() / 600  # of 4096 places: its standard deviation is far below half of it


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("bits", [0.3, 1, 1.5, 2, 3, 4.2, 5, 6, 7.9, 8])
@pytest.mark.parametrize("n", [1, 15, 33, 300, 5000, 20_000])
def test_kernels_equal_their_twins_bit_for_bit(n: int, bits: float, unbiased: bool) -> None:
    seed, base, values = 99, math.floor(bits), gaussian(n) * np.float32(1e-30)
    values[: n // 3] = 0
    edges = hadamard.edges(n)
    fine = np.maximum(np.floor((bits - base) * np.diff(edges)).astype(np.int64), 0 if base else 1)
    count, width = n if base else int(fine.sum()), max(base, 1)
    data = packing.empty(count, width)
    extras = np.empty(int(fine.sum()) if base else 0, np.uint8)
    scales, pair = np.empty(fine.size, np.float32), hadamard.keys(seed)
    halves = packing.split(data, count, width)
    eden_kernels.encode(values, edges, fine, base, unbiased, *pair, *halves, extras, scales)
    codes: Bytes8 = packing.unpack(data, count, width).astype(np.uint8)
    before = gaussian(n, 1)
    out, total, weight = np.empty(n, np.float32), before.copy(), np.float32(0.3)
    terms = (*halves, extras, edges, fine, base, *pair, scales)
    eden_kernels.decode(*terms, out, np.float32(1), False)
    eden_kernels.decode(*terms, total, weight, True)
    np.testing.assert_array_equal(total, before + out * weight)
    done = more = 0
    for block in range(fine.size):
        place, first = slice(edges[block], edges[block + 1]), int(fine[block])
        twin = hadamard_twins.encode_block(values[place], block, first, base, unbiased, seed)
        here = codes[done : done + twin[0].size]
        extra = extras[more : more + twin[1].size]
        np.testing.assert_array_equal(here, twin[0])
        np.testing.assert_array_equal(extra, twin[1])
        assert scales[block] == twin[2]
        size = int(edges[block + 1] - edges[block])
        back = hadamard_twins.decode_block(here, extra, size, block, base, twin[2], seed)
        np.testing.assert_array_equal(out[place], back)
        done, more = done + twin[0].size, more + twin[1].size
    assert (done, more) == (codes.size, extras.size)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 31, 32, 1000, 16_384, 40_001])
def test_packing_bytes_equals_packing_words(n: int, bits: int) -> None:
    codes: Bytes8 = np.random.default_rng(n).integers(0, 2**bits, n).astype(np.uint8)
    data = packing.empty(n, bits)
    eden_kernels.pack(codes, bits, *packing.split(data, n, bits))
    np.testing.assert_array_equal(data, packing.pack(codes.astype(np.uint32), bits))
    back = np.empty(n, np.uint8)
    eden_kernels.unpack(*packing.split(data, n, bits), bits, back)
    np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize("n", [1000, 16_384, 50_000])
@pytest.mark.parametrize("bits", [0.1, 0.5, 1, 1.25, 2, 2.5, 4, 7.75, 8])
def test_size_is_the_bits_and_a_scale_a_block_and_a_seed(bits: float, n: int) -> None:
    data, _ = body(gaussian(n), Eden(bits))
    blocks = -(-n // 2**12)
    assert abs(len(data) - (n * bits / 8 + 4 * blocks + 4)) <= 2


def test_more_bits_are_never_worse_also_between_whole_ones() -> None:
    values = gaussian(50_000)
    errors = [nmse(values, through(values, Eden(bits))) for bits in (0.25, 0.5, 1, 1.25, 1.5, 1.75, 2, 2.5, 3)]
    assert errors == sorted(errors, reverse=True)
    assert abs(errors[1] / (2 / (1 - DISTORTION[1]) - 1) - 1) < 0.03
    half = 1 - (DISTORTION[1] + DISTORTION[2]) / 2
    assert abs(errors[4] / (1 / half - 1) - 1) < 0.03


@pytest.mark.parametrize("bits", [0.5, 1, 1.5, 4])
def test_zeros_are_exact_and_one_value_nearly(bits: float) -> None:
    for n in (1, 5, 20_000):
        assert not through(np.zeros(n, np.float32), Eden(bits)).any()
    for value in (3.25, -1e-40, 2e38):
        one = np.array([value], np.float32)
        np.testing.assert_allclose(through(one, Eden(bits)), one, rtol=1e-6, atol=3e-45)


@pytest.mark.parametrize("scale", [3.4e38, 1e-40, 1e-45])
def test_every_magnitude_decodes_to_finite_values_of_its_own(scale: float) -> None:
    values = np.full(20_000, scale, np.float32)
    decoded = through(values, Eden(4)).astype(float)
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() <= 2 * scale


@pytest.mark.parametrize("bits", [0.5, 2, 2.5])
@pytest.mark.parametrize("place", [0, 5000, 16_000, 19_999])
def test_what_is_not_finite_is_refused_wherever_it_is(place: int, bits: float) -> None:
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        values = gaussian(20_000)
        values[place] = value
        with pytest.raises(CodecError, match="tensor 7 holds a NaN or an infinity"):
            Eden(bits).encode(Plane.reals(values), Sink(), Context(1, tensor=7))


def test_rows_and_buckets_are_rotated_and_scaled_on_their_own() -> None:
    rows = np.stack([gaussian(96), 1000 * gaussian(96, 1), np.zeros(96, np.float32)])
    for stage, shape in ((Eden(2, per="channel"), (3, 96)), (Eden(2, bucket=96), ())):
        decoded = through(rows.ravel(), stage, shape=shape).reshape(3, 96)
        assert nmse(rows[0], decoded[0]) < 0.3
        assert nmse(rows[1], decoded[1]) < 0.3
        assert not decoded[2].any()
    mixed = through(rows.ravel(), Eden(2), shape=(3, 96)).reshape(3, 96)
    assert nmse(rows[0], mixed[0]) > 100


def test_frame_decodes_in_chains_with_rules_and_flattened() -> None:
    schema = Schema((TensorSpec("a", (100, 90)), TensorSpec("b", (90,)), TensorSpec("c", ())))
    values = gaussian(schema.size)
    for line, most in (
        ("flatten | eden(1)", 0.65),
        ("eden(2) | rans", 0.15),
        ("topk(0.5) | eden(4, bucket=512) | rans", 0.2),
        ("eden(1.5, scale=biased); b: eden(0.5)", 0.3),
    ):
        codec = Codec.parse(line)
        encoded = codec.encode(values, schema, key=4, round=0, client=0)
        assert nmse(values, decode(encoded.frame, schema)) < most
        assert encoded.sections.total == len(encoded.frame)


def test_impossible_scales_are_refused() -> None:
    values, stage = gaussian(20_000), Eden(1)
    data, _ = body(values, stage)
    layout = Layout("reals", values.size, 32)
    for scale, reason in ((math.nan, "non-finite"), (math.inf, "non-finite"), (-1.0, "scales"), (-0.0, "scales")):
        broken = bytearray(data)
        broken[8:12] = np.float32(scale).tobytes()
        with pytest.raises(FrameError) as refused:
            stage.read(layout, Source(memoryview(bytes(broken))))
        assert refused.value.reason == reason
    for length in (0, 3, 11):
        with pytest.raises(FrameError) as refused:
            stage.read(layout, Source(memoryview(data[:length])))
        assert refused.value.reason == "truncated"


def test_largest_scale_decodes_to_finite_values() -> None:
    stage, n = Eden(8), 1000
    data = bytearray(body(gaussian(n), stage)[0])
    data[4:8] = LARGEST.tobytes()
    source = Source(memoryview(bytes(data)))
    layout, undo = stage.read(Layout("reals", n, 32), source)
    assert np.isfinite(undo(Plane(layout, np.full(n, 255, np.uint8)), None).data).all()


@pytest.mark.parametrize("line", ["eden(0)", "eden(8.5)", "eden(-1)", "eden(nan)", "eden(2, bucket=-1)"])
def test_impossible_arguments_are_refused(line: str) -> None:
    with pytest.raises(CodecError, match="eden takes"):
        parse(line)


def test_prints_whole_bits_as_integers() -> None:
    for line in ("eden(2)", "eden(1.5)", "eden(1, scale=biased)", "eden(0.5, bucket=512)"):
        assert str(Codec.parse(line)) == line


def test_tally_counts_bits_scales_and_seed() -> None:
    codec, schema = Codec.parse("eden(1.5)"), Schema.single(40_000)
    assert codec.nominal_bits(schema) == 60_000 + 32 * 10 + 32
    assert Codec.parse("eden(0.25)").nominal_bits(schema) == 10_000 + 32 * 10 + 32
    assert Codec.parse("eden(0.25)").density(schema) == 0.25
