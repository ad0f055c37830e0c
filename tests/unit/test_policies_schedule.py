import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import SCHEMA, UPDATE, observed
from tightwire.codecs.codec import Codec
from tightwire.policies.base import NoState
from tightwire.policies.schedule import Schedule

PLAN = {"codecs": [{"from": 1, "codec": "uniform(2)|rans"}, {"from": 5, "codec": "uniform(8)"}]}


@settings(deadline=None)
@given(round=st.integers(1, 100))
def test_the_last_line_whose_round_has_come_is_used(round: int) -> None:
    decision, state = Schedule.model_validate(PLAN).decide(NoState(), observed(round=round))
    assert decision.codec == ("uniform(2) | rans" if round < 5 else "uniform(8)")
    assert decision.reason == ("from round 1" if round < 5 else "from round 5")
    assert state == NoState()


def test_a_schedule_is_written_as_it_is_read() -> None:
    schedule = Schedule.model_validate(PLAN)
    dumped = schedule.model_dump(mode="json")
    assert dumped["codecs"][1] == {"from": 5, "codec": "uniform(8)"}
    assert Schedule.model_validate(dumped) == schedule


@pytest.mark.parametrize("round", [1, 30, 60])
def test_what_is_predicted_is_near_what_is_sent(round: int) -> None:
    decision, _ = Schedule().decide(NoState(), observed(round=round))
    assert decision.codec is not None
    frame = Codec.parse(decision.codec).encode(UPDATE, SCHEMA, key=1, round=round, client=7).frame
    assert decision.predicted_bytes == pytest.approx(len(frame), rel=0.05)
    assert decision.predicted_seconds == pytest.approx(0.05 + 8 * len(frame) / 1e6, rel=0.05)


def test_lines_that_cannot_be_predicted_are_sent_without_prediction() -> None:
    schedule = Schedule.model_validate({"codecs": [{"from": 1, "codec": "qsgd(4) | rans"}]})
    decision, _ = schedule.decide(NoState(), observed())
    assert (decision.codec, decision.predicted_bytes, decision.predicted_error) == ("qsgd(4) | rans", None, None)
    assert decision.bits > 0


def test_an_update_of_zeros_is_sent_with_the_line_of_the_round() -> None:
    decision, _ = Schedule().decide(NoState(), observed(np.zeros(SCHEMA.size, np.float32), round=1))
    assert decision.codec == "uniform(2) | rans"
    assert decision.predicted_error == 0


def test_a_plan_does_not_look_at_the_client() -> None:
    one = observed()
    other = dataclasses.replace(one, client=9, loss=7.0, samples=1, energy=0.0, told={"levels": 3.0})
    assert Schedule().decide(NoState(), one) == Schedule().decide(NoState(), other)


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ([], "at least 1 item"),
        ([{"from": 2, "codec": "uniform(2)"}], r"must be 1 in the first .* got \[2\]"),
        ([{"from": 1, "codec": "uniform(2)"}, {"from": 1, "codec": "uniform(4)"}], r"rise .* got \[1, 1\]"),
        ([{"from": 0, "codec": "uniform(2)"}], "greater than or equal to 1"),
        ([{"from": 1, "codec": "uniform(99)"}], "takes 1 to 16 bits, got 99"),
        ([{"from": 1, "codec": "joint(4)"}], "stage joint.*use policy fixed"),
        ([{"from": 1, "codec": "uniform(2)", "until": 3}], "[Ee]xtra"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(codecs: list[object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate({"codecs": codecs})
