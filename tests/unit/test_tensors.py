from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch

from tightwire.arrays import Flat
from tightwire.codecs import codec as host
from tightwire.codecs import sums, twins
from tightwire.codecs.affine import Affine, quantise
from tightwire.codecs.codec import Codec
from tightwire.codecs.selection import select
from tightwire.codecs.stage import Plane
from tightwire.errors import CodecError, FrameError
from tightwire.tensors.codec import decode, decode_add, encode, stages_on_host
from tightwire.tensors.planes import TensorGroups, TensorPlane
from tightwire.tensors.quantisers import quantise_stochastic
from tightwire.tensors.stages import STAGES, largest
from tightwire.tensors.words import noise, pack, unpack
from tightwire.wire import packing
from tightwire.wire.frame import seal
from tightwire.wire.schema import Schema, TensorSpec
from tightwire.wire.streams import Sink

KEY = 2**63 + 12345
SCHEMA = Schema(
    (
        TensorSpec("first.weight", (90, 333)),
        TensorSpec("first.bias", (33,)),
        TensorSpec("empty", (0,)),
        TensorSpec("second.weight", (3, 50, 41)),
        TensorSpec("second.bias", (201,)),
    )
)
LINES = (
    "none",
    "fp16",
    "fp16(stochastic)",
    "bf16",
    "bf16(stochastic)",
    "uniform(4)",
    "uniform(1)",
    "uniform(3, nearest)",
    "uniform(16, floor)",
    "uniform(5, form=symmetric)",
    "uniform(levels=1000, per=channel)",
    "uniform(4, bucket=512)",
    "uniform(4, nearest, bucket=9000)",
    "uniform(4, range=static)",
    "uniform(4, nearest, range=fitted)",
    "uniform(3, nearest, form=symmetric, range=fitted, bucket=700)",
    "uniform(levels=1000, rounding=nearest, range=fitted, per=channel) | rans",
    "qsgd(4)",
    "qsgd(3, bucket=100)",
    "qsgd(4, norm=max, bucket=512)",
    "terngrad",
    "terngrad(per=channel)",
    "sign",
    "sign(bucket=10000)",
    "onebit",
    "onebit(bucket=77)",
    "topk(0.01)",
    "topk(0.9)",
    "topk(1)",
    "topk(0.1) | uniform(4) | rans",
    "flatten | topk(0.1)",
    "flatten | topk(0.05) | fp16; *.bias: bf16",
    "flatten | uniform(6) | rans; second.*: none",
    "uniform(2); first.*: topk(0.2) | sign",
    "flatten; *.bias: flatten | qsgd(4)",
    "uniform(4) | topk(0.1)",
    "rotate | uniform(4)",
    "fp8",
    "fp8(e5m2)",
    "fp8(rounding=nearest)",
    "fp8(e5m2, nearest, bucket=100)",
    "topk(0.3) | fp8(per=channel)",
    "natural",
    "natural(3, bucket=64)",
    "randk(0.1)",
)
"""What runs on the device, wholly or in part, or not at all."""

DEVICES = (
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")),
)


def inputs() -> Iterator[tuple[str, Flat]]:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(SCHEMA.size, np.float32)
    yield "gaussian", values
    yield "huge", np.clip(values.astype(np.float64) * 1e38, -3.4028e38, 3.4028e38).astype(np.float32)
    yield "tiny", values * np.float32(1e-44)
    yield "small", values * np.float32(1e-31)
    ties = np.round(values * 2) / np.float32(2)
    ties[::7] = -0.0
    yield "with ties and zeros of both signs", ties
    yield "constant", np.full_like(values, 0.3)
    yield "zeros", np.zeros_like(values)


INPUTS = dict(inputs())


def same(tensor: torch.Tensor, array: Flat) -> bool:
    """Whether all bits are the same."""
    values = tensor.cpu().numpy()
    return values.dtype == array.dtype and values.shape == array.shape and values.tobytes() == array.tobytes()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("line", LINES)
def test_frames_and_values_are_those_of_the_host(line: str, device: str) -> None:
    codec = Codec.parse(line)
    for name, values in INPUTS.items():
        wanted = codec.encode(values, SCHEMA, key=KEY, round=3, client=4)
        tensor = torch.from_numpy(values.copy()).to(device)
        encoded = encode(codec, tensor, SCHEMA, key=KEY, round=3, client=4)
        assert encoded.frame == wanted.frame, name
        assert encoded.sections == wanted.sections
        assert encoded.nominal_bits == wanted.nominal_bits
        assert same(tensor, values), "encoding left its input alone"
        decoded = decode(wanted.frame, SCHEMA, device=device, round=3, client=4)
        assert decoded.device.type == device
        assert same(decoded, host.decode(wanted.frame, SCHEMA)), name
        total = np.random.default_rng(1).standard_normal(SCHEMA.size, np.float32)
        total[::3] = -0.0
        added = torch.from_numpy(total.copy()).to(device)
        with np.errstate(over="ignore"):
            host.decode_add(wanted.frame, SCHEMA, total, weight=0.3)
        decode_add(wanted.frame, SCHEMA, added, weight=0.3)
        assert same(added, total), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 2, 31, 33, 8191, 16_385])
