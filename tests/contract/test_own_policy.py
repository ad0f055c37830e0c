"""The policy that the docs show passes the conformance kit, by its class and as an installed package's."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tightwire.errors import ConfigError
from tightwire_pipelines.policy import app

DOCS = Path(__file__).resolve().parents[2] / "docs" / "policies.md"


@pytest.fixture
def own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if "class Halving" in block
    )
    (tmp_path / "own_policies.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_policies", raising=False)
    return tmp_path


@pytest.mark.usefixtures("own_policy")
def test_the_documented_policy_holds_to_everything() -> None:
    result = CliRunner().invoke(app, ["check", "own_policies:Halving"])
    assert result.exit_code == 0, result.output
    assert "checks hold" in result.output


@pytest.mark.parametrize(
    ("right", "wrong", "check"),
    [
        ("min(self.most, max(1e-4, ratio))", "float('nan')", "learning takes whatever happens"),
        ('f"density {state.ratio:.3g}"', '""', "decides in every situation"),
        ("observation, f", "observation, f'{__import__(\"time\").perf_counter_ns()} ' + f", "deciding is pure"),
    ],
)
def test_a_broken_policy_is_found_out(own_policy: Path, right: str, wrong: str, check: str) -> None:
    path = own_policy / "own_policies.py"
    broken = path.read_text().replace(right, wrong)
    assert broken != path.read_text()
    path.write_text(broken)
    result = CliRunner().invoke(app, ["check", "own_policies:Halving", "--json"])
    assert result.exit_code == 1
    failed = [row["check"] for row in json.loads(result.output)["checks"] if row["failure"]]
    assert check in failed


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("own_policies:Pace", "must be a subclass of tightwire.policies.base.Alone"),
        ("own_policies:Nothing", "cannot be imported: AttributeError"),
        ("nowhere:Halving", "cannot be imported: ModuleNotFoundError"),
        ("halvign", "should be one of"),
        ("{name: budget, max_ratoi: 1}", "did you mean max_ratio?"),
    ],
)
@pytest.mark.usefixtures("own_policy")
def test_what_is_no_policy_is_refused_in_one_line(target: str, complaint: str) -> None:
    result = CliRunner().invoke(app, ["check", target])
    assert isinstance(result.exception, ConfigError)
    assert complaint in str(result.exception)
    assert "\n" not in str(result.exception)


def test_an_entry_point_makes_its_name_known_to_experiment_files(own_policy: Path) -> None:
    info = own_policy / "mypackage-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tightwire.policies]\nhalving = own_policies:Halving\n")
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tightwire import config\n"
        "print(repr(config.load(None, ('policy={name: halving, bits: 3}',)).policy))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=own_policy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bits=3" in done.stdout
