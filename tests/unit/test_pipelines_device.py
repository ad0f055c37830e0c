"""`tightwire device`: every tier, every number, its unit and its source."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tightwire.devices.tiers import TIERS, UNITS
from tightwire.errors import ConfigError
from tightwire_pipelines.device import app

MINE = """
population:
  profiles:
    bench-box: {based_on: pi4-wifi, flops: 2.0e+9, source: measured on the bench}
  tiers: {bench-box: 1}
policy: {name: fixed}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return str(path)


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"}, catch_exceptions=False)
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.stdout


def test_the_list_names_all_built_in_tiers_and_those_of_a_file(file: str) -> None:
    for name in TIERS:
        assert name in said("list")
        assert name in said("list", "--file", file)
    assert "bench-box" in said("list", "--file", file)
    assert "bench-box" not in said("list")


@pytest.mark.parametrize("name", TIERS)
def test_show_gives_every_number_with_its_unit_and_source(name: str) -> None:
    shown = said("show", name)
    for number, unit in UNITS.items():
        assert number in shown
        assert unit in shown
    for source in TIERS[name].sources.values():
        assert source in shown


def test_json_holds_exact_values(file: str) -> None:
    (record,) = (r for r in json.loads(said("list", "--file", file, "--json")) if r["name"] == "bench-box")
    assert record == json.loads(said("show", "bench-box", "--file", file, "--json"))
    assert record["built_in"] is False
    assert record["numbers"]["flops"] == {"value": 2e9, "unit": "FLOP/s", "source": "measured on the bench"}
    assert record["numbers"]["battery"]["value"] is None
    assert record["numbers"]["uplink"]["value"] == TIERS["pi4-wifi"].uplink
    assert len(json.loads(said("list", "--json"))) == len(TIERS)


def test_an_unknown_tier_is_refused_with_the_nearest_name(file: str) -> None:
    with pytest.raises(ConfigError, match=r"'bench-bx'; did you mean 'bench-box'\?"):
        said("show", "bench-bx", "--file", file)
