"""What every codec must hold to. A new one adds one row to `CASES`."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs.codec import Codec, decode
from tightwire.errors import CodecError
from tightwire.wire.schema import Schema, TensorSpec


@dataclass(frozen=True)
class Case:
    """One codec line, and what is claimed of it."""

    line: str
    golden: str
    """First 16 hex digits of the SHA-256 of the frame of `ramp()`."""
    size: int | None
    """Bytes of the body (no header, no check) of 1000 Gaussian values, where they do not depend on the values."""
    error: float
    """Largest NMSE on 1000 Gaussian values."""
    guarantee: str
    """``exact``, ``unbiased`` or ``contraction`` (squared error below the squared norm)."""


CASES = (
    Case("none", "2f954e15fce12886", 4000, 0.0, "exact"),
    Case("fp16", "5f66493f79a655bc", 2000, 1e-6, "contraction"),
    Case("bf16", "b90415343c5fce8a", 2000, 1e-5, "contraction"),
    Case("uniform(1)", "77ce59cfaf4884bc", 8 + 125, 20, "unbiased"),
    Case("uniform(3)", "618ad3a223b73c3d", 8 + 375, 0.5, "unbiased"),
    Case("uniform(4)", "2cc98f4176165589", 8 + 500, 0.1, "unbiased"),
    Case("uniform(4, rounding=nearest)", "1867c5753e9550cd", 8 + 500, 0.03, "contraction"),
    Case("uniform(11)", "3ad56f210a442b26", 8 + 1375, 1e-5, "unbiased"),
    Case("uniform(16)", "5ca5f2a6d5bf33bd", 8 + 2000, 1e-8, "unbiased"),
    Case("uniform(4) | rans", "2e302691f4ee3dcf", None, 0.1, "unbiased"),
    Case("uniform(8) | rans", "b684cfc716a0f61c", None, 1e-3, "unbiased"),
    Case("uniform(13) | rans", "abfc08614b9c5f1a", 8 + 1 + 1625, 1e-6, "unbiased"),
    Case("topk(0.1)", "ef3e0c06feb9350a", None, 0.6, "contraction"),
    Case("topk(1)", "88850b35d2a75c1d", 4000, 0.0, "exact"),
    Case("topk(0.6)", "07d60a5c2db7a539", 1 + 125 + 2400, 0.2, "contraction"),
    Case("topk(0.1) | fp16", "5d68dfd63f4a0d5d", None, 0.6, "contraction"),
    Case("topk(0.01) | uniform(4)", "49fee4e4eeb48b6f", None, 0.95, "contraction"),
    Case("topk(0.1) | uniform(4) | rans", "a5c9500d935089df", None, 0.6, "contraction"),
    Case("topk(0.5) | topk(0.5) | bf16", "9c32fef00aef38df", None, 0.4, "contraction"),
    Case("topk(0.1) | uniform(4) | rans; b*: fp16", "72756ebcec50bffc", None, 0.6, "contraction"),
)

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
ONE = Schema.single(1000)
MANY = Schema((TensorSpec("w", (30, 20)), TensorSpec("b", (7,)), TensorSpec("empty", (0, 3)), TensorSpec("s", ())))


def gaussian(n: int) -> Flat:
    return np.random.default_rng(11).standard_normal(n).astype(np.float32)


def ramp() -> Flat:
    """Values of every magnitude that need no generator."""
    return np.sin(np.arange(MANY.size, dtype=np.float64) ** 2 / 7).astype(np.float32).round(3)


def through(line: str, values: AnyArray, schema: Schema, key: int = 1) -> Flat:
    return decode(Codec.parse(line).encode(values, schema, key=key, round=0, client=0).frame, schema)


@each
def test_size_is_exact(case: Case) -> None:
    encoded = Codec.parse(case.line).encode(gaussian(1000), ONE, key=1, round=0, client=0)
    sections = encoded.sections
    assert sections.total == len(encoded.frame)
    if case.size is not None:
        assert sections.total - sections.header - sections.check == case.size


@each
def test_golden_bytes(case: Case) -> None:
    frame = Codec.parse(case.line).encode(ramp(), MANY, key=0x0123456789ABCDEF, round=3, client=4).frame
    assert hashlib.sha256(frame).hexdigest()[:16] == case.golden


@each
def test_round_trip_is_as_close_as_claimed(case: Case) -> None:
    values = gaussian(1000)
    error = through(case.line, values, ONE) - values
    assert error @ error <= case.error * (values @ values)


@each
def test_same_key_same_bytes(case: Case) -> None:
    codec = Codec.parse(case.line)
    frames = {codec.encode(gaussian(MANY.size), MANY, key=9, round=0, client=0).frame for _ in range(3)}
    assert len(frames) == 1
    assert Codec.parse(str(codec)).encode(gaussian(MANY.size), MANY, key=9, round=0, client=0).frame in frames


@each
def test_the_guarantee_holds(case: Case) -> None:
    values, trials = gaussian(1000), 300
    decoded = [through(case.line, values, ONE, key) for key in range(trials if case.guarantee == "unbiased" else 1)]
    if case.guarantee == "exact":
        np.testing.assert_array_equal(decoded[0], values)
    elif case.guarantee == "contraction":
        assert np.linalg.norm(decoded[0] - values) < np.linalg.norm(values)
    else:
        errors = np.array(decoded, np.float64) - values
        spread = errors.std(axis=0) / np.sqrt(trials)
        mean = errors.mean(axis=0)
        floor = 1e-6 * np.abs(values).max()
        assert np.abs(mean).max() < 5 * spread.max() + floor
        assert abs(mean.sum()) < 5 * np.sqrt((spread**2).sum()) + 1000 * floor


@each
def test_claims_agree_with_the_codec(case: Case) -> None:
    assert Codec.parse(case.line).unbiased == (case.guarantee in {"exact", "unbiased"})


@each
def test_zero_stays_zero_and_one_value_stays_what_it_was(case: Case) -> None:
    assert not through(case.line, np.zeros(1000, np.float32), ONE).any()
    np.testing.assert_array_equal(through(case.line, np.array([0.5], np.float32), Schema.single(1)), [0.5])


@each
def test_constants_come_back_where_they_are_kept(case: Case) -> None:
    decoded = through(case.line, np.full(1000, -0.75, np.float32), ONE)
    assert set(decoded.tolist()) <= {-0.75, 0.0}
    assert decoded[0] == -0.75


@each
def test_empty_tensors_take_no_bytes(case: Case) -> None:
    codec = Codec.parse(case.line)
    encoded = codec.encode(np.empty(0, np.float32), Schema.single(0), key=1, round=0, client=0)
    assert encoded.sections.total == encoded.sections.header + encoded.sections.check
    assert decode(encoded.frame, Schema.single(0)).shape == (0,)
    assert through(case.line, gaussian(MANY.size), MANY).shape == (MANY.size,)


@each
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e30, 3.4e38])
def test_denormal_and_huge_values_stay_finite_and_in_range(case: Case, scale: float) -> None:
    values = (np.sin(np.arange(1000.0)) * scale).astype(np.float32)
    decoded = through(case.line, values, ONE)
    assert np.isfinite(decoded).all()
    assert float(np.abs(decoded).max()) <= float(np.abs(values).max()) * 1.01


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(case: Case, bad: float) -> None:
    values = gaussian(MANY.size)
    values[-1] = bad
    with pytest.raises(CodecError, match="finite"):
        through(case.line, values, MANY)


@each
def test_other_floats_and_strided_arrays_give_the_same_frame(case: Case) -> None:
    values = gaussian(1000).astype(np.float16).astype(np.float32)
    wanted = through(case.line, values, ONE)
    for same in (
        values.astype(np.float16),
        values.astype(np.float64),
        np.repeat(values, 2)[::2],
        values[::-1].copy()[::-1],
    ):
        np.testing.assert_array_equal(through(case.line, same, ONE), wanted)


@each
def test_what_is_no_update_is_refused(case: Case) -> None:
    for wrong in (np.zeros(999, np.float32), np.zeros((1000, 1), np.float32), np.zeros(1000, np.int32)):
        with pytest.raises(CodecError, match="an update"):
            through(case.line, wrong, ONE)
    with pytest.raises(CodecError, match="finite"):
        through(case.line, np.full(1000, 1e300), ONE)
    through(case.line, np.broadcast_to(np.ones(1, np.float32), 1000), ONE)


@each
def test_encoding_leaves_the_update_as_it_was(case: Case) -> None:
    values = gaussian(1000)
    values.flags.writeable = False
    through(case.line, values, ONE)
    np.testing.assert_array_equal(values, gaussian(1000))
