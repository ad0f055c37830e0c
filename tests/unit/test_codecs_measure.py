import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tightwire.codecs.codec import Codec
from tightwire.codecs.measure import measure
from tightwire.codecs.registry import BUILT_IN
from tightwire.errors import CodecError, DataError, TightwireError
from tightwire_pipelines.codec import app


def gaussian(n: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize(("bits", "nmse"), [(1, 15.5), (2, 1.28), (4, 0.049), (8, 0.0002)])
def test_stochastic_uniform_has_the_nmse_of_algorithms_a2(bits: int, nmse: float) -> None:
    # the error grows with the square of one draw's range, hence the tolerance
    result = measure(Codec.parse(f"uniform({bits})"), gaussian(65_536), seeds=2)
    assert result.nmse == pytest.approx(nmse, rel=0.35)
    assert abs(result.bias) < 5 * (result.nmse / 65_536) ** 0.5


@pytest.mark.parametrize(("density", "nmse"), [(0.1, 0.559), (0.01, 0.915), (0.001, 0.988)])
def test_topk_leaves_the_energy_of_algorithms_a2(density: float, nmse: float) -> None:
    result = measure(Codec.parse(f"topk({density})"), gaussian(1_000_000), seeds=1)
    assert result.nmse == pytest.approx(nmse, abs=0.002)
    assert result.bias == pytest.approx(-nmse, abs=0.002)


def test_wire_bits_count_every_byte_and_rans_comes_close_to_the_entropy() -> None:
    result = measure(Codec.parse("topk(0.01) | uniform(4) | rans"), gaussian(1_000_000), seeds=1)
    assert result.wire_bits == 8 * result.bytes.total / result.values
    assert result.entropy_bits < result.wire_bits < 1.015 * result.entropy_bits
    assert result.nominal_bits == pytest.approx(0.01 * (4 + 20) + 64 / 1_000_000)


def test_measuring_nothing_is_refused() -> None:
    with pytest.raises(CodecError, match="a value and a seed"):
        measure(Codec.parse("none"), gaussian(0))


def test_a_zero_vector_has_no_error() -> None:
    assert measure(Codec.parse("uniform(4)"), np.zeros(10, np.float32), seeds=1).nmse == 0


def test_list_names_every_stage() -> None:
    output = CliRunner().invoke(app, ["list"]).output
    assert all(stage.name in output for stage in BUILT_IN)


def test_measure_prints_json_and_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "update.npy", gaussian(600).reshape(20, 30).astype(np.float64))
    line = "topk(0.1) | uniform(4) | rans"
    arguments = ["measure", line, "--input", str(tmp_path / "update.npy"), "--seeds", "2"]
    result = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert (result["codec"], result["values"], result["seeds"]) == (line, 600, 2)
    assert sum(result["bytes"].values()) > 0
    assert "NMSE" in CliRunner().invoke(app, arguments).output
    assert CliRunner().invoke(app, ["measure", "none", "--laplace", "100", "--json"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unifrom(4)"], "did you mean 'uniform'"),
        (["none", "--gaussian", "0"], "at least one value"),
        (["none", "--gaussian", "5", "--laplace", "5"], "exclude each other"),
        (["none", "--input", "missing.npy"], "missing.npy cannot be read"),
    ],
)
def test_bad_input_is_an_error_of_ours(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["measure", *arguments])
    assert isinstance(result.exception, TightwireError)
    assert message in str(result.exception)


def test_integers_and_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "integers.npy", np.arange(5))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("integers.npy", "objects.npy"):
        result = CliRunner().invoke(app, ["measure", "none", "--input", str(tmp_path / name)])
        assert isinstance(result.exception, DataError)
