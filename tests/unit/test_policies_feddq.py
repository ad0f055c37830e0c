import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import SCHEMA, UPDATE, observed
from tightwire.codecs.codec import Codec
from tightwire.policies.base import Decision, NoState
from tightwire.policies.feddq import FedDQ
from tightwire.policies.levels_of import extent, width_of


def decide(scale: float, policy: FedDQ | None = None) -> Decision:
    vector = (UPDATE * np.float32(scale)).astype(np.float32)
    return (policy or FedDQ()).decide(NoState(), observed(vector))[0]


@pytest.mark.parametrize(
    ("ratio", "bits"),
    [(0.0, 1), (0.5, 1), (1.0, 1), (1.01, 2), (3.0, 2), (3.01, 3), (200.0, 8), (1e9, 16), (math.inf, 16)],
)
def test_bits_are_those_of_the_papers_formula(ratio: float, bits: int) -> None:
    """By hand: range 1, resolution 0.005: ceil(log2(1 + 200)) = ceil 7.65 = 8; and 2^b - 1 steps need no more bits."""
    assert width_of(ratio, 1, 16) == bits


@given(st.floats(0, 1e5))
def test_comparing_gives_what_the_logarithm_gives(ratio: float) -> None:
    exact = math.log2(1 + ratio)
    if abs(exact - round(exact)) > 1e-9:
        assert width_of(ratio, 1, 32) == max(1, math.ceil(exact))


@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=10))
@settings(deadline=None, max_examples=30)
def test_bits_descend_as_the_range_shrinks(scales: list[float]) -> None:
    scales.sort(reverse=True)
    bits = [decide(scale).bits for scale in scales]
    assert bits == sorted(bits, reverse=True)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 5e4))
def test_the_step_is_no_wider_than_the_resolution_and_one_bit_less_would_be(scale: float) -> None:
    decision = decide(scale)
    vector = (UPDATE * np.float32(scale)).astype(np.float32)
    width = extent(observed(vector).stats)
    assert decision.codec is not None
    bits = int(decision.codec.split("(")[1].split(")")[0])
    assert width == pytest.approx(float(vector.max()) - float(vector.min()))
    if decision.reason == "range of update":
        assert width / (2**bits - 1) <= 0.005 < width / (2 ** (bits - 1) - 1)
    else:
        assert bits == (1 if decision.reason == "fewest bits" else 16)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-30, -3.0, 3.0e38])
def test_an_update_of_one_value_takes_the_fewest_bits(value: float) -> None:
    decision, _ = FedDQ().decide(NoState(), observed(np.full(SCHEMA.size, value, np.float32)))
    assert (decision.codec, decision.reason) == ("uniform(1) | rans", "fewest bits")


def test_the_widest_range_takes_the_most_bits_and_says_so() -> None:
    vector = np.zeros(SCHEMA.size, np.float32)
    vector[0], vector[-1] = -3.4e38, 3.4e38
    decision, _ = FedDQ().decide(NoState(), observed(vector))
    assert (decision.codec, decision.reason) == ("uniform(16) | rans", "most bits")


def test_what_is_predicted_is_near_what_is_sent() -> None:
    decision = decide(3.0)
    frame = Codec.parse(str(decision.codec)).encode(UPDATE, SCHEMA, key=1, round=1, client=7).frame
    assert decision.predicted_bytes == pytest.approx(len(frame), rel=0.05)
    assert decision.predicted_error is not None


def test_the_loss_and_the_server_have_no_say() -> None:
    one = FedDQ().decide(NoState(), observed())
    assert one == FedDQ().decide(NoState(), observed(loss=math.nan, told={"levels": 3.0}, deadline=None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": 0.0}, "greater than 0"),
        ({"min_bits": 9, "max_bits": 8}, "min_bits is 9, more than max_bits = 8"),
        ({"max_bits": 17}, "less than or equal to 16"),
        ({"codec": "qsgd({bits}) | rans"}, "codec with bits = 1: .*qsgd takes 2 to 16 bits, got 1"),
        ({"codec": "uniform(4) | rans"}, r"must have \{bits\} in it, once"),
        ({"codec": "joint({bits})", "min_bits": 4, "max_bits": 4}, "stage joint"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FedDQ.model_validate(fields)
