"""Prefix codes, runs, and the choice of parameters: reference lengths, and equality with their plain twins."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.arrays import AnyArray
from tightwire.errors import FrameError
from tightwire.wire import elias, golomb, prefix, runs
from tightwire.wire import universal_twins as twins
from tightwire.wire.forms import Form, Others, Values
from tightwire.wire.prefix import GAMMA, NONE, OMEGA, RICE, Alphabet, Code
from tightwire.wire.streams import Source, varint

CODES = (Code(GAMMA), Code(OMEGA), Code(RICE, 0, 24, 9), Code(RICE, 3, 5, 7), Code(RICE, 2, 0, 9), Code(RICE, 9, 24, 0))
KINDS = st.sampled_from(CODES)


def length(code: Code, x: int) -> int:
    return int(prefix.codeword(code, np.uint64(x))[1])


def some_codes(alphabet: Alphabet, code: Code, n: int, seed: int, spread: float) -> AnyArray:
    """Codes about the alphabet's zero that have a codeword."""
    rng = np.random.default_rng(seed)
    codes = np.clip(np.rint(alphabet.zero + spread * rng.standard_cauchy(n)), 0, alphabet.top).astype(np.uint32)
    entries = prefix.codewords(code, alphabet)
    usable = np.flatnonzero(entries != NONE)
    return np.where(entries[codes] != NONE, codes, usable[0]).astype(np.uint32)


def test_lengths_of_elias_codes_are_those_of_the_paper() -> None:
    values = (1, 2, 3, 4, 5, 6, 7, 8, 16)
    assert [length(Code(OMEGA), value - 1) for value in values] == [1, 3, 3, 6, 6, 6, 6, 7, 11]
    assert [length(Code(GAMMA), value - 1) for value in values] == [1, 3, 3, 5, 5, 5, 5, 7, 9]


@pytest.mark.parametrize("code", CODES)
def test_codewords_equal_their_twin_and_are_taken_back(code: Code) -> None:
    for x in (*range(300), 4095, 4096, 65535, 2**20 + 3, 2**31 - 2):
        expected = twins.codeword(code, x)
        word, size = (int(part) for part in prefix.codeword(code, np.uint64(x)))
        if expected is None:
            assert size == int(NONE)
            continue
        assert "".join(str(word >> bit & 1) for bit in range(size)) == expected
        noise = 0xA5A5A5A5A5A5A5A5 << size & 2**64 - 1
        assert prefix.take(code, np.uint64(word | noise)) == (x, size)


@pytest.mark.parametrize(("zero", "top"), [(0, 15), (7, 15), (8, 15), (15, 15), (3, 255), (0, 1), (1, 1)])
@pytest.mark.parametrize("first", [0, 1])
def test_ranks_order_all_codes_by_distance_from_the_zero(zero: int, top: int, first: int) -> None:
    alphabet = Alphabet(zero, top, first)
    ranks = prefix.integers(RICE, alphabet)
    order = twins.ranked(alphabet)
    assert [int(ranks[code]) for code in order] == list(range(top + 1 - first))
    assert first == 0 or ranks[zero] == -1


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 400), bits=st.integers(1, 9), code=KINDS, seed=st.integers(0, 99), spread=st.floats(0.01, 30))
def test_dense_streams_equal_their_twin_and_are_read_back(
    n: int, bits: int, code: Code, seed: int, spread: float
) -> None:
    top = 2**bits - 1
    alphabet = Alphabet(seed % (top + 1), top, 0)
    codes = some_codes(alphabet, code, n, seed, spread)
    size = int(prefix.lengths(code, alphabet)[codes].sum())
    data = prefix.write(codes, code, alphabet, size)
    assert np.array_equal(data, twins.write(codes, code, alphabet))
    assert data.size == (size + 7) // 8
    assert np.array_equal(prefix.read(data, n, code, alphabet), codes)
    assert twins.read(data, n, code, alphabet) == codes.tolist()


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 400), bits=st.integers(2, 9), run=KINDS, code=KINDS, seed=st.integers(0, 99), far=st.booleans())
def test_streams_of_runs_equal_their_twin_and_are_read_back(
    n: int, bits: int, run: Code, code: Code, seed: int, far: bool
) -> None:
    top = 2**bits - 1
    values = Values(some_codes(Alphabet(1, top, 0), Code(OMEGA), n, seed, 3.0 if far else 0.2), bits, 1)
    alphabet = Alphabet(1, top, 1)
    some = values.others(1)
    expected_runs, expected_codes = twins.others(values.codes, 1)
    assert np.array_equal(some.runs, expected_runs)
    assert np.array_equal(some.codes, expected_codes)
    entries = prefix.lengths(code, alphabet)[some.codes]
    lengths = [length(run, int(x)) for x in some.runs]
    if int(NONE) in lengths or (entries == int(NONE)).any():
        return
    size = sum(lengths) + int(entries.sum())
    data = runs.write(some, run, code, alphabet, size)
    assert np.array_equal(data, twins.write_runs(some.runs, some.codes, run, code, alphabet))
    assert np.array_equal(runs.read_stream(data, n, some.codes.size, run, code, alphabet), values.codes)
    assert twins.read_runs(data, n, some.codes.size, run, code, alphabet) == values.codes.tolist()


def test_long_runs_are_read_back() -> None:
    codes = np.full(3_000_000, 5, np.uint32)
    codes[[2_999_000, 2_999_001]] = 4, 7
    values = Values(codes, 3, 5)
    for kind in (GAMMA, OMEGA):
        dense, sparse = elias.forms(values, kind)
        assert sparse.size < 20 < dense.size
        source = Source(memoryview(sparse.tables[1:]))
        assert np.array_equal(elias.read(kind, True, codes.size, 5, 7, source).decode(sparse.write()), codes)
    (form,) = runs.forms(values)
    assert form.size < 25
    assert np.array_equal(runs.read(codes.size, 7, Source(memoryview(form.tables[1:]))).decode(form.write()), codes)


