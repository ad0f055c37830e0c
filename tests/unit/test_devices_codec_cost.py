import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.codecs.codec import Codec
from tightwire.codecs.family import lines
from tightwire.codecs.floats import Plain
from tightwire.codecs.grammar import example
from tightwire.codecs.registry import BUILT_IN
from tightwire.codecs.stage import Stage, Tally
from tightwire.devices.clock import CODEC_FLOPS, codec_seconds, compute_seconds
from tightwire.devices.codec_cost import Calibration, encode_flops, encode_seconds, shipped, work
from tightwire.devices.population import Population
from tightwire.errors import DataError
from tightwire.wire.schema import Schema, TensorSpec

PHONE = Population(tiers={"mid-phone-wifi": 1.0}, spread=0).profile(0, 0)
PI = Population(tiers={"pi4-wifi": 1.0}, spread=0).profile(0, 0)
GROWING = (
    *(line for line in lines() if line.split("(")[0] not in ("powersgd", "svd", "sketch")),  # those change what they do
    "topk(0.01) | uniform(4) | rans",
    "flatten | topk(0.1) | uniform(4) | rans(adaptive)",
)


def matrices(*shapes: tuple[int, ...]) -> Schema:
    return Schema(tuple(TensorSpec(f"t{i}", shape) for i, shape in enumerate(shapes)))


@dataclass(frozen=True)
class Unknown(Plain):
    """A stage of somebody else's."""

    name: ClassVar[str] = "unknown"
    example: ClassVar[str] = "unknown"
    passes: ClassVar[float] = 5.0


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
def test_every_built_in_stage_was_measured(kind: type[Stage]) -> None:
    assert kind.name in shipped().stages
    cost = shipped().cost(example(kind))
    assert cost.taken + cost.kept + cost.fixed > 0 or kind.name == "flatten"
    assert min(cost.taken, cost.kept, cost.fixed) >= 0


def test_a_stage_whose_arguments_were_measured_costs_what_they_cost() -> None:
    static, adaptive = (Codec.parse(f"uniform(4) | {text}").default.stages[-1] for text in ("rans", "rans(adaptive)"))
    assert shipped().cost(adaptive) == shipped().stages["rans(adaptive)"] != shipped().cost(static)


def test_an_unknown_stage_costs_its_passes_in_counted_operations() -> None:
    cost = shipped().cost(Unknown())
    assert (cost.kept, cost.fixed) == (0, 0)
    flops = cost.taken * 1e-9 * shipped().training_flops
    assert flops == pytest.approx(5 * CODEC_FLOPS)
    assert compute_seconds(1000 * flops, PHONE) == pytest.approx(codec_seconds(1000, 5, PHONE))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(GROWING), st.integers(2, 500), st.integers(2, 500))
def test_twice_the_values_take_longer(line: str, rows: int, columns: int) -> None:
    codec = Codec.parse(line)
    assert 0 < encode_flops(codec, matrices((rows, columns))) < encode_flops(codec, matrices((2 * rows, columns)))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["topk", "randk", "stc"]), st.sampled_from([0.002, 0.02, 0.2]), st.floats(1.5, 5))
def test_keeping_more_takes_longer(name: str, density: float, factor: float) -> None:
    few, many = (Codec.parse(f"{name}({share:.4f})") for share in (density, min(1.0, density * factor)))
    schema = matrices((500, 400))
    assert encode_flops(few, schema) < encode_flops(many, schema)


def test_a_longer_chain_takes_longer() -> None:
    schema = matrices((300, 400), (300,))
    costs = [encode_flops(Codec.parse(line), schema) for line in ("uniform(4)", "uniform(4) | rans")]
    assert costs[0] < costs[1]


def test_tensors_add_up_and_the_frame_comes_once() -> None:
    codec = Codec.parse("uniform(4) | rans")
    frame = shipped().frame * 1e-6 * shipped().training_flops
    one, two = matrices((300, 400)), matrices((300, 400), (300, 400))
    assert encode_flops(codec, two) - frame == pytest.approx(2 * (encode_flops(codec, one) - frame))
    assert encode_flops(codec, matrices((0,))) == pytest.approx(frame)


@pytest.mark.parametrize(
    ("line", "units"),
    [
        ("powersgd(3)", 12_000 * 3),
        ("svd(8)", 12_000 * 100),
        ("sketch(5, 100)", 12_000 * 5),
        ("trellis(3, states=32)", 12_000 * 4),
        ("uniform(4)", 12_000),
    ],
)
def test_work_counts_rank_side_rows_and_states(line: str, units: float) -> None:
    assert work(Codec.parse(line).default.stages[0], Tally(12_000, 32.0, shape=(100, 120))) == units


def test_a_device_encodes_as_much_slower_as_it_trains_slower() -> None:
    codec, schema = Codec.parse("topk(0.1) | uniform(4) | rans"), matrices((400, 500))
    ratio = encode_seconds(codec, schema, PHONE) / encode_seconds(codec, schema, PI)
    assert ratio == pytest.approx(PI.flops / PHONE.flops)


def test_encoding_two_hundred_thousand_values_takes_a_phone_milliseconds() -> None:
    seconds = encode_seconds(Codec.parse("uniform(4)"), matrices((400, 500)), PHONE)
    assert 0.0005 < seconds < 0.1


GOOD = {
    "training_flops": 1e9,
    "machine": "one core",
    "nanoseconds": {"none": {"pass": 1.0, "kept": 0.0}},
    "fixed_microseconds": {"frame": 2.0, "none": 3.0},
}


def test_a_calibration_is_read_as_it_was_written() -> None:
    found = Calibration.read(json.dumps(GOOD))
    assert found.seconds(Codec.parse("none").default, (1000,)) == pytest.approx(1000e-9 + 3e-6)
    assert (found.machine, found.frame, found.training_flops) == ("one core", 2.0, 1e9)


@pytest.mark.parametrize("missing", GOOD)
def test_a_file_that_is_no_calibration_is_refused(missing: str) -> None:
    with pytest.raises(DataError, match=r"not what benchmarks/codec_cost.py writes"):
        Calibration.read(json.dumps({name: value for name, value in GOOD.items() if name != missing}))


def test_a_file_that_is_no_json_is_refused() -> None:
    with pytest.raises(DataError, match="not what"):
        Calibration.read("{")
