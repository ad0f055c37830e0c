"""What every codec must hold to: the public conformance kit on every codec there is. A new one adds one row."""

import numpy as np
import pytest

from tightwire.arrays import AnyArray
from tightwire.codecs.codec import Codec
from tightwire.codecs.conformance import CHECKS, ONE, Check, Subject, gaussian
from tightwire.codecs.registry import stages
from tightwire.errors import CodecError

GOLDEN = {
    "none": "bd61a321d96c5a5c",
    "fp16": "7cf524e45a134f80",
    "fp16(stochastic)": "f6ed4aa625b005d6",
    "bf16": "d4e59ba6f396bc59",
    "bf16(stochastic)": "bd72975de304b34f",
    "fp8(e4m3)": "7329cb7f56ae6103",
    "fp8(e5m2)": "47fd33901e9995a6",
    "fp8(e4m3, rounding=nearest, bucket=64)": "ae2bc81eb0e113bb",
    "uniform(1)": "7e3bb3ec570069ad",
    "uniform(3)": "343856ee6fbfaf5b",
    "uniform(4)": "d3798cca8aba9a47",
    "uniform(4, rounding=nearest)": "12b3a0fb7896355b",
    "uniform(4, rounding=floor)": "a98b70f9ac869e77",
    "uniform(4, form=symmetric)": "0a5585be3cb3ec25",
    "uniform(4, range=static)": "ef050bcdb7bc9dd6",
    "uniform(4, rounding=nearest, range=fitted)": "460739a1737c3fef",
    "uniform(3, rounding=nearest, form=symmetric, range=fitted)": "7803f3cc9a25f864",
    "uniform(4, rounding=nearest, range=fitted, per=channel)": "73e9350c9ed1c773",
    "uniform(4, rounding=nearest, range=fitted, bucket=96)": "49f3f59ca0a37ebe",
    "uniform(4, per=channel)": "88610829e7879d0b",
    "uniform(4, bucket=96)": "c092912bdf619710",
    "uniform(levels=11)": "4be7a8d83cfd16f6",
    "uniform(11)": "a7b7a796f5e1707e",
    "uniform(16)": "b422ac94b5ed4527",
    "qsgd(4)": "ca97646eab95df71",
    "qsgd(4, norm=max, bucket=128)": "2ce8aca3b51b8e8d",
    "qsgd(levels=16, per=channel)": "527a301246bbeff5",
    "terngrad": "d3a39e68f80c1f62",
    "terngrad(0)": "415a6a230f19cdc6",
    "sign": "18e00d49bab1125b",
    "sign(per=channel)": "9e2a84c817138579",
    "onebit": "f13ca43867e47fad",
    "onebit(bucket=100)": "89a2a5a26dffad81",
    "natural": "c1999ac906b12903",
    "natural(4, bucket=64)": "0d1f44621b470da2",
    "kmeans(3)": "368a1ee5f29465ed",
    "kmeans(2, per=channel)": "dd656f9afaf07bd3",
    "joint(8)": "761839d5bd071af1",
    "rotate": "8ed01e7b46306751",
    "rotate | uniform(4)": "2c0d9849c221d8a7",
    "rotate | qsgd(3, norm=max) | rans": "d077b1b4f5bab8d5",
    "eden(0.5)": "71461dc30dde2490",
    "eden(1)": "1eb242858fe07bef",
    "eden(1, scale=biased)": "ad112973872fc2cd",
    "eden(2.5)": "1b5bcd9a41ceb838",
    "eden(4)": "d56e2359f0b119eb",
    "eden(8)": "d36ee90a24b383ff",
    "eden(2, bucket=128)": "7c6d376187be8337",
    "trellis(1.5)": "8f6abd1ae2b299ce",
    "trellis(step=0.5, states=4)": "0dc78be65822d34e",
    "trellis(bits=3, bucket=200) | rans": "28a4ec409e4b2b0a",
    "uniform(4) | rans": "75f2db36a25cb9d4",
    "uniform(rounding=nearest, levels=15, range=fitted) | rans": "2a8b87143259d141",
    "uniform(8) | rans": "d5b19bbd0d12b0a5",
    "uniform(13) | rans": "ad8779ece927f359",
    "uniform(4) | rans(adaptive)": "d4e964d9ed11cb04",
    "qsgd(levels=16) | elias": "bd8ed0c7e1bff1dd",
    "qsgd(levels=16) | elias(gamma)": "cdfe98ee0fd9cc58",
    "uniform(4) | golomb": "b0c9043a08e64841",
    "terngrad | runs": "3dfd817122b525b0",
    "uniform(4) | zstd": "66c2c6aaf5ce3bb6",
    "qsgd(3) | auto": "f2fe7d1d64bf397b",
    "topk(0.1)": "d90b22f56f55e8f0",
    "topk(1)": "2f4aca0858aaeb94",
    "topk(0.6)": "197211998870c140",
    "topk(0.1) | fp16": "9f541b004534556d",
    "topk(0.01) | uniform(4)": "ac1f899ff9ff80f3",
    "topk(0.1) | uniform(4) | rans": "b01cf835d4e00553",
    "topk(0.1) | rotate | uniform(2)": "861681a0903c5ae1",
    "topk(0.5) | topk(0.5) | bf16": "d0bb88bcd477a9f8",
    "topk(0.1) | uniform(4) | rans; b*: fp16": "3ceaf8940474a2f3",
    "uniform(4) | topk(0.1)": "147eabf11c00f384",
    "uniform(4, rounding=nearest, range=fitted) | topk(0.1)": "f691b509e17ab697",
    "qsgd(4) | topk(0.2) | rans": "9d7be7bc38cf5dcc",
    "flatten | topk(0.1) | uniform(4)": "efcceca7afb60f04",
    "flatten | eden(1)": "04b05f555c582484",
    "threshold(1.5)": "78c9009c51eaa709",
    "threshold(quantile=0.95) | fp16": "f5beb82899ed4531",
    "randk(0.1)": "ed3ab191a7089905",
    "randk(0.1, scale=none) | uniform(4)": "9a7ae814d98e044b",
    "structured(rows, 0.2)": "5aaf04427233821f",
    "structured(blocks, 0.25) | uniform(4) | rans": "6afbda3ad0a4b00c",
    "structured(filters, 0.5)": "c1dab677274cc3ae",
    "dgc(0.1) | fp16": "bdf8e216267d3820",
    "stc(0.05)": "3fd6a669667eddce",
    "stc(0.05) | rans": "c9b0a93a19d4b0ee",
    "powersgd(2)": "0bc2c94e1f11c9bd",
    "powersgd(4) | fp16": "8b072efd7cde45f2",
    "svd(2)": "",
    "svd(energy=0.5)": "",
    "sketch(5, 100)": "6d68a061bf7cdb9d",
    "sketch(4, 150, estimate=mean)": "6f4725aaf39a96cb",
}
"""Codec lines, and the digest of their frame of a known input; none for `svd`, whose last bits are those of LAPACK."""

SUBJECTS = tuple(Subject(line, golden or None) for line, golden in GOLDEN.items())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.line)
def test_conformance(subject: Subject, check: Check) -> None:
    check(subject)


def test_every_stage_is_held_to_the_contract() -> None:
    lines = " ".join(GOLDEN)
    assert [name for name in stages() if name not in lines] == []


@pytest.mark.parametrize("line", GOLDEN)
def test_what_is_no_update_is_refused(line: str) -> None:
    codec = Codec.parse(line)
    short, matrix, codes = np.zeros(999, np.float32), np.zeros((1000, 1), np.float32), np.zeros(1000, np.int32)
    wrongs: tuple[AnyArray, ...] = (short, matrix, codes)
    for wrong in wrongs:
        with pytest.raises(CodecError, match="an update"):
            codec.encode(wrong, ONE, key=1, round=0, client=0)
    with pytest.raises(CodecError, match="finite"):
        codec.encode(np.full(1000, 1e300), ONE, key=1, round=0, client=0)


@pytest.mark.parametrize("line", ["none", "topk(1)", "threshold(0)"])
def test_exact_codecs_are_exact(line: str) -> None:
    np.testing.assert_array_equal(Subject(line).through(gaussian()), gaussian())