@pytest.mark.parametrize(
    "line",
    [
        "uniform(3)",
        "uniform(5, bucket=3)",
        "uniform(3, nearest, range=fitted)",
        "onebit",
        "qsgd(2)",
        "topk(0.5)",
        "terngrad",
        "fp8",
    ],
)
def test_any_length_has_the_frame_of_the_host(line: str, n: int, device: str) -> None:
    codec, schema = Codec.parse(line + "; *: " + line), Schema.single(n)
    values = np.random.default_rng(n).standard_normal(n, np.float32)
    wanted = codec.encode(values, schema, key=1, round=0, client=0).frame
    assert encode(codec, torch.from_numpy(values).to(device), schema, key=1, round=0, client=0).frame == wanted
    assert same(decode(wanted, schema, device=device), host.decode(wanted, schema))


@pytest.mark.parametrize("device", DEVICES)
def test_what_stages_remember_goes_from_frame_to_frame(device: str) -> None:
    codec = Codec.parse("uniform(4, range=static, bucket=1000)")
    memory, wanted_memory = None, None
    for turn, scale in enumerate((1, 3, 0.5)):
        values = INPUTS["gaussian"] * np.float32(scale)
        wanted = codec.encode(values, SCHEMA, key=turn, round=turn, client=0, memory=wanted_memory)
        tensor = torch.from_numpy(values).to(device)
        encoded = encode(codec, tensor, SCHEMA, key=turn, round=turn, client=0, memory=memory)
        assert encoded.frame == wanted.frame
        memory, wanted_memory = encoded.memory, wanted.memory


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_and_strided_updates_are_converted(dtype: torch.dtype, device: str) -> None:
    update = torch.from_numpy(INPUTS["gaussian"]).to(device, dtype).repeat_interleave(2)[::2].requires_grad_()
    codec = Codec.parse("uniform(4)")
    wanted = codec.encode(update.detach().float().cpu().numpy(), SCHEMA, key=1, round=0, client=0).frame
    assert encode(codec, update, SCHEMA, key=1, round=0, client=0).frame == wanted


@pytest.mark.parametrize("line", ["flatten | topk(0.1) | uniform(4) | rans", "sign", "fp16", "none"])
def test_stages_on_the_device_do_not_take_values_on_the_host(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.parse(line)
    wanted = codec.encode(INPUTS["gaussian"], SCHEMA, key=1, round=0, client=0).frame
    decoded = host.decode(wanted, SCHEMA)
    for stage in STAGES:
        monkeypatch.setattr(stage, "encode", None)
        monkeypatch.setattr(stage, "read", None)
    assert encode(codec, torch.from_numpy(INPUTS["gaussian"]), SCHEMA, key=1, round=0, client=0).frame == wanted
    assert same(decode(wanted, SCHEMA, device="cpu"), decoded)


def test_stages_on_the_host_are_named() -> None:
    assert stages_on_host(Codec.parse("flatten | topk(0.1) | uniform(4) | rans; *.bias: fp16")) == ()
    assert stages_on_host(Codec.parse("uniform(4) | topk(0.1) | rans")) == ()
    assert stages_on_host(Codec.parse("randk(0.1) | uniform(4); *.bias: topk(0.1) | eden(2)")) == ("randk", "eden")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8, 11, 12, 16, 17, 24, 31])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 100, 16_384, 40_007])
def test_packed_codes_are_those_of_the_host(bits: int, n: int, device: str) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, n).astype(np.uint32)
    data = packing.pack(codes, bits)
    packed = pack(torch.from_numpy(codes.astype(np.int32)).to(device), bits)
    np.testing.assert_array_equal(packed.cpu().numpy(), data)
    np.testing.assert_array_equal(unpack(packed, n, bits).cpu().numpy(), codes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1, KEY])
def test_noise_is_that_of_the_host(key: int, device: str) -> None:
    drawn = noise(100_000, key, torch.device(device))
    np.testing.assert_array_equal(drawn.cpu().numpy(), twins.noise(100_000, key))


@pytest.mark.parametrize("device", DEVICES)
def test_what_lies_on_a_grid_is_not_rounded_up_even_without_noise(device: str) -> None:
    assert twins.noise(1, 0)[0] == 0
    values = np.arange(3, 16, dtype=np.float32)
    affine = Affine.spanning(np.zeros(1, np.float32), np.full(1, 15, np.float32), 15, values.size)
    codes = quantise_stochastic(torch.from_numpy(values).to(device), affine, 0)
    np.testing.assert_array_equal(codes.cpu().numpy(), values)
    np.testing.assert_array_equal(pack(codes, 4).cpu().numpy(), quantise(values, affine, key=0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 5, 32, 77, 8191, 8192, 8193, 20_000, 50_000])
