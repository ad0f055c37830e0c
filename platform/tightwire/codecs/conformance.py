"""The conformance kit: what every codec must hold to, as checks that run on any codec line or stage.

`tightwire codec check` runs them on a user's stage, and `tests/contract` on everything the library has. A check raises
`ConformanceError` with what was expected and what was found; nothing here depends on pytest.
"""

import hashlib
import math
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tightwire.arrays import AnyArray, Flat, Floats
from tightwire.codecs.codec import Codec, decode, decode_add
from tightwire.codecs.stage import Plane
from tightwire.errors import CodecError, FrameError, TightwireError
from tightwire.kit import Verdict, judged
from tightwire.wire.checksum import checksum
from tightwire.wire.frame import unseal
from tightwire.wire.ledger import SECTIONS
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Sink

TRIALS = 160
"""Keys under which a statistical property is tried."""
SIGMAS = 5.5
"""Standard errors that a mean may be off: one in 10**7 is, if nothing is wrong."""
GOLDEN_KEY = 0x0123456789ABCDEF
ONE = Schema((TensorSpec("w", (40, 25)),))
MANY = Schema((TensorSpec("w", (30, 20)), TensorSpec("b", (7,)), TensorSpec("empty", (0, 3)), TensorSpec("s", ())))
ROUNDING = 4e-6
"""Relative error that arithmetic in float32 may add to what is promised."""


class ConformanceError(TightwireError):
    """A codec does not hold to a property that it must have; says which, what was expected and what was found."""


@dataclass(frozen=True)
class Subject:
    """A codec under check."""

    line: str
    golden: str | None = None
    """`digest` as it was when the format was fixed; None where it is not."""
    trials: int = TRIALS

    @cached_property
    def codec(self) -> Codec:
        """The line's codec."""
        return Codec.parse(self.line)

    def frame(self, values: AnyArray, schema: Schema = ONE, key: int = 1, round: int = 1) -> bytes:
        """An encoded frame from client 0."""
        return self.codec.encode(values, schema, key=key, round=round, client=0).frame

    def through(self, values: AnyArray, schema: Schema = ONE, key: int = 1) -> Flat:
        """What the values decode to."""
        return decode(self.frame(values, schema, key), schema)

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the frame of `ramp()`: the golden bytes in short."""
        return hashlib.sha256(self.frame(ramp(), MANY, GOLDEN_KEY, 3)).hexdigest()[:16]

    def bound(self, values: Flat) -> float:
        """The declared largest expected NMSE for values of `ONE`; infinite where none is declared.

        Errors of stages add up as norms do (Minkowski), each relative to what it was given; decoding is taken not to
        expand them, which holds for whatever selects or rotates. Products of factors may, so what loses anything of
        those has no bound.
        """
        product = 1.0
        for piece, planes in zip(self.codec.pieces(ONE), self._planes(values), strict=True):
            factored = False
            for stage, plane in zip(piece.chain.stages, planes, strict=False):
                bound = stage.bound(plane.layout)
                product *= math.inf if factored and bound else 1 + math.sqrt(bound)
                factored |= stage.family == "factorisation"
        return (product - 1) ** 2

    def _planes(self, values: Flat) -> list[list[Plane]]:
        return list(self.codec.planes(values, ONE, Sink(), key=1, round=1))


def expect(holds: bool, what: str) -> None:
    """Fail with `what` unless it holds.

    Raises:
        ConformanceError: It does not.
    """
    if not holds:
        raise ConformanceError(what)


def ramp() -> Flat:
    """Values of `MANY` of every magnitude, which need no generator."""
    return np.sin(np.arange(MANY.size, dtype=np.float64) ** 2 / 7).astype(np.float32).round(3)


def gaussian(n: int = ONE.size) -> Flat:
    """Standard normal values, shape (n,), always the same."""
    return np.random.default_rng(11).standard_normal(n).astype(np.float32)


def inputs() -> dict[str, Flat]:
    """Vectors of `ONE` on which guarantees are tried, from the kindest to the least kind."""
    random = np.random.default_rng(12)
    sparse = gaussian() * (random.random(ONE.size) < 0.05)
    one_hot = np.zeros(ONE.size, np.float32)
    one_hot[123] = -3.0
    return {
        "Gaussian": gaussian(),
        "heavy-tailed": random.standard_t(2, ONE.size).astype(np.float32),
        "shifted": gaussian() * np.float32(0.1) + np.float32(2),
        "sparse": sparse.astype(np.float32),
        "one-hot": one_hot,
        "constant": np.full(ONE.size, -0.75, np.float32),
    }


def prints_and_parses(subject: Subject) -> None:
    """The line prints in a form that parses to the same codec."""
    printed = str(subject.codec)
    expect(Codec.parse(printed) == subject.codec, f"it prints as {printed!r}, which parses to another codec")


def size_is_exact(subject: Subject) -> None:
    """The ledger's sections add up to the frame, and what a paper would count is a positive number."""
    for schema, values in ((ONE, gaussian()), (MANY, ramp())):
        encoded = subject.codec.encode(values, schema, key=1, round=0, client=0)
        total = sum(getattr(encoded.sections, name) for name in SECTIONS)
        expect(total == len(encoded.frame), f"the sections add up to {total} bytes of {len(encoded.frame)}")
        nominal = encoded.nominal_bits
        expect(math.isfinite(nominal) and nominal >= 0, f"the nominal bits are {nominal}")


