"""Variants of error feedback: what each sends, and what it remembers."""

import numpy as np
import pytest

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, Memory, decode
from tightwire.codecs.feedback import Classic, Dgc, Ef21, Feedback, Forget, encode_with_feedback, for_stages
from tightwire.wire.schema import Schema

N = 2000
SCHEMA = Schema.single(N)
VARIANTS = (Forget(), Classic(), Ef21(), Dgc(0.9))
each = pytest.mark.parametrize("feedback", VARIANTS, ids=lambda feedback: feedback.name)


def gaussian(seed: int) -> Flat:
    return np.random.default_rng(seed).standard_normal(N).astype(np.float32)


def turn(feedback: Feedback, line: str, update: Flat, memory: Memory, key: int = 0) -> tuple[Flat, Flat, Memory, float]:
    """What was encoded, what it decodes to, what is remembered, and the error."""
    vector, pending = feedback.owed(update, memory)
    frame = Codec.parse(line).encode(vector, SCHEMA, key=key, round=0, client=0).frame
    decoded = decode(frame, SCHEMA)
    return vector, decoded, *feedback.settle(vector, decoded, pending)


@each
def test_what_it_is_given_stays_as_it_was(feedback: Feedback) -> None:
    update, memory = gaussian(0), turn(feedback, "topk(0.1)", gaussian(1), {})[2]
    before = update.copy(), {name: array.copy() for name, array in memory.items()}
    turn(feedback, "topk(0.1)", update, memory)
    np.testing.assert_array_equal(update, before[0])
    assert memory.keys() == before[1].keys()
    for name, array in memory.items():
        np.testing.assert_array_equal(array, before[1][name])


@each
def test_a_newcomer_sends_the_update_itself(feedback: Feedback) -> None:
    vector, decoded, _, error = turn(feedback, "topk(0.1)", gaussian(0), {})
    np.testing.assert_array_equal(vector, gaussian(0))
    lost = np.square(vector - decoded, dtype=np.float64).sum() / np.square(vector, dtype=np.float64).sum()
    assert error == pytest.approx(lost, rel=1e-12)


@each
def test_zeros_leave_nothing_behind(feedback: Feedback) -> None:
    assert turn(feedback, "none", np.zeros(N, np.float32), {})[2:] == ({}, 0.0)


def test_without_feedback_nothing_is_remembered() -> None:
    assert turn(Forget(), "topk(0.1)", gaussian(0), {"residual": gaussian(1)})[2] == {}


@each
def test_encoding_with_feedback_is_one_turn(feedback: Feedback) -> None:
    line = "topk(0.1) | uniform(4)"
    before = turn(feedback, line, gaussian(1), {})[2]
    encoded, decoded, memory = encode_with_feedback(
        Codec.parse(line), feedback, gaussian(0), SCHEMA, before, key=0, round=0, client=0
    )
    vector, same, remembered, _ = turn(feedback, line, gaussian(0), before)
    assert encoded.frame == Codec.parse(line).encode(vector, SCHEMA, key=0, round=0, client=0).frame
    np.testing.assert_array_equal(decoded, same)
    assert memory.keys() == remembered.keys()
    for name, array in memory.items():
        np.testing.assert_array_equal(array, remembered[name])


def test_an_ef21_shift_is_the_sum_of_all_that_was_sent() -> None:
    memory: Memory = {}
    arrived = np.zeros(N, np.float32)
    for round_ in range(10):
        _, decoded, memory, _ = turn(Ef21(), "topk(0.2) | uniform(6)", gaussian(round_), memory, round_)
        arrived += decoded
        np.testing.assert_array_equal(memory["shift"], arrived)


def test_an_ef21_shift_converges_to_a_steady_update_as_the_contraction_promises() -> None:
    update, memory = gaussian(0), dict[str, Flat]()
    start = np.square(update, dtype=np.float64).sum()
    for round_ in range(1, 31):
        memory = dict(turn(Ef21(), "topk(0.1)", update, memory)[2])
        gap = np.square(update - memory["shift"], dtype=np.float64).sum()
        assert gap <= 0.9**round_ * start
    assert gap == 0, "each value comes up within ten rounds"


def test_dgc_is_the_papers_recursion_where_values_are_sent_exactly() -> None:
    memory: Memory = {}
    u, v = np.zeros(N, np.float32), np.zeros(N, np.float32)
    for round_ in range(8):
        update = gaussian(round_)
        u = np.float32(0.9) * u + update
        v = v + u
        vector, decoded, memory, _ = turn(Dgc(0.9), "topk(0.1)", update, memory)
        np.testing.assert_array_equal(vector, v)
        sent = decoded != 0
        assert sent.sum() == N // 10
        u[sent] = 0
        v[sent] = 0
        np.testing.assert_array_equal(memory["momentum"], u)
        np.testing.assert_array_equal(memory["velocity"], v)


def test_dgc_keeps_what_a_quantiser_lost_of_the_values_sent() -> None:
    vector, decoded, memory, _ = turn(Dgc(0.9), "topk(0.1) | uniform(3)", gaussian(0), {})
    sent = decoded != 0
    np.testing.assert_array_equal(memory["velocity"][sent], (vector - decoded)[sent])
    assert memory["velocity"][sent].any()
    assert not memory["momentum"][sent].any()


def test_dgc_without_momentum_is_classic() -> None:
    classic: Memory = {}
    dgc: Memory = {}
    for round_ in range(5):
        first, _, classic, _ = turn(Classic(), "topk(0.1) | uniform(4)", gaussian(round_), classic, round_)
        second, _, dgc, _ = turn(Dgc(0.0), "topk(0.1) | uniform(4)", gaussian(round_), dgc, round_)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(classic["residual"], dgc["velocity"])


def test_stages_are_told_apart_from_feedback() -> None:
    ours = turn(Dgc(0.5), "topk(0.1)", gaussian(0), {})[2]
    theirs = {"w[4,4]/0/powersgd(2)": np.ones(8, np.float32)}
    assert for_stages({**ours, **theirs}) == theirs
