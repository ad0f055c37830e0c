"""The table of the family in the docs, and the frontier that `tightwire codec plot` draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tightwire.codecs import family, grammar
from tightwire.codecs.codec import Codec
from tightwire.codecs.frontier import CURVES
from tightwire.codecs.registry import BUILT_IN
from tightwire.errors import DataError
from tightwire_pipelines.codec import app
from tightwire_pipelines.codec_plot import draw

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_table_in_the_docs_is_what_the_code_says() -> None:
    written = (DOCS / "codecs.md").read_text().split(family.BEGIN)[1].split(family.END)[0]
    assert written == family.markdown(family.speeds(DOCS / "codec-speeds.json")), (
        "docs/codecs.md is behind the code; python -m tightwire.codecs.family writes it anew"
    )


def test_the_frontier_has_every_stage_that_loses_something_in_one_shot() -> None:
    # joint needs a cohort, dgc is topk with memory, rotate and flatten by themselves lose nothing
    drawn = {stage.name for curve in CURVES for line in curve.lines for stage in Codec.parse(line).default.stages}
    lossy = {kind.name for kind in BUILT_IN if kind.family in ("quantiser", "sparsifier", "factorisation")}
    assert lossy - drawn == {"joint", "dgc"}


def test_codec_list_shows_every_stage_under_its_family() -> None:
    shown = CliRunner().invoke(app, ["list"]).output
    for kind in BUILT_IN:
        assert grammar.signature(kind) in shown
    assert [shown.index(heading) for heading in family.FAMILIES.values()] == sorted(
        shown.index(heading) for heading in family.FAMILIES.values()
    )


def test_codec_plot_measures_every_curve_and_draws_them(tmp_path: Path) -> None:
    path = tmp_path / "update.npy"
    np.save(path, np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32))
    done = CliRunner().invoke(app, ["plot", str(path), "--json"])
    assert done.exit_code == 0, done.exception
    points = json.loads(done.output)
    assert [point["line"] for point in points] == [line for curve in CURVES for line in curve.lines]
    assert all(point["bits"] > 0 for point in points)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(app, ["plot", str(path), "--out", str(tmp_path / "other.png")]).output
    assert "bits a value" in shown
    assert (tmp_path / "other.png").exists()


def test_a_picture_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    from tightwire.codecs.frontier import Point

    points = [Point("uniform", "quantiser", "uniform(4)", 4.0, 0.01)]
    with pytest.raises(DataError, match="cannot be written"):
        draw(points, "title", tmp_path / "missing" / "picture.png")
