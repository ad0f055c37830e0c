"""Clients' memories between rounds: bounded in RAM, spilled to disk, and gone when nobody holds them."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios import Quiet, digest_of, run_here, small, undisturbed
from tightwire.federation.store import Kept, Loaded, MemoryStore, SpillError

FIXED = {"name": "fixed", "codec": "topk(0.1) | uniform(4) | rans"}
SIZE = 1000


def memory(seed: int) -> dict[str, np.ndarray]:
    return {"residual": np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_fits_stays_in_memory_and_nothing_is_written(tmp_path: Path) -> None:
    store = MemoryStore(3 * 4 * SIZE, tmp_path / "scratch")
    handles = [store.put(memory(seed)) for seed in range(3)]
    assert (store.in_memory, store.on_disk) == (3 * 4 * SIZE, 0)
    assert not (tmp_path / "scratch").exists()
    assert len(handles) == 3


def test_the_least_recently_used_are_spilled_and_come_back_whole(tmp_path: Path) -> None:
    store = MemoryStore(2 * 4 * SIZE, tmp_path)
    first, second = store.put(memory(0)), store.put(memory(1))
    store.get(first)
    third = store.put(memory(2))
    assert store.in_memory == 2 * 4 * SIZE
    assert store.on_disk == 1
    for seed, handle in enumerate((first, second, third)):
        np.testing.assert_array_equal(store.get(handle)["residual"], memory(seed)["residual"])
    assert store.in_memory == 2 * 4 * SIZE


def test_arrays_keep_their_names_and_types(tmp_path: Path) -> None:
    store = MemoryStore(0, tmp_path)
    given = {"w[4,4]/0/powersgd(2)": np.ones((4, 2), np.float32), "range": np.array([0.5], np.float32)}
    found = store.get(store.put(given))
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_arrays_that_are_not_contiguous_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    store = MemoryStore(0, tmp_path)
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    given = {"transposed": square.T, "strided": square[:, ::2], "scalar": np.array(3, np.float32)}
    found = store.get(store.put(given))
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_a_memory_nobody_holds_leaves_ram_and_disk(tmp_path: Path) -> None:
    store = MemoryStore(4 * SIZE, tmp_path)
    handles = [store.put(memory(seed)) for seed in range(4)]
    assert len(files(tmp_path)) == 3
    del handles[1:]
    gc.collect()
    assert (store.in_memory, store.on_disk, len(files(tmp_path))) == (0, 1, 1)
    store.close()
    assert not files(tmp_path)


def test_memories_are_loaded_one_at_a_time(tmp_path: Path) -> None:
    store = MemoryStore(4 * SIZE, tmp_path)
    loaded = Loaded(store, {client: store.put(memory(client)) for client in (7, 9)})
    assert list(loaded) == [7, 9]
    assert loaded.get(8) is None
    np.testing.assert_array_equal(loaded[9]["residual"], memory(9)["residual"])
    assert store.in_memory == 4 * SIZE


def test_a_lost_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    store = MemoryStore(0, tmp_path)
    kept = store.put(memory(0))
    files(tmp_path)[0].write_bytes(b"")
    with pytest.raises(SpillError, match="resume the run from its last checkpoint"):
        store.get(kept)


@pytest.mark.parametrize("feedback", ["classic", "ef21", "dgc"])
def test_a_bound_of_a_few_kilobytes_changes_nothing_but_where_memories_are(tmp_path: Path, feedback: str) -> None:
    wire = {"feedback": feedback}
    roomy = small(policy=FIXED, wire=wire)
    tight = small(policy=FIXED, wire=wire, hosts={"memory_mb": 0.006})
    spilled: list[int] = []

    class Watching(Quiet):
        def round(self, record: Any) -> None:
            super().round(record)
            spilled.append(len(files(tmp_path / "tight" / "scratch")))

    assert digest_of(run_here(roomy, tmp_path / "roomy")) == digest_of(
        run_here(tight, tmp_path / "tight", listener=Watching())
    )
    assert spilled[-1] > 0
    assert not (tmp_path / "tight" / "scratch").exists()
    assert not (tmp_path / "roomy" / "scratch").exists()


def test_a_full_disk_ends_the_run_with_one_line_and_it_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(policy=FIXED, rounds=6, hosts={"memory_mb": 0.006})
    real, written = Path.write_bytes, [0]

    def full(path: Path, content: bytes) -> int:
        if path.parent.name.startswith("tightwire-memories-"):
            written[0] += 1
            if written[0] > 20:
                raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SpillError, match=r"hosts\.memory_mb.*No space left on device.*resume") as caught:
        run_here(config, tmp_path / "full")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "full" / "scratch").exists()
    monkeypatch.setattr(Path, "write_bytes", real)
    listener = Quiet()
    resumed = run_here(config, tmp_path / "full", listener=listener)
    assert listener.records[0].round > 1, "it went on from a checkpoint"
    assert digest_of(resumed) == undisturbed(config)


def test_handles_are_told_apart() -> None:
    store = MemoryStore()
    one, other = store.put(memory(0)), store.put(memory(1))
    assert isinstance(one, Kept)
    assert store.get(one) is not store.get(other)
