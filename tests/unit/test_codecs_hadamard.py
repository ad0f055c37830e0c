import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import Flat
from tightwire.codecs import hadamard, hadamard_twins
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.hadamard_vectors import BLOCK, LARGEST
from tightwire.codecs.rotate import Rotate
from tightwire.codecs.stage import Context, Layout, Plane
from tightwire.errors import FrameError
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink, Source

ONE = np.float32(1)
LENGTHS = (1, 2, 3, 4, 5, 7, 15, 96, 255, 256, 300, 2047, 2048, 3000, 3072, 4095, 4096)


def gaussian(n: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def rotated(values: Flat, seed: int, block: int = 0, thorough: bool = False) -> Flat:
    out = np.empty_like(values)
    hadamard.rotate(values, out, ONE, block, thorough, *hadamard.keys(seed))
    return out


def test_transform_is_the_matrix_of_sylvester() -> None:
    matrix = np.ones((1, 1))
    while len(matrix) <= 4096:
        values = np.random.default_rng(len(matrix)).integers(-9, 10, len(matrix)).astype(np.float32)
        result = values.copy()
        hadamard.transform(result)
        np.testing.assert_array_equal(result, matrix @ values)  # sums of small integers are exact
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_rotation_and_its_inverse_equal_their_twins_bit_for_bit(n: int, thorough: bool) -> None:
    for seed, block, scale in ((0, 0, 1.0), (2**32 - 1, 3, 0.25), (77, 900_000, 2.0**100)):
        values, real = gaussian(n, seed), np.float32(scale)
        out = np.empty_like(values)
        hadamard.rotate(values, out, real, block, thorough, *hadamard.keys(seed))
        np.testing.assert_array_equal(out, hadamard_twins.rotate(values, real, block, thorough, seed))
        twin = hadamard_twins.unrotate(values, np.float32(2.0**16), real, block, thorough, seed)
        for before, weight in ((None, ONE), (gaussian(n, 5), np.float32(0.3))):
            back = np.empty_like(values) if before is None else before.copy()
            arguments = (np.float32(2.0**16), real, block, thorough, *hadamard.keys(seed), back, weight)
            hadamard.unrotate(values.copy(), *arguments, before is not None, False)
            np.testing.assert_array_equal(back, twin if before is None else before + twin * weight)


@settings(deadline=None, max_examples=80)
@given(n=st.integers(1, 5 * 2**12), seed=st.integers(0, 2**32 - 1))
def test_rotation_keeps_the_norm_and_is_inverted(n: int, seed: int) -> None:
    values, edges, pair = gaussian(n, seed), hadamard.edges(n), hadamard.keys(seed)
    out, back = np.empty_like(values), np.empty_like(values)
    hadamard.rotate_blocks(values, edges, ONE, *pair, out)
    norm = np.linalg.norm(values.astype(float))
    assert abs(np.linalg.norm(out.astype(float)) - norm) <= 1e-6 * norm
    hadamard.unrotate_blocks(out, edges, ONE, *pair, back, ONE, False)
    assert np.linalg.norm(back.astype(float) - values) <= 1e-6 * norm


@settings(deadline=None, max_examples=200)
@given(n=st.integers(1, 2**18))
def test_blocks_cover_all_values_and_none_is_short_beside_a_full_one(n: int) -> None:
    edges = hadamard.edges(n)
    lengths = np.diff(edges)
    assert (edges[0], edges[-1]) == (0, n)
    assert 1 <= lengths.min() <= lengths.max() <= BLOCK
    assert lengths.size == -(-n // BLOCK)
    assert lengths.min() >= min(n, BLOCK // 2)


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 10**5), length=st.integers(1, 4 * 10**4))
def test_groups_are_blocks_of_their_own(n: int, length: int) -> None:
    edges = hadamard.grouped(n, min(length, n))
    assert (np.diff(edges) > 0).all()
    assert set(range(0, n, length)) | {n} <= set(edges.tolist())


@pytest.mark.parametrize("n", [64, 96, 1000, 4095, 4096])
def test_a_thorough_rotation_spreads_the_energy_of_one_value_evenly(n: int) -> None:
    for place in (0, n // 2, n - 1):
        values = np.zeros(n, np.float32)
        values[place] = math.sqrt(n)
        energy = np.mean([rotated(values, seed, thorough=True) ** 2 for seed in range(300)], axis=0)
        eighths = [part.mean() for part in np.array_split(energy, 8)]
        assert max(abs(part - 1) for part in eighths) < 5 * math.sqrt(2 / (300 * n / 8)) + 0.04


def test_signs_are_balanced_and_independent_of_block_step_and_seed() -> None:
    drawn = [
        hadamard_twins.signs(2**12, hadamard_twins.words(place, seed))
        for place, seed in ((0, 0), (1, 0), (8, 0), (0, 1), (0, 2**31))
    ]
    correlations = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlations).max() < 5 / math.sqrt(2**12)
    assert max(abs(part.mean()) for part in drawn) < 5 / math.sqrt(2**12)
    for part in drawn:
        assert abs(np.corrcoef(part[:-256], part[256:])[0, 1]) < 5 / math.sqrt(2**12)


def encoded(values: Flat) -> tuple[bytes, Flat]:
    sink = Sink()
    plane = Rotate().encode(Plane.reals(values), sink, Context(0x0123456789ABCDEF))
    return b"".join(sink.pieces), plane.data


def test_stage_takes_five_bytes_and_gives_as_many_values() -> None:
    for n in (1, 5, 1000, 16385):
        head, values = encoded(gaussian(n))
        assert head == bytes.fromhex("efcdab8900")
        assert values.shape == (n,)
        assert np.isfinite(values).all()


@pytest.mark.parametrize("scale", [3.4e38, 1e30, 1.0, 1e-30, 1e-45])
def test_stage_takes_every_magnitude(scale: float) -> None:
    values = (np.sin(np.arange(20_000.0)) * scale).astype(np.float32)
    values[5:9] = np.float32(scale)
    frame = Codec.parse("rotate").encode(values, Schema.single(values.size), key=3, round=0, client=0).frame
    error = np.abs(decode(frame, Schema.single(values.size)).astype(float) - values).max()
    assert error <= 1e-5 * scale + 1e-45


def test_decoding_refuses_impossible_heads_and_survives_any_values() -> None:
    layout = Layout("reals", 1000, 32)
    for head, reason in ((b"\0\0\0\0", "truncated"), (b"\0\0\0\0\x80", "scales"), (b"\0\0\0\0\x81", "scales")):
        with pytest.raises(FrameError) as refused:
            Rotate().read(layout, Source(memoryview(head)))
        assert refused.value.reason == reason
    after, undo = Rotate().read(layout, Source(memoryview(b"\1\2\3\4\x7f")))
    assert after == layout
    for values in (np.full(1000, LARGEST), gaussian(1000) * np.float32(1e37)):
        assert np.isfinite(undo(Plane.reals(values.astype(np.float32)), None).data).all()


def test_one_range_costs_less_after_rotation_where_few_values_are_large() -> None:
    n, schema = 2**15, Schema.single(2**15)
    values = gaussian(n)
    values[::1000] *= 50

    def error(line: str) -> float:
        frame = Codec.parse(line).encode(values, schema, key=5, round=0, client=0).frame
        return float(
            np.square(decode(frame, schema).astype(float) - values).sum() / np.square(values.astype(float)).sum()
        )

    assert error("rotate | uniform(4)") < error("uniform(4)") / 5
    assert error("rotate") < 1e-12
