"""The layout of the project itself."""

import subprocess
import sys
from pathlib import Path

import tightwire

ROOT = Path(__file__).resolve().parents[2]


def test_the_source_root_named_platform_does_not_shadow_the_standard_library() -> None:
    code = "import platform; print(platform.python_implementation())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "CPython"
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_library_starts_neither_ray_nor_mlflow() -> None:
    code = "import sys, tightwire.simulation; print([m for m in ('ray', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_package_says_that_it_is_typed() -> None:
    for package in ("platform/tightwire", "actors/tightwire_actors", "pipelines/tightwire_pipelines"):
        assert (ROOT / package / "py.typed").exists()
    assert Path(str(tightwire.__file__)).is_relative_to(ROOT)
