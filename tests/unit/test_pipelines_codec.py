"""`tightwire codec`: what cannot be checked or drawn is one clear line."""

from pathlib import Path

import numpy as np
import pytest

from tightwire.errors import CodecError, DataError
from tightwire_pipelines.codec import check_stage, plot_update

MODULE = """
import sys

from tightwire.codecs.floats import Plain
from tightwire.codecs.stage import Stage


class Abstract(Stage):
    name, takes, gives, family, passes, source, example = "abstract", ("reals",), None, "entropy", 1.0, "", "abstract"


class Copied(Plain):
    name = "copied"


class Garbled(Plain):
    name, example = "garbled", "garbled("
"""


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages_of_mine.py").write_text(MODULE)
    (tmp_path / "stages_that_exit.py").write_text("raise SystemExit(7)")
    (tmp_path / "stages_that_raise.py").write_text("raise RuntimeError('one\\ntwo')")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("stages_of_mine.Abstract", "names no stage; give package.module:Name"),
        ("stages_of_mine:Abstract", "does not implement .*encode.* of Stage"),
        ("stages_of_mine:Copied", "gives the example 'none', which is the stage 'none'"),
        ("stages_of_mine:Garbled", "gives the example 'garbled.', which is none"),
        ("stages_of_mine:sys", "must be a .*Stage or a subclass, got module"),
        ("stages_of_mine:nothing", "cannot be imported: AttributeError"),
        ("stages_that_exit:Mine", "cannot be imported: SystemExit: 7"),
        ("stages_that_raise:Mine", "cannot be imported: RuntimeError: one two$"),
        ("stages_that_are_not:Mine", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_stage_that_cannot_be_checked_is_refused_in_one_line(target: str, complaint: str) -> None:
    with pytest.raises(CodecError, match=complaint) as refusal:
        check_stage(target)
    assert "\n" not in str(refusal.value)


def test_zeros_and_a_folder_that_is_not_there_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    np.save(path, np.zeros(100, np.float32))
    with pytest.raises(DataError, match="holds nothing but zeros"):
        plot_update(path)
    np.save(path, np.ones(100, np.float32))
    with pytest.raises(DataError, match=r"--out .*: .*nowhere is not a folder"):
        plot_update(path, tmp_path / "nowhere" / "picture.png")
    with pytest.raises(DataError, match=r"the picture is a .png"):
        plot_update(path, tmp_path / "picture.pdf")
