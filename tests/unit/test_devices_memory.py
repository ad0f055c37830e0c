import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.codecs.codec import Codec
from tightwire.codecs.family import lines
from tightwire.devices.memory import refusal, training_memory, workspace
from tightwire.devices.population import Population
from tightwire.wire.schema import Schema, TensorSpec

MLP = Schema(tuple(TensorSpec(f"t{i}", s) for i, s in enumerate([(200, 300), (200,), (300, 200), (300,), (10, 300)])))

CHAINS = (
    *lines(),
    "topk(0.1) | uniform(4) | rans",
    "topk(0.01) | uniform(8)",
    "uniform(4) | topk(0.1) | rans",
    "flatten | topk(0.05) | uniform(4) | golomb",
    "rotate | uniform(4) | rans",
    "powersgd(16) | uniform(8)",
    "eden(1) | rans",
    "eden(1, bucket=16)",
    "uniform(4); t[13]: fp16",
)
"""The family, and chains as people write them."""


def test_training_memory_counts_four_vectors_and_one_batch_of_activations() -> None:
    assert training_memory(1000, 24, 10) == 4 * 4 * 1000 + 240
    with pytest.raises(ValueError, match="none may be negative"):
        training_memory(-1, 0, 0)


def test_a_device_with_just_enough_takes_part() -> None:
    profile = Population(tiers={"sensor-lora": 1.0}, spread=0).profile(0, 0)
    assert refusal(profile, profile.memory) is None
    assert refusal(profile, math.nextafter(profile.memory, math.inf)) == "memory"


@pytest.mark.parametrize("line", CHAINS)
def test_the_workspace_is_within_a_factor_of_two_of_what_encoding_really_takes(line: str) -> None:
    codec = Codec.parse(line)
    values = np.random.default_rng(0).standard_normal(MLP.size, np.float32)
    codec.encode(values, MLP, key=1, round=1000, client=0)  # compiles, and fills caches
    tracemalloc.start()
    codec.encode(values, MLP, key=1, round=1000, client=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / 2 <= workspace(codec, MLP) <= 2 * peak


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CHAINS), st.integers(2, 400), st.integers(2, 400))
def test_twice_the_values_take_no_less_memory(line: str, rows: int, columns: int) -> None:
    codec = Codec.parse(line)
    small, large = (Schema((TensorSpec("w", (n, columns)),)) for n in (rows, 2 * rows))
    assert workspace(codec, small) > 0
    if not codec.default.stages[0].wants_axes and codec.default.stages[0].name != "sketch":  # those change what they do
        assert workspace(codec, small) <= workspace(codec, large)


def test_an_update_of_nothing_takes_next_to_nothing() -> None:
    assert workspace(Codec.parse("uniform(4)"), Schema((TensorSpec("w", (0,)),))) <= 8192
