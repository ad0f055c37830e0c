import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tightwire.errors import ConfigError, TrackingError
from tightwire.federation.records import DecisionRow, LedgerRow, RoundRecord
from tightwire.federation.tables import atomic_file, read_rows, table_schema, write_rows_atomically
from tightwire.tracking.environment import environment_tags
from tightwire.tracking.folder import RunFolder, check_latest, point_latest
from tightwire.tracking.summary import read_digest, stamp_run_id, summarise, write_summary

ROUND = RoundRecord(1, 0.5, 1.25, None, 10, 20, 3, 40, 50, 1.5, 1.5, 2.5, 0.1, 4.0, 0.25, 5, 4, 0, 0, 0, 1, 0)
DECISION = DecisionRow(1, 7, "sensor", "", 0.0, 0.0, "asleep", None, None, None, 0, 0.0, math.inf, "refused: memory")
LEDGER = LedgerRow(1, 7, "sensor", "up", "none", "used", 10, 1, 2, 3, 0, 4, 0, 40, 1.5, 0.1, frames=2)

figures = st.floats(allow_nan=False)
counts = st.integers(min_value=0, max_value=2**62)
rounds = st.builds(
    RoundRecord,
    **dict.fromkeys(("accuracy", "loss", "train_loss"), st.none() | figures),
    **dict.fromkeys(("round", "bytes_up", "bytes_down", "bytes_wasted", "bytes_up_fp32"), counts),
    **dict.fromkeys(("bytes_down_fp32", "cohort", "participants", "late", "late_fp32"), counts),
    **dict.fromkeys(("surplus", "lost", "skipped", "hosts"), counts),
    **dict.fromkeys(("seconds", "sim_seconds", "sim_seconds_fp32", "joules", "mean_bits"), figures),
    **dict.fromkeys(("mean_density", "wall_seconds"), figures),
    refused=st.dictionaries(st.text(max_size=8), counts, max_size=3),
)


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(rounds, max_size=4))
def test_a_table_gives_back_the_rows_that_it_was_given(
    rows: list[RoundRecord], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / "rounds.parquet"
    write_rows_atomically(path, rows, RoundRecord)
    assert read_rows(path, RoundRecord) == rows


def test_every_row_type_of_a_run_has_a_table(tmp_path: Path) -> None:
    write_rows_atomically(tmp_path / "d", [DECISION, DECISION], DecisionRow)
    write_rows_atomically(tmp_path / "l", [LEDGER], LedgerRow)
    assert read_rows(tmp_path / "d", DecisionRow) == [DECISION, DECISION]
    assert read_rows(tmp_path / "l", LedgerRow) == [LEDGER]


def test_a_schema_lets_only_optional_fields_be_null() -> None:
    nullable = {column.name for column in table_schema(DecisionRow) if column.nullable}
    assert nullable == {"predicted_bytes", "predicted_seconds", "predicted_error"}


def test_a_field_without_a_column_type_is_named() -> None:
    @dataclass(frozen=True)
    class Odd:
        what: complex

    with pytest.raises(TypeError, match="'what' of type"):
        table_schema(Odd)


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_rows_atomically(tmp_path / name, [LEDGER] * 100, LedgerRow)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"not parquet"])
def test_a_table_that_cannot_be_read_is_a_clear_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ledger.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrackingError, match=r"ledger\.parquet"):
        read_rows(path, LedgerRow)


def test_a_table_of_other_rows_is_a_clear_error(tmp_path: Path) -> None:
    write_rows_atomically(tmp_path / "t", [LEDGER], LedgerRow)
    with pytest.raises(TrackingError, match="does not hold RoundRecord rows"):
        read_rows(tmp_path / "t", RoundRecord)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]  # what goes wrong half-way
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_never_takes_the_folder_of_another(tmp_path: Path) -> None:
    names = [RunFolder.create(tmp_path / "runs", "demo").name for _ in range(3)]
    assert names == ["demo", "demo-2", "demo-3"]


def test_latest_is_a_relative_link_to_the_last_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = RunFolder.create(tmp_path, name)
        folder.write_config("seed: 0\n")
        point_latest(tmp_path, folder)
    assert (tmp_path / "latest").readlink() == Path("two")
    assert RunFolder.open(tmp_path / "latest").name == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