def golden_bytes(subject: Subject) -> None:
    """The frame of a known input has the bytes that it had when the format was fixed."""
    if subject.golden is not None:
        expect(subject.digest == subject.golden, f"golden digest {subject.golden} expected, got {subject.digest}")


def nothing_left_over(subject: Subject) -> None:
    """The decoder uses every byte: one more, or one less, is refused."""
    frame = subject.frame(gaussian())
    head, body = unseal(frame)
    for name, changed in (("one byte more", bytes(body) + b"\0"), ("one byte less", bytes(body[:-1]))):
        try:
            decode(reseal(frame[: head.size] + changed), ONE)
        except FrameError:
            continue
        raise ConformanceError(f"a frame with {name} was accepted")


def same_key_same_bytes(subject: Subject) -> None:
    """Encoding is a function of its arguments, and leaves the update as it was."""
    values, locked = gaussian(), gaussian()
    locked.flags.writeable = False
    frames = {subject.frame(given, key=9) for given in (values, values, locked)}
    expect(len(frames) == 1, f"three encodings under one key gave {len(frames)} different frames")
    expect(bool((values == gaussian()).all()), "encoding changed the update that it was given")
    decoded = {decode(next(iter(frames)), ONE).tobytes() for _ in range(2)}
    expect(len(decoded) == 1, "two decodings of one frame differ")


