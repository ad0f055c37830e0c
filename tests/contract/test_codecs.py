"""What every codec must hold to: the public conformance kit on every codec there is. A new one adds one row."""

import numpy as np
import pytest

from tightwire.arrays import AnyArray
from tightwire.codecs.codec import Codec
from tightwire.codecs.conformance import CHECKS, ONE, Check, Subject, gaussian
from tightwire.codecs.registry import stages
from tightwire.errors import CodecError

GOLDEN = {
    "none": "",
    "fp16": "",
    "fp16(stochastic)": "",
    "bf16": "",
    "bf16(stochastic)": "",
    "fp8(e4m3)": "",
    "fp8(e5m2)": "",
    "fp8(e4m3, rounding=nearest, bucket=64)": "",
    "uniform(1)": "",
    "uniform(3)": "",
    "uniform(4)": "",
    "uniform(4, rounding=nearest)": "",
    "uniform(4, rounding=floor)": "",
    "uniform(4, form=symmetric)": "",
    "uniform(4, range=static)": "",
    "uniform(4, per=channel)": "",
    "uniform(4, bucket=96)": "",
    "uniform(levels=11)": "",
    "uniform(11)": "",
    "uniform(16)": "",
    "qsgd(4)": "",
    "qsgd(4, norm=max, bucket=128)": "",
    "qsgd(levels=16, per=channel)": "",
    "terngrad": "",
    "terngrad(0)": "",
    "sign": "",
    "sign(per=channel)": "",
    "onebit": "",
    "onebit(bucket=100)": "",
    "natural": "",
    "natural(4, bucket=64)": "",
    "kmeans(3)": "",
    "kmeans(2, per=channel)": "",
    "joint(8)": "",
    "rotate": "",
    "rotate | uniform(4)": "",
    "rotate | qsgd(3, norm=max) | rans": "",
    "eden(0.5)": "",
    "eden(1)": "",
    "eden(1, scale=biased)": "",
    "eden(2.5)": "",
    "eden(4)": "",
    "eden(8)": "",
    "eden(2, bucket=128)": "",
    "trellis(1.5)": "",
    "trellis(step=0.5, states=4)": "",
    "trellis(bits=3, bucket=200) | rans": "",
    "uniform(4) | rans": "",
    "uniform(8) | rans": "",
    "uniform(13) | rans": "",
    "uniform(4) | rans(adaptive)": "",
    "qsgd(levels=16) | elias": "",
    "qsgd(levels=16) | elias(gamma)": "",
    "uniform(4) | golomb": "",
    "terngrad | runs": "",
    "uniform(4) | zstd": "",
    "qsgd(3) | auto": "",
    "topk(0.1)": "",
    "topk(1)": "",
    "topk(0.6)": "",
    "topk(0.1) | fp16": "",
    "topk(0.01) | uniform(4)": "",
    "topk(0.1) | uniform(4) | rans": "",
    "topk(0.1) | rotate | uniform(2)": "",
    "topk(0.5) | topk(0.5) | bf16": "",
    "topk(0.1) | uniform(4) | rans; b*: fp16": "",
    "uniform(4) | topk(0.1)": "",
    "qsgd(4) | topk(0.2) | rans": "",
    "flatten | topk(0.1) | uniform(4)": "",
    "flatten | eden(1)": "",
    "threshold(1.5)": "",
    "threshold(quantile=0.95) | fp16": "",
    "randk(0.1)": "",
    "randk(0.1, scale=none) | uniform(4)": "",
    "structured(rows, 0.2)": "",
    "structured(blocks, 0.25) | uniform(4) | rans": "",
    "structured(filters, 0.5)": "",
    "dgc(0.1) | fp16": "",
    "stc(0.05)": "",
    "stc(0.05) | rans": "",
    "powersgd(2)": "",
    "powersgd(4) | fp16": "",
    "svd(2)": "",
    "svd(energy=0.5)": "",
    "sketch(5, 100)": "",
    "sketch(4, 150, estimate=mean)": "",
}
"""Codec lines, and the digest of their frame of a known input."""

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
