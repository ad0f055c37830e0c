import numpy as np
import pytest

from tightwire.arrays import Flat, Ints
from tightwire.codecs import sketch_kernels
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.sketch import CountSketch
from tightwire.codecs.sparse_twins import mix64
from tightwire.codecs.stage import Layout
from tightwire.errors import CodecError
from tightwire.wire.schema import Schema

KEYS = [1, 0x0123456789ABCDEF, 2**64 - 1]


def gaussian(n: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def heavy(n: int, count: int = 10) -> Flat:
    """Noise and `count` values about 1000."""
    values = gaussian(n)
    values[np.random.default_rng(1).choice(n, count, replace=False)] += 1000
    return values


def through(line: str, values: Flat) -> Flat:
    schema = Schema.single(values.size)
    return decode(Codec.parse(line).encode(values, schema, key=1, round=0, client=0).frame, schema)


def hashed(n: int, key: int, columns: int) -> tuple[Ints, Flat]:
    """The column and the sign of every value, as the docstring describes them."""
    places, signs = np.empty(n, np.int64), np.empty(n, np.float32)
    for i in range(n):
        x = mix64((key + i // 16 * 0x9E3779B97F4A7C15) % 2**64)
        places[i] = ((x >> 32) * columns // 2**32 + i % 16) % columns
        signs[i] = -1 if x >> i % 16 & 1 else 1
    return places, signs


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000])
@pytest.mark.parametrize("columns", [16, 37, 300])
def test_tables_and_estimates_equal_their_definition(n: int, columns: int) -> None:
    values = gaussian(n).round(2)
    said = np.empty((len(KEYS), n), np.float32)
    table = sketch_kernels.sketch(values, KEYS, columns, 10.0)
    for row, key in enumerate(KEYS):
        places, signs = hashed(n, key, columns)
        wanted = np.zeros(columns)
        np.add.at(wanted, places, values.astype(np.float64) * signs)
        np.testing.assert_allclose(table[row], wanted, atol=1e-4)
        said[row] = table[row, places] * signs
    out = np.empty(n, np.float32)
    for rows in (1, 2, 3):
        sketch_kernels.estimate(table[:rows], KEYS[:rows], True, out)
        half = np.float32(0.5)
        falling = np.sort(said[:rows], axis=0)
        np.testing.assert_array_equal(out, falling[(rows - 1) // 2] * half + falling[rows // 2] * half)
        sketch_kernels.estimate(table[:rows], KEYS[:rows], False, out)
        np.testing.assert_allclose(out, said[:rows].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_the_sum_of_tables_is_the_table_of_the_sum() -> None:
    one, other = gaussian(10_000), gaussian(10_000, 1)
    tables = [sketch_kernels.sketch(values, KEYS, 500, 10.0) for values in (one, other, one + other)]
    np.testing.assert_allclose(tables[0] + tables[1], tables[2], atol=1e-4)


def test_sums_that_float32_cannot_hold_are_cut() -> None:
    values = np.full(10_000, 3.4e38, np.float32)
    with np.errstate(all="raise"):
        table = sketch_kernels.sketch(values, KEYS, 100, 3.4e38)
    exact = sketch_kernels.sketch(np.full(10_000, 1, np.float32), KEYS, 100, 1.0)
    np.testing.assert_allclose(
        table, np.clip(exact * np.float64(3.4e38), -np.finfo(np.float32).max, np.finfo(np.float32).max)
    )
    assert np.isfinite(through("sketch(3, 100)", values)).all()
    assert np.isfinite(through("sketch(2, 100, estimate=mean)", values)).all()


def test_over_seeds_the_mean_is_unbiased_and_errs_as_said() -> None:
    values, rows, columns, trials = gaussian(2000), 3, 200, 400
    errors = np.array(
        [through(f"sketch({rows}, {columns}, estimate=mean, seed={seed})", values) - values for seed in range(trials)]
    )
    energy = float(values @ values)
    expected = values.size / (rows * columns)
    assert np.square(errors).sum(axis=1).mean() / energy == pytest.approx(expected, rel=0.05)
    along = errors @ values / energy
    assert abs(along.mean()) < 5 * along.std() / np.sqrt(trials)
    assert np.abs(errors.mean(axis=0)).max() < 5 * errors.std(axis=0).max() / np.sqrt(trials)


def test_heavy_values_are_found_among_noise() -> None:
    values = heavy(100_000)
    decoded = through("sketch(5, 2000, density=0.0001)", values)
    assert set(np.flatnonzero(decoded)) == set(np.argsort(-np.abs(values))[:10])
    lost = decoded - values
    assert lost @ lost < 0.02 * (values @ values)
    everything = through("sketch(5, 2000)", values) - values
    assert everything @ everything > 10 * (lost @ lost)


def test_what_has_no_more_values_than_the_table_goes_on_unchanged() -> None:
    values = gaussian(100)
    np.testing.assert_array_equal(through("sketch(5, 20)", values), values)
    stage = CountSketch(5, 20)
    assert stage.bound(Layout("reals", 100, 32)) == 0
    assert stage.bound(Layout("reals", 101, 32)) == np.inf


def test_a_quantiser_may_follow_with_a_scale_for_each_row() -> None:
    values = heavy(20_000)
    codec, schema = Codec.parse("sketch(5, 1000, density=0.0005) | uniform(8, per=channel)"), Schema.single(20_000)
    encoded = codec.encode(values, schema, key=1, round=0, client=0)
    assert encoded.sections.codes == 5000
    lost = decode(encoded.frame, schema) - values
    assert lost @ lost < 0.1 * (values @ values)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sketch(0, 100)", "1 to 32 rows, got 0"),
        ("sketch(33, 100)", "1 to 32 rows, got 33"),
        ("sketch(5, 15)", "16 to 2147483648 columns, got 15"),
        ("sketch(5, 100, density=0)", r"a density in \(0, 1\], got 0"),
    ],
)
def test_lines_that_make_no_sense_are_refused(line: str, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        Codec.parse(line)
