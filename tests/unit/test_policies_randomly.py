from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policy_views import observed
from tightwire.policies.base import NoState
from tightwire.policies.randomly import Random

LINES = [{"codec": "uniform(2)", "weight": 1}, {"codec": "uniform(4)", "weight": 0.5}, {"codec": "fp16", "weight": 2.5}]


def drawn(policy: Random, round: int, client: int, draws: int = 0) -> str | None:
    return policy.decide(NoState(), observed(round=round, client=client, draws=draws))[0].codec


def test_lines_come_as_often_as_their_weights_say() -> None:
    policy = Random.model_validate({"codecs": LINES})
    counts = Counter(drawn(policy, number, client) for number in range(1, 41) for client in range(50))
    for line in LINES:
        share = float(str(line["weight"])) / 4
        spread = (share * (1 - share) / 2000) ** 0.5
        assert abs(counts[str(line["codec"])] / 2000 - share) < 4 * spread


@settings(deadline=None)
@given(round=st.integers(1, 10_000), client=st.integers(0, 10**9))
def test_a_draw_depends_on_seed_round_and_client_alone(round: int, client: int) -> None:
    one = Random().decide(NoState(), observed(round=round, client=client))
    other = Random().decide(
        NoState(), observed(round=round, client=client, loss=9.0, uplink=3.0, samples=1, latency=0.0)
    )
    assert one[0].codec == other[0].codec
    assert one == Random().decide(NoState(), observed(round=round, client=client))


@pytest.mark.parametrize("what", ["seed", "round", "client"])
def test_another_seed_round_or_client_draws_anew(what: str) -> None:
    draws = {
        drawn(Random(), i if what == "round" else 1, i if what == "client" else 0, i if what == "seed" else 0)
        for i in range(1, 40)
    }
    assert len(draws) == 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("codecs", [], "at least 1 item"),
        ("codecs", [{"codec": "fp16", "weight": 0}], "greater than 0"),
        ("codecs", [{"codec": "nothing(4)"}], "nothing"),
        ("codecs", [{"codec": "joint(4)"}], "stage joint"),
        ("seed", 1, "Extra inputs"),
    ],
)
def test_a_draw_that_makes_no_sense_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Random.model_validate({field: value})
