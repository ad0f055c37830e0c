import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec, Memory, decode, decode_add, decode_header, fp32_frame_length
from tightwire.codecs.conformance import Subject, error_is_as_declared
from tightwire.codecs.feedback import Classic, Forget, encode_with_feedback
from tightwire.errors import FrameError
from tightwire.wire.schema import Schema, TensorSpec

LAYERS = (("fc1", 64, 128), ("fc2", 128, 64), ("fc3", 64, 10))
MLP = Schema(
    tuple(
        spec
        for name, inputs, outputs in LAYERS
        for spec in (TensorSpec(f"{name}.weight", (outputs, inputs)), TensorSpec(f"{name}.bias", (outputs,)))
    )
)
TYPICAL = "topk(0.1) | uniform(4) | rans"


def gaussian(n: int, seed: int = 0) -> Flat:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("line", ["none", TYPICAL, "uniform(4)", "topk(0.1) | uniform(4) | rans; *.bias: fp16"])
def test_everything_but_scales_indices_tables_and_codes_is_under_64_bytes_and_4_a_tensor(line: str) -> None:
    assert MLP.size == 17_226
    sections = Codec.parse(line).encode(gaussian(MLP.size), MLP, key=1, round=2, client=3).sections
    assert sections.header + sections.check < 64 + 4 * len(MLP.tensors)
    if "bias" not in line:
        assert sections.header + sections.check < 64


@pytest.mark.parametrize(("round_", "client"), [(0, 0), (1, 999_999), (2**32 - 1, 2**32 - 1)])
@pytest.mark.parametrize("schema", [MLP, Schema.single(0), Schema.single(1), Schema(())])
def test_fp32_frame_length_is_that_of_a_real_frame(schema: Schema, round_: int, client: int) -> None:
    frame = Codec.parse("none").encode(gaussian(schema.size), schema, key=0, round=round_, client=client).frame
    assert len(frame) == fp32_frame_length(schema)


def test_header_tells_round_client_and_line() -> None:
    frame = Codec.parse(TYPICAL).encode(gaussian(MLP.size), MLP, key=1, round=5, client=6).frame
    header = decode_header(frame)
    assert (header.round, header.client, header.digest) == (5, 6, MLP.digest)
    assert header.line == "topk(0.1)|uniform(4)|rans"


def test_what_was_hashed_in_another_process_is_found_again() -> None:
    program = """
import pickle, sys
from tightwire.codecs.codec import Codec
from tightwire.wire.schema import Schema
found = (codec := Codec.parse("topk(0.1); w: fp16")), codec.default, Schema.single(3)
sys.stdout.buffer.write(pickle.dumps({one: hash(one) for one in found}))
"""
    elsewhere = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=elsewhere, capture_output=True, check=True)
    found = pickle.loads(done.stdout)  # noqa: S301 - our own
    codec = Codec.parse("topk(0.1); w: fp16")
    assert {codec, codec.default, Schema.single(3)} == set(found)


def test_wrong_schema_round_and_client_are_refused() -> None:
    frame = Codec.parse(TYPICAL).encode(gaussian(MLP.size), MLP, key=1, round=5, client=6).frame
    decode(frame, MLP, round=5, client=6)
    for reason, round_, client in (("round", 4, None), ("client", 5, 7)):
        with pytest.raises(FrameError) as error:
            decode(frame, MLP, round=round_, client=client)
        assert error.value.reason == reason
    with pytest.raises(FrameError) as error:
        decode(frame, Schema.single(MLP.size))
    assert error.value.reason == "schema"


def test_decoding_into_given_memory_gives_the_same() -> None:
    frame = Codec.parse(TYPICAL).encode(gaussian(MLP.size), MLP, key=1, round=5, client=6).frame
    out = np.full(MLP.size, np.nan, np.float32)
    assert decode(frame, MLP, out=out) is out
    np.testing.assert_array_equal(out, decode(frame, MLP))
    with pytest.raises(ValueError, match="out must be"):
        decode(frame, MLP, out=np.empty(3, np.float32))


