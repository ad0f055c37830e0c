import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import SCHEMA, UPDATE, observed
from tightwire.policies.base import Decision, NoState
from tightwire.policies.fedaq import FedAQ
from tightwire.policies.feddq import FedDQ
from tightwire.policies.predict import predict

VECTOR = (UPDATE * np.float32(200)).astype(np.float32)
STATS = observed(VECTOR).stats


def decide(energy: float, policy: FedAQ | None = None, **changes: float) -> Decision:
    return (policy or FedAQ()).decide(NoState(), observed(VECTOR, energy=energy, **changes))[0]


def bits_of(decision: Decision) -> int:
    assert decision.codec is not None
    return int(decision.codec.split("(")[1].split(")")[0])


@settings(deadline=None, max_examples=40)
@given(energy=st.floats(0, 2), tail=st.floats(0, 1e-2), share=st.floats(0.01, 1))
def test_bits_are_the_most_up_to_feddqs_whose_energy_fits_the_share(energy: float, tail: float, share: float) -> None:
    decision = decide(energy, FedAQ(share=share), joules_per_upload=tail)
    wanted = bits_of(FedDQ().decide(NoState(), observed(VECTOR))[0])
    weights = predict(STATS, tuple(range(1, 17)), (1.0,), "rans").bytes[:, 0]
    fits = [bits for bits in range(1, wanted + 1) if weights[bits - 1] * 1e-6 + tail <= share * energy]
    if fits:
        assert bits_of(decision) == max(fits)
        assert decision.reason == ("range of update" if max(fits) == wanted else "battery")
    else:
        assert (decision.codec, decision.reason) == (None, "no bits fit the battery")


def test_on_mains_it_is_feddq() -> None:
    one, other = decide(math.inf), FedDQ().decide(NoState(), observed(VECTOR))[0]
    assert (one.codec, one.bits, one.predicted_bytes) == (other.codec, other.bits, other.predicted_bytes)


def test_more_energy_never_gives_fewer_bits() -> None:
    bits = [decide(energy).bits for energy in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 1e9)]
    assert bits == sorted(bits)
    assert len(set(bits)) > 3


def test_bits_descend_as_the_range_shrinks() -> None:
    policy = FedAQ(share=1.0)
    bits = [
        policy.decide(NoState(), observed((UPDATE * np.float32(scale)).astype(np.float32), energy=4e-3))[0].bits
        for scale in (1e3, 1e2, 10, 3, 1, 0.1)
    ]
    assert bits == sorted(bits, reverse=True)
    assert len(set(bits)) > 3


def test_an_empty_battery_skips_unless_sending_is_free() -> None:
    assert decide(0.0).codec is None
    assert decide(-1.0).codec is None
    assert decide(0.0, joules_per_byte=0.0).codec is not None


def test_an_update_of_zeros_takes_the_fewest_bits() -> None:
    decision, _ = FedAQ().decide(NoState(), observed(np.zeros(SCHEMA.size, np.float32), energy=1e3))
    assert decision.codec == "uniform(1) | rans"


def test_lines_that_cannot_be_predicted_are_weighed_by_their_nominal_size() -> None:
    policy = FedAQ(codec="qsgd({bits})", min_bits=2, share=1.0)
    values = SCHEMA.size
    assert bits_of(decide(values * 5.5 / 8 * 1e-6, policy)) == 5
    assert decide(values * 1.5 / 8 * 1e-6, policy).codec is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0.0}, "greater than 0"),
        ({"share": 1.1}, "less than or equal to 1"),
        ({"resolution": -1.0}, "greater than 0"),
        ({"min_bits": 9, "max_bits": 8}, "min_bits is 9, more than max_bits = 8"),
        ({"codec": "fp16"}, r"must have \{bits\} in it"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FedAQ.model_validate(fields)