def test_latest_can_point_to_a_run_that_lies_elsewhere(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "far" / "away", "one")
    point_latest(tmp_path / "runs", folder)
    assert (tmp_path / "runs" / "latest").readlink() == Path("../far/away/one")
    assert (tmp_path / "runs" / "latest").resolve() == folder.path


def test_a_folder_in_the_way_of_latest_is_named(tmp_path: Path) -> None:
    check_latest(tmp_path)
    (tmp_path / "latest").symlink_to("a-run-that-is-gone")
    check_latest(tmp_path)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()
    with pytest.raises(ConfigError, match="latest is in the way"):
        check_latest(tmp_path)


def test_a_run_is_locked_while_the_block_lasts_and_not_longer(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "r")
    with folder.locked():
        with pytest.raises(ConfigError, match="is being run by another process; wait for it or stop it"):
            folder.locked().__enter__()
        with pytest.raises(BlockingIOError), RunFolder.create(tmp_path, "other").locked():
            raise BlockingIOError
    with folder.locked():
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "latest", "a/b", "/etc"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a run's folder"):
        RunFolder.create(tmp_path, name)


def test_a_runs_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match="cannot make a folder for run 'x'"):
        RunFolder.create(tmp_path / "runs", "x")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run's folder"):
        RunFolder.open(tmp_path)


def test_artifacts_are_what_is_there(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "r")
    folder.write_config("seed: 0\n")
    folder.write_model({"w": np.arange(3, dtype=np.float32)})
    (folder.plots / "a.png").write_bytes(b"")
    assert [path.name for path in folder.artifacts()] == ["config.yaml", "model.safetensors", "a.png"]
    assert safetensors.numpy.load_file(folder.model)["w"].tolist() == [0, 1, 2]


def test_a_summary_adds_rounds_up(tmp_path: Path) -> None:
    later = RoundRecord(2, 0.4, 1.0, 1.0, 1, 2, 3, 4, 5, 1.0, 7.0, 9.0, 0.2, 4.0, 0.25, 5, 4, 0, 0, 0, 1, 0)
    last = RoundRecord(3, None, None, 1.0, 1, 2, 3, 4, 5, 1.0, 8.0, 10.0, 0.2, 4.0, 0.25, 5, 4, 0, 0, 0, 1, 0)
    about = {"name": "r", "digest": "d", "mlflow_run_id": None}
    sizes = {"clients": 9, "cohort": 5, "workers": 2, "seed": 3, "wall_seconds": 1.5}
    summary = summarise([ROUND, later, last], **about, **sizes)  # type: ignore[arg-type]  # two dicts for brevity
    assert (summary.rounds, summary.accuracy, summary.best_accuracy) == (3, 0.4, 0.5)
    assert (summary.bytes_up, summary.bytes_down, summary.bytes_wasted) == (12, 24, 9)
    assert (summary.bytes_up_fp32, summary.bytes_down_fp32) == (48, 60)
    assert (summary.sim_seconds, summary.sim_seconds_fp32, summary.energy_joules) == (8.0, 10.0, 0.5)
    write_summary(tmp_path / "s", summary)
    assert json.loads((tmp_path / "s").read_text())["accuracy"] == 0.4
    assert read_digest(tmp_path / "s") == "d"
    stamp_run_id(tmp_path / "s", "abc")
    assert json.loads((tmp_path / "s").read_text())["mlflow_run_id"] == "abc"


def test_a_summary_of_a_run_that_was_never_evaluated_is_still_json(tmp_path: Path) -> None:
    summary = summarise(
        [], name="r", clients=1, cohort=1, workers=1, seed=0, digest="", mlflow_run_id=None, wall_seconds=0.0
    )
    write_summary(tmp_path / "s", summary)
    assert json.loads((tmp_path / "s").read_text())["best_accuracy"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": 1}'])
def test_what_is_no_summary_is_a_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text(text)
    with pytest.raises(TrackingError, match=r"summary\.json of a run"):
        stamp_run_id(tmp_path / "s", "abc")


def test_versions_are_told_where_there_is_no_repository(tmp_path: Path) -> None:
    tags = environment_tags(tmp_path)
    assert {"version.python", "version.tightwire", "version.numpy"} <= set(tags)
    assert "git_commit" not in tags
