"""The stage that the docs show passes the conformance kit, by its class and through the command line."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tightwire.codecs.codec import Codec
from tightwire.codecs.registry import registered
from tightwire.errors import CodecError
from tightwire_pipelines.codec import app

DOCS = Path(__file__).resolve().parents[2] / "docs" / "codecs.md"


@pytest.fixture
def own_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "class Twn" in block
    )
    (tmp_path / "own_stages.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_stages", raising=False)
    return tmp_path


@pytest.mark.usefixtures("own_stage")
def test_the_documented_stage_holds_to_everything() -> None:
    result = CliRunner().invoke(app, ["check", "own_stages:Twn"])
    assert result.exit_code == 0, result.output
    assert "checks hold" in result.output


def test_a_broken_stage_is_found_out(own_stage: Path) -> None:
    path = own_stage / "own_stages.py"
    path.write_text(path.read_text().replace("unbiased: ClassVar[bool] = False", "unbiased = True"))
    result = CliRunner().invoke(app, ["check", "own_stages:Twn", "--json"])
    assert result.exit_code == 1
    failed = {check["check"]: check["failure"] for check in json.loads(result.output)["checks"] if check["failure"]}
    assert list(failed) == ["unbiased if declared"]
    assert "declared unbiased" in failed["unbiased if declared"]


@pytest.mark.usefixtures("own_stage")
def test_a_stage_is_known_only_while_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    import own_stages  # type: ignore[import-not-found]  # the file that the fixture wrote

    with registered(own_stages.Twn):
        assert str(Codec.parse("twn(0.5)")) == "twn(0.5)"
    with pytest.raises(CodecError, match="unknown stage 'twn'"):
        Codec.parse("twn(0.6)")


def test_what_is_no_stage_is_refused_in_one_line() -> None:
    for target, message in (
        ("json:loads", "must be a tightwire.codecs.stage.Stage"),
        ("nowhere_at_all:Stage", "cannot be imported"),
    ):
        result = CliRunner().invoke(app, ["check", target])
        assert isinstance(result.exception, CodecError)
        assert message in str(result.exception)