def error_is_as_declared(subject: Subject) -> None:
    """The mean squared error over keys is within the declared bound, for kind and unkind inputs."""
    for name, values in inputs().items():
        bound = subject.bound(values)
        if math.isinf(bound):
            continue
        energy = float(np.square(values, dtype=np.float64).sum())
        errors = np.array([_energy(subject.through(values, key=key) - values) for key in range(subject.trials // 4)])
        spread = errors.std() / math.sqrt(len(errors))
        mean, limit = errors.mean() / energy, bound + SIGMAS * spread / energy + ROUNDING
        expect(mean <= limit, f"{name} input: NMSE {mean:.6g} is over the declared bound of {bound:.6g}")


def _energy(values: AnyArray) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def unbiased_if_declared(subject: Subject) -> None:
    """Where it is declared, the mean over keys of what is decoded is what was encoded: projected on directions."""
    if not subject.codec.unbiased:
        return
    random = np.random.default_rng(13)
    for name, values in inputs().items():
        exact = values.astype(np.float64)
        directions = np.stack([exact, np.sign(exact), np.ones_like(exact), *random.standard_normal((5, exact.size))])
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-30)
        errors: Floats = np.stack(
            [directions @ (subject.through(values, key=key) - exact) for key in range(subject.trials)]
        )
        allowed = SIGMAS * errors.std(axis=0) / math.sqrt(len(errors)) + ROUNDING * np.linalg.norm(exact)
        off = np.abs(errors.mean(axis=0))
        worst = int(np.argmax(off - allowed))
        expect(
            bool((off <= allowed).all()),
            f"{name} input: declared unbiased, but the mean error along a direction is {off[worst]:.6g}, where chance "
            f"allows {allowed[worst]:.6g}",
        )


def zero_stays_zero(subject: Subject) -> None:
    """Zeros decode to zeros, exactly."""
    decoded = subject.through(np.zeros(ONE.size, np.float32))
    expect(not decoded.any(), f"zeros decode to values up to {np.abs(decoded).max()}")


def small_shapes(subject: Subject) -> None:
    """One value, constants and every short length work; empty updates take no bytes."""
    for n in (1, 2, 3, 5, 31, 33, 64):
        for values in (gaussian(n), np.full(n, 0.5, np.float32)):
            decoded = subject.through(values, Schema.single(n))
            expect(bool(np.isfinite(decoded).all()), f"{n} values decode to something not finite")
            limit = 40 * math.sqrt(n) * float(np.abs(values).max())
            expect(
                bool((np.abs(decoded) <= limit).all()), f"{n} values up to {np.abs(values).max()} decode to {decoded}"
            )
    encoded = subject.codec.encode(np.empty(0, np.float32), Schema.single(0), key=1, round=0, client=0)
    body = encoded.sections.total - encoded.sections.header - encoded.sections.check
    expect(body == 0, f"an empty update takes {body} bytes")
    expect(decode(encoded.frame, Schema.single(0)).shape == (0,), "an empty update decodes to something else")
    expect(subject.through(gaussian(MANY.size), MANY).shape == (MANY.size,), "several tensors decode to another shape")


def extreme_values(subject: Subject) -> None:
    """Denormal and huge values decode to finite values of their own magnitude, without a warning."""
    for scale in (1e-45, 1e-40, 1e-30, 1e30, 3.4e38):
        values = (np.sin(np.arange(ONE.size, dtype=np.float64)) * scale).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                decoded = subject.through(values)
            except Warning as warning:
                raise ConformanceError(f"values of magnitude {scale:g} warn: {warning}") from None
        expect(bool(np.isfinite(decoded).all()), f"values of magnitude {scale:g} decode to something not finite")
        grown = float(np.abs(decoded.astype(np.float64)).max()) / float(np.abs(values.astype(np.float64)).max())
        expect(
            grown <= math.sqrt(ONE.size) * 2, f"values of magnitude {scale:g} decode to {grown:g} times as large ones"
        )


def non_finite_values_are_refused(subject: Subject) -> None:
    """A NaN or an infinity anywhere is a CodecError."""
    for bad in (np.nan, np.inf, -np.inf):
        for at in (0, MANY.size - 1):
            values = ramp()
            values[at] = bad
            try:
                subject.frame(values, MANY)
            except CodecError:
                continue
            raise ConformanceError(f"an update with {bad} at position {at} was encoded")


def other_arrays_give_the_same_frame(subject: Subject) -> None:
    """float16, float64, strided and reversed views of the same numbers give the same bytes."""
    values = gaussian().astype(np.float16).astype(np.float32)
    wanted = subject.frame(values)
    for name, same in (
        ("float16", values.astype(np.float16)),
        ("float64", values.astype(np.float64)),
        ("strided", np.repeat(values, 2)[::2]),
        ("reversed", values[::-1].copy()[::-1]),
    ):
        expect(subject.frame(same) == wanted, f"a {name} array of the same values gives another frame")


def adding_equals_decoding(subject: Subject) -> None:
    """`decode_add` gives the bits of decoding, weighing and adding, each rounded to float32."""
    for schema, values in ((ONE, gaussian()), (MANY, ramp())):
        frame = subject.frame(values, schema)
        total = gaussian(schema.size)[::-1].copy()
        wanted = total + decode(frame, schema) * np.float32(0.3)
        decode_add(frame, schema, total, weight=0.3)
        expect(bool((total == wanted).all()), "decode_add differs from decoding and then adding")


def memory_carries_on(subject: Subject) -> None:
    """With what it remembers, the next round's frame still needs nothing but the schema to decode."""
    memory: dict[str, Flat] = {}
    for round_ in range(1, 4):
        values = gaussian() * np.float32(1 + round_ / 4)
        encoded = subject.codec.encode(values, ONE, key=round_, round=round_, client=0, memory=memory)
        again = subject.codec.encode(values, ONE, key=round_, round=round_, client=0, memory=memory)
        expect(encoded.frame == again.frame, f"round {round_}: the same memory gave two different frames")
        expect(bool(np.isfinite(decode(encoded.frame, ONE)).all()), f"round {round_}: decodes to something not finite")
        memory = dict(encoded.memory)


def hostile_bytes_are_refused(subject: Subject) -> None:
    """Mutated bodies under a mended checksum raise a FrameError or decode to finite values, and nothing else."""
    random = np.random.default_rng(14)
    for schema, values in ((ONE, gaussian()), (MANY, ramp())):
        frame = subject.frame(values, schema)
        start = unseal(frame)[0].size
        body = np.frombuffer(frame[start:-4], np.uint8)
        for trial in range(60):
            mutant = body.copy()
            head = min(mutant.size, 24) if trial % 2 else mutant.size  # side information comes first
            for _ in range(int(random.integers(1, 4))):
                mutant[random.integers(head)] = random.choice(np.array([0, 1, 0x7F, 0x80, 0xFF, random.integers(256)]))
            if trial % 5 == 0:
                mutant = mutant[: random.integers(mutant.size)]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    decoded = decode(reseal(frame[:start] + mutant.tobytes()), schema)
                except FrameError:
                    continue
                except Exception as error:
                    raise ConformanceError(f"mutated bytes raise {type(error).__name__}: {error}") from error
            expect(bool(np.isfinite(decoded).all()), "mutated bytes decode to something not finite")


def reseal(frame: bytes) -> bytes:
    """A header and a body, with the length in the header made right and the checksum put behind."""
    whole = bytearray(frame)
    whole[3:11] = struct.pack("<Q", len(whole) + 4)
    return bytes(whole) + struct.pack("<I", checksum(bytes(whole)))


Check = Callable[[Subject], None]
CHECKS: tuple[Check, ...] = (
    prints_and_parses,
    size_is_exact,
    golden_bytes,
    nothing_left_over,
    same_key_same_bytes,
    error_is_as_declared,
    unbiased_if_declared,
    zero_stays_zero,
    small_shapes,
    extreme_values,
    non_finite_values_are_refused,
    other_arrays_give_the_same_frame,
    adding_equals_decoding,
    memory_carries_on,
    hostile_bytes_are_refused,
)


def verdicts(subject: Subject) -> list[Verdict]:
    """Run every check on a subject."""
    return judged(CHECKS, subject, ConformanceError)
