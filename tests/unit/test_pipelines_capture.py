"""`tightwire capture`: the updates it saves are those of the run, with their tensors beside them."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tightwire.arrays import AnyArray
from tightwire.errors import ConfigError, DataError
from tightwire_pipelines.capture import capture, load_update

EXPERIMENT = """
name: tiny
rounds: 3
data: {name: digits}
partition: {name: iid}
model: {name: mlp, hidden: [16]}
training: {epochs: 1, batch: 50}
population: {clients: 6}
participation: {cohort: 4}
policy: {name: fixed, codec: uniform(4)}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


def captured(experiment: Path, out: Path, *rounds: int, clients: int = 2) -> list[Path]:
    return capture(experiment, (), rounds, clients, out, Console(quiet=True))


def test_it_saves_the_updates_of_some_clients_of_some_rounds(experiment: Path, tmp_path: Path) -> None:
    saved = captured(experiment, tmp_path / "updates", 1, 3)
    assert [path.name.split("-client")[0] for path in saved] == ["round-1", "round-1", "round-3", "round-3"]
    for path in saved:
        values, schema = load_update(path)
        assert [tensor.shape for tensor in schema.tensors] == [(16, 64), (16,), (10, 16), (10,)]
        assert values.shape == (schema.size,)
        assert np.isfinite(values).all()
        assert values.any()
    again = captured(experiment, tmp_path / "again", 3)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in saved[2:]]


def test_without_rounds_it_takes_the_first_and_the_fifth_if_there_are_so_many(experiment: Path, tmp_path: Path) -> None:
    assert [path.name.split("-client")[0] for path in captured(experiment, tmp_path / "updates")] == ["round-1"] * 2


def test_a_round_that_never_happens_is_refused(experiment: Path, tmp_path: Path) -> None:
    for number in (0, 4):
        with pytest.raises(ConfigError, match=f"--round {number}: .* has rounds 1 to 3"):
            captured(experiment, tmp_path / "updates", number)
    assert not (tmp_path / "updates").exists()


def test_a_place_that_cannot_be_written_is_one_clear_error(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"--out .*file: updates cannot be written there"):
        captured(experiment, tmp_path / "file", 1)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tightwire_pipelines.capture.train", pytest.fail)
    with pytest.raises(DataError, match=r"--out .*file: updates cannot be written there"):
        captured(experiment, tmp_path / "file", 3)


def test_a_round_in_which_nobody_trains_is_one_clear_error(experiment: Path, tmp_path: Path) -> None:
    nobody = ("population.tiers={sensor-lora: 1}", "model.hidden=[4096, 4096]")
    with pytest.raises(DataError, match="--round 2: no client trained in it"):
        capture(experiment, nobody, (2,), 1, tmp_path / "updates", Console(quiet=True))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.zeros((0, 3), np.float32), r"has the shape \(0, 3\)"),
        (np.array([1, np.nan], np.float32), "must be finite"),
        (np.array([1e300]), "must be finite"),
        (np.arange(3), "array of floats, got int64"),
    ],
)
def test_values_that_no_codec_takes_are_refused_with_the_file(tmp_path: Path, values: AnyArray, complaint: str) -> None:
    np.save(tmp_path / "update.npy", values)
    with pytest.raises(DataError, match=f"update.npy .*{complaint}"):
        load_update(tmp_path / "update.npy")


def test_what_is_no_npy_is_refused_without_advice_to_unpickle_it(tmp_path: Path) -> None:
    (tmp_path / "update.npy").write_text("hello")
    with pytest.raises(DataError, match=r"update.npy is no .npy of floats"):
        load_update(tmp_path / "update.npy")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        load_update(tmp_path)


@pytest.mark.parametrize(
    ("beside", "complaint"),
    [
        ("{}", "does not describe tensors"),
        ("not JSON", "does not describe tensors"),
        ('{"tensors": [{"name": "w", "shape": [7]}]}', "describes 7 values, but .* has 6"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, beside: str, complaint: str) -> None:
    np.save(tmp_path / "update.npy", np.zeros((2, 3), np.float16))
    assert load_update(tmp_path / "update.npy")[1].tensors[0].shape == (2, 3)
    (tmp_path / "update.json").write_text(beside)
    with pytest.raises(DataError, match=complaint):
        load_update(tmp_path / "update.npy")