def test_layers_are_coded_by_their_rule() -> None:
    update = gaussian(MLP.size)
    codec = Codec.parse("topk(0.01) | uniform(2); *.bias: none")
    decoded = decode(codec.encode(update, MLP, key=1, round=0, client=0).frame, MLP)
    for tensor, part in zip(MLP.tensors, MLP.slices(), strict=True):
        if tensor.name.endswith("bias"):
            np.testing.assert_array_equal(decoded[part], update[part])
        else:
            assert np.count_nonzero(decoded[part]) <= round(0.01 * tensor.size) + 1


def test_bits_density_passes_and_nominal_bits_are_means_over_the_tensors() -> None:
    codec = Codec.parse("topk(0.5) | uniform(4); b: fp16")
    schema = Schema((TensorSpec("a", (100,)), TensorSpec("b", (50,)), TensorSpec("c", (0,))))
    assert codec.density(schema) == 100 / 150
    assert codec.bits(schema) == 10.0
    assert codec.nominal_bits(schema) == 50 * (4 + 7) + 64 + 50 * 16
    assert codec.passes(schema) == (100 * (3 + 0.5 * 2) + 50 * Codec.parse("fp16").passes(schema)) / 150
    assert Codec.parse("none").bits(schema) == 32
    assert Codec.parse("none").density(Schema(())) == 1


def test_tensors_and_keys_draw_different_noise() -> None:
    half = gaussian(5000)
    schema = Schema((TensorSpec("a", (5000,)), TensorSpec("b", (5000,))))
    codec = Codec.parse("uniform(1)")
    both = np.concatenate([half, half])
    one = decode(codec.encode(both, schema, key=1, round=0, client=0).frame, schema)
    other = decode(codec.encode(both, schema, key=2, round=0, client=0).frame, schema)
    assert (one[:5000] != one[5000:]).any()
    assert (one != other).any()


def test_feedback_owes_exactly_what_was_lost() -> None:
    codec = Codec.parse(TYPICAL)
    update, residual = gaussian(MLP.size), gaussian(MLP.size, 1)
    owed = {"residual": residual}
    encoded, decoded, memory = encode_with_feedback(codec, Classic(), update, MLP, owed, key=1, round=2, client=3)
    np.testing.assert_array_equal(decoded, decode(encoded.frame, MLP))
    np.testing.assert_array_equal(memory["residual"], (update + residual) - decoded)
    assert encoded == codec.encode(update + residual, MLP, key=1, round=2, client=3)


def test_with_feedback_all_of_a_repeated_update_arrives_in_the_end() -> None:
    codec, schema = Codec.parse("topk(0.05) | uniform(6)"), Schema.single(2000)
    update, arrived = gaussian(2000), np.zeros(2000)
    memory: Memory = {}
    for round_ in range(200):
        _, decoded, memory = encode_with_feedback(
            codec, Classic(), update, schema, memory, key=round_, round=round_, client=0
        )
        arrived += decoded
    assert np.linalg.norm(arrived / 200 - update) < 0.15 * np.linalg.norm(update)


def test_with_feedback_stages_remember_too() -> None:
    codec, schema = Codec.parse("powersgd(3)"), Schema((TensorSpec("w", (40, 50)),))
    update, errors = gaussian(2000), []
    memory: Memory = {}
    for round_ in range(8):
        _, decoded, memory = encode_with_feedback(
            codec, Forget(), update, schema, memory, key=round_, round=round_, client=0
        )
        errors.append(np.linalg.norm(update - decoded))
    assert errors[-1] < 0.97 * errors[0]  # power iteration goes on where it left off


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e300])
def test_a_weight_that_float32_cannot_hold_is_refused(weight: float) -> None:
    frame = Codec.parse("fp16").encode(gaussian(9), Schema.single(9), key=0, round=0, client=0).frame
    with pytest.raises(ValueError, match="weight"):
        decode_add(frame, Schema.single(9), np.zeros(9, np.float32), weight=weight)


@pytest.mark.parametrize("key", [-1, 2**64])
def test_a_key_of_more_than_64_bits_is_refused(key: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Codec.parse("uniform(4)").encode(gaussian(9), Schema.single(9), key=key, round=0, client=0)


@pytest.mark.parametrize("line", ["svd(energy=1) | uniform(1)", "powersgd(25) | qsgd(2)"])
def test_the_kit_holds_no_quantised_factors_to_a_bound_that_products_break(line: str) -> None:
    error_is_as_declared(Subject(line, trials=8))