@settings(deadline=None, max_examples=300)
@given(
    data=st.binary(max_size=40), n=st.integers(1, 60), zero=st.integers(0, 15), first=st.integers(0, 1),
    run=KINDS, code=KINDS, k=st.integers(0, 9), fill=st.sampled_from([None, 0, 255]),
)  # fmt: skip
def test_readers_take_or_refuse_any_bytes_just_as_their_twins(
    data: bytes, n: int, zero: int, first: int, run: Code, code: Code, k: int, fill: int | None
) -> None:
    raw = np.frombuffer(data if fill is None else bytes([fill]) * len(data), np.uint8)
    alphabet = Alphabet(zero, 15, first)
    for read, expected in (
        (partial(prefix.read, raw, n, code, alphabet), twins.read(raw, n, code, alphabet)),
        (partial(runs.read_stream, raw, n, k, run, code, alphabet), twins.read_runs(raw, n, k, run, code, alphabet)),
    ):
        if expected is None:
            with pytest.raises(FrameError) as error:
                read()
            assert error.value.reason == "codes"
        else:
            assert read().tolist() == expected


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 500), scale=st.floats(0.1, 3000), seed=st.integers(0, 99), far=st.booleans())
def test_rice_parameters_are_the_best_there_are(n: int, scale: float, seed: int, far: bool) -> None:
    integers = np.random.default_rng(seed).geometric(1 / (1 + scale), n) - 1
    if far and n:
        integers[0] = 60_000
    integers = np.minimum(integers, 65_535)
    code, bits = golomb.best(np.bincount(integers, minlength=1))
    assert bits == twins.best(integers, int(integers.max(initial=0)), golomb.MAX_LIMIT)
    assert bits == sum(length(code, int(x)) for x in integers)
    assert golomb.read_code(Source(memoryview(golomb.pack(code)))) == code


@pytest.mark.parametrize("mean", np.geomspace(0.52, 1000, 40))
def test_rice_is_within_an_eighth_of_a_bit_of_the_entropy_of_geometric_integers(mean: float) -> None:
    p = 1 / (1 + mean)
    counts = np.round(1e9 * p * (1 - p) ** np.arange(60_000)).astype(np.int64)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / p
    assert entropy <= golomb.best(counts)[1] / counts.sum() + 1e-6 <= entropy + 0.12


def test_long_runs_get_a_code_that_fits_them() -> None:
    some = Others(np.array([5, 2**20, 2**30, 0], np.uint32), np.ones(4, np.uint32))
    counts, shift, powers = some.histograms
    code, _ = golomb.best(counts, shift)
    assert counts.sum() == powers.sum() == 4
    assert int(NONE) not in [length(code, int(x)) for x in some.runs]
    assert np.flatnonzero(powers).tolist() == [0, 2, 20, 30]


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 700), bits=st.integers(1, 10), seed=st.integers(0, 99))
def test_counts_are_those_of_numpy(n: int, bits: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, n).astype(np.uint32)
    assert np.array_equal(Values(codes, bits, 0).counts, np.bincount(codes, minlength=2**bits))
    lengths = np.random.default_rng(seed).geometric(2.0 ** -(2 * bits), n).astype(np.uint32)
    counts, shift, powers = Others(lengths, codes).histograms
    assert np.array_equal(counts, np.bincount(lengths >> shift))
    assert np.array_equal(powers, np.bincount(np.log2(lengths + 1.0).astype(int), minlength=32))


def test_impossible_parameters_are_refused() -> None:
    for word in (25 << 10, 0xFFFF, 0x8001):
        with pytest.raises(FrameError, match="unary"):
            golomb.read_code(Source(memoryview(word.to_bytes(2, "little"))))
    elias_code = (1 << 15).to_bytes(2, "little")
    plain = golomb.pack(Code(RICE))
    for read, head in (
        (golomb.read, varint(16) + plain),
        (golomb.read, varint(0) + elias_code),
        (runs.read, varint(16)),
        (runs.read, varint(3) + varint(2) + elias_code + elias_code),
    ):
        with pytest.raises(FrameError) as error:
            read(10, 15, Source(memoryview(head + bytes(9))))
        assert error.value.reason == "tables"
    with pytest.raises(FrameError) as error:
        runs.read(10, 15, Source(memoryview(varint(3) + varint(11) + bytes(9))))
    assert error.value.reason == "length"


def test_bytes_of_all_streams_stay_as_they_are() -> None:
    codes = np.array([3, 3, 4, 2, 3, 7, 0, 3, 3, 3, 5], np.uint32)
    values = Values(codes, 3, 3)
    written = [form.tables.hex() + "/" + form.write().tobytes().hex() for form in made(values)]
    assert written == GOLDEN


def made(values: Values) -> list[Form]:
    forms = [*elias.forms(values, GAMMA), *elias.forms(values, OMEGA), *golomb.forms(values)]
    return [*forms, *runs.forms(Values(np.repeat(values.codes, 9), values.bits, values.zero))]


GOLDEN = [
    "e004/8b66c81b",
    "e10504/ee223a11",
    "e204/446a1431",
    "e30505/8329d82200",
    "e403600404/c4e84501",
    "e5032da004010c18/230000002449928ceeeeeeee6eadb5d65a6beb8888888800",
]