def test_statistics_of_groups_are_those_of_the_host(length: int, device: str) -> None:
    values = np.random.default_rng(length).standard_cauchy(50_000).astype(np.float32)
    plane = Plane.reals(values)
    wanted = sums.PlaneGroups(values.size, length, plane)
    groups = TensorGroups(values.size, length, TensorPlane(plane.layout, torch.from_numpy(values).to(device)))
    np.testing.assert_array_equal(groups.extremes(), wanted.extremes())
    np.testing.assert_array_equal(groups.peaks(), wanted.peaks())
    np.testing.assert_array_equal(groups.norms(), wanted.norms())
    np.testing.assert_array_equal(groups.deviations(), wanted.deviations())
    np.testing.assert_array_equal(groups.halves(), wanted.halves())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 2, 50, 333, 999, 1000])
def test_of_equal_magnitudes_the_first_are_kept(k: int, device: str) -> None:
    values = np.random.default_rng(k).integers(-3, 4, 1000).astype(np.float32)
    values[[5, 17, 400]] = np.nan, -np.inf, np.inf
    wanted, _ = select(values, k)
    np.testing.assert_array_equal(largest(torch.from_numpy(values).to(device), k).cpu().numpy(), wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "line", ["none", "fp16", "uniform(4)", "topk(0.1)", "flatten", "topk(0.1) | sign", "randk(0.5)"]
)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_updates_that_are_not_finite_are_refused(line: str, wrong: float, device: str) -> None:
    values = torch.from_numpy(INPUTS["gaussian"].copy()).to(device)
    values[123] = wrong
    with pytest.raises(CodecError, match="holds a NaN or an infinity"):
        encode(Codec.parse(line), values, SCHEMA, key=1, round=0, client=0)


def test_updates_of_another_form_are_refused() -> None:
    codec = Codec.parse("none")
    with pytest.raises(CodecError, match=r"has shape \(36354,\) by its schema, got \(5,\)"):
        encode(codec, torch.zeros(5), SCHEMA, key=1, round=0, client=0)
    with pytest.raises(CodecError, match=r"of floats, got torch.int64"):
        encode(codec, torch.zeros(SCHEMA.size, dtype=torch.int64), SCHEMA, key=1, round=0, client=0)
    frame = codec.encode(INPUTS["zeros"], SCHEMA, key=1, round=0, client=0).frame
    for total in (torch.zeros(5), torch.zeros(SCHEMA.size, dtype=torch.float64), torch.zeros(2 * SCHEMA.size)[::2]):
        with pytest.raises(ValueError, match="total must be contiguous float32 of shape"):
            decode_add(frame, SCHEMA, total)


def outcome(decoder: Callable[[], Flat | torch.Tensor]) -> bytes | tuple[str, str]:
    """The bytes decoded, or why there are none."""
    try:
        values = decoder()
    except FrameError as error:
        return error.reason, str(error)
    return (values.cpu().numpy() if isinstance(values, torch.Tensor) else values).tobytes()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "line", ["none", "fp16", "bf16", "uniform(levels=5)", "qsgd(3)", "onebit", "fp8", "natural(4)", "topk(0.3) | sign"]
)
def test_damaged_frames_fail_as_on_the_host(line: str, device: str) -> None:
    schema, rng = Schema.single(300), np.random.default_rng(0)
    codec = Codec.parse(f"{line}; *: {line}")
    values = rng.standard_normal(300, np.float32)
    sink = Sink()
    for _ in codec.planes(values, schema, sink, key=1):
        pass
    body = np.frombuffer(b"".join(sink.pieces), np.uint8)
    outcomes = set()
    for _ in range(200):
        damaged = body.copy()
        damaged[rng.integers(0, rng.choice([12, body.size]), 2)] = rng.integers(0, 256, 2)
        damaged = damaged[: rng.choice([body.size, body.size, body.size - 1])]
        sink = Sink()
        sink.write("codes", damaged)
        frame, _ = seal(sink, digest=schema.digest, round=0, client=0, line=codec.compact)
        wanted = outcome(partial(host.decode, frame, schema))
        assert outcome(partial(decode, frame, schema, device=device)) == wanted
        outcomes.add(isinstance(wanted, bytes))
    assert outcomes == {True, False}


def test_frames_for_others_are_refused() -> None:
    codec, schema = Codec.parse("uniform(4)"), Schema.single(100)
    frame = codec.encode(np.ones(100, np.float32), schema, key=1, round=5, client=6).frame
    for reason, arguments in (("round", {"round": 4}), ("client", {"client": 5})):
        with pytest.raises(FrameError) as caught:
            decode(frame, schema, device="cpu", **arguments)
        assert caught.value.reason == reason
    for reason, other, data in (("schema", Schema.single(101), frame), ("truncated", schema, frame[:-1])):
        with pytest.raises(FrameError) as caught:
            decode(data, other, device="cpu")
        assert caught.value.reason == reason
    sink = Sink()
    sink.write("codes", b"\0" * 500)
    for reason, line in (("trailing", "none"), ("codec", "nothing")):
        frame, _ = seal(sink, digest=schema.digest, round=0, client=0, line=line)
        with pytest.raises(FrameError) as caught:
            decode(frame, schema, device="cpu")
        assert caught.value.reason == reason
