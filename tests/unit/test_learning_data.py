"""Datasets: what they give, and what they say when they cannot."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tightwire.arrays import AnyArray
from tightwire.errors import ConfigError, DataError
from tightwire.learning.data import AnyData, Digits, Idx, Npz
from tightwire.learning.partition import Dirichlet, Iid, Natural, Sizes
from tightwire.learning.samples import FederatedData
from tightwire.learning.synthetic import Synthetic

MNIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


def idx_bytes(array: AnyArray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 30), ("t10k", 7)):
        images, labels = rng.integers(0, 256, (n, 4, 5)), np.arange(n) % 3
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, x=rng.normal(size=(50, 6)), y=rng.integers(0, 4, 50))
    return path


def check_contract(data: FederatedData, clients: int) -> None:
    assert data.sizes.shape == (clients,)
    assert data.sizes.dtype == np.int64
    for client in {0, clients // 2, clients - 1}:
        x, y = data.shard(client)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert x.shape == (data.sizes[client], *data.features)
        assert y.shape == (data.sizes[client],)
        assert np.isfinite(x).all()
        assert ((y >= 0) & (y < data.classes)).all()
        again = data.shard(client)
        assert np.array_equal(again[0], x)
        assert np.array_equal(again[1], y)
        again[0][:] = 7
        assert np.array_equal(data.shard(client)[0], x)
    x, y = data.test
    assert len(x) == len(y) > 0
    assert x.shape[1:] == data.features
    assert x.dtype == np.float32


def test_digits_keep_the_contract() -> None:
    data = Digits().load(0, 10, Dirichlet(alpha=0.5))
    check_contract(data, 10)
    assert data.features == (1, 8, 8)
    assert data.classes == 10
    x, y = data.test
    assert (data.sizes.sum(), len(y)) == (1442, 355)
    assert (x.min(), x.max()) == (0, 1)
    assert np.bincount(y).min() >= 34


def test_digits_test_set_is_the_same_for_every_seed() -> None:
    one, two = (Digits().load(seed, 5, Iid()) for seed in (1, 2))
    assert np.array_equal(one.test[0], two.test[0])
    assert not np.array_equal(one.shard(0)[0], two.shard(0)[0])


def test_idx_files_are_found_in_the_torchvision_layout(idx_folder: Path) -> None:
    for folder in (idx_folder, idx_folder / "MNIST", idx_folder / "MNIST" / "raw"):
        data = Idx(folder=folder).load(0, 4, Iid())
        check_contract(data, 4)
        assert data.features == (1, 4, 5)
        assert data.classes == 3
    original = np.random.default_rng(0).integers(0, 256, (30, 4, 5))
    whole, _ = Idx(folder=idx_folder).load(0, 1, Iid()).shard(0)
    assert sorted(whole.reshape(30, -1).tolist()) == sorted(
        (original.astype(np.float32) / np.float32(255)).reshape(30, -1).tolist()
    )


def test_a_plain_idx_file_beside_its_gzipped_twin_is_no_second_dataset(idx_folder: Path) -> None:
    packed = idx_folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert Idx(folder=idx_folder).load(0, 4, Iid()).sizes.sum() == 30


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not at hand")
def test_mnist_is_read_whole() -> None:
    data = Idx(name="mnist", folder=MNIST).load(0, 100, Iid())
    check_contract(data, 100)
    assert data.features == (1, 28, 28)
    assert data.sizes.tolist() == [600] * 100
    assert len(data.test[1]) == 10_000
    assert data.test[1][:5].tolist() == [7, 2, 1, 0, 4]


def break_idx(folder: Path, how: str) -> None:
    raw = folder / "MNIST" / "raw"
    images, labels = raw / "train-images-idx3-ubyte.gz", raw / "train-labels-idx1-ubyte"
    whole = gzip.decompress(images.read_bytes())
    if how == "no folder":
        raw.rename(folder / "elsewhere")
        (folder / "elsewhere").rename(folder.parent / "away")
    elif how == "no labels":
        labels.unlink()
    elif how == "magic":
        images.write_bytes(gzip.compress(b"\x89PNG" + whole))
    elif how == "not gzip":
        images.write_bytes(whole)
    elif how == "truncated gzip":
        images.write_bytes(images.read_bytes()[:-20])
    elif how == "truncated":
        images.write_bytes(gzip.compress(whole[:-1]))
    elif how == "truncated header":
        images.write_bytes(gzip.compress(whole[:9]))
    elif how == "extended":
        images.write_bytes(gzip.compress(whole + b"\0"))
    elif how == "absurd length":
        images.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3)))
    elif how == "flat images":
        images.write_bytes(gzip.compress(idx_bytes(np.zeros((30, 20)))))
    elif how == "fewer labels":
        labels.write_bytes(idx_bytes(np.zeros(29)))
    elif how == "other size":
        images.write_bytes(gzip.compress(idx_bytes(np.zeros((30, 5, 5)))))
    elif how == "empty":
        images.write_bytes(gzip.compress(b""))
    elif how == "two sets":
        (raw / "emnist-train-images-idx3-ubyte").write_bytes(whole)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no folder", "no IDX dataset here"),
        ("no labels", "no train labels; train-labels-idx1-ubyte"),
        ("magic", "begins with 89504e47"),
        ("not gzip", "cannot be read"),
        ("truncated gzip", "cannot be read"),
        ("truncated", "holds 599 bytes of data where its header"),
        ("truncated header", "ends within its 3 dimensions"),
        ("extended", "holds more than 600"),
        ("absurd length", "holds 0 bytes"),
        ("flat images", "give .samples, height, width."),
        ("fewer labels", "30 inputs but 29 labels"),
        ("other size", "make them the same"),
        ("empty", "begins with nothing"),
        ("two sets", "keep one dataset a folder"),
    ],
)
def test_damaged_idx_data_is_refused_in_one_line_with_its_path(idx_folder: Path, how: str, said: str) -> None:
    break_idx(idx_folder, how)
    with pytest.raises(DataError, match=said) as caught:
        Idx(folder=idx_folder).load(0, 2, Iid())
    assert str(idx_folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; give"):
        Idx(folder=tmp_path / "nowhere").load(0, 2, Iid())


def test_several_idx_datasets_below_a_folder_are_listed(idx_folder: Path) -> None:
    other = idx_folder / "FashionMNIST" / "raw"
    other.mkdir(parents=True)
    (other / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match=r"several IDX datasets below.*FashionMNIST.*MNIST"):
        Idx(folder=idx_folder).load(0, 2, Iid())


def test_npz_keeps_the_contract_and_holds_out_every_fifth(npz: Path) -> None:
    data = Npz(path=npz).load(0, 3, Iid())
    check_contract(data, 3)
    assert data.sizes.sum() + len(data.test[1]) == 50
    assert len(data.test[1]) in range(6, 11)


def test_npz_test_arrays_are_used_and_bytes_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    x = np.full((4, 1, 2, 2), 51, np.uint8)
    np.savez(path, x=x, y=np.arange(4), x_test=x[:2], y_test=np.array([5, 0], np.uint8))
    data = Npz(path=path).load(0, 2, Iid())
    check_contract(data, 2)
    assert data.classes == 6
    assert data.test[0][0, 0, 0, 0] == np.float32(0.2)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((3, 2))}, "holds x; give x and y"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3)}, "labels are float64"),
        ({"x": np.zeros((3, 2)), "y": np.zeros((3, 1), int)}, "labels are int64 of shape"),
        ({"x": np.zeros(3), "y": np.zeros(3, int)}, "inputs are float64 of shape"),
        ({"x": np.array([["a"]]), "y": np.zeros(1, int)}, "inputs are <U1"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4, int)}, "3 inputs but 4 labels"),
        ({"x": np.zeros((3, 2)), "y": np.array([0, -1, 1])}, "labels run from -1 to 1"),
        ({"x": np.full((3, 2), np.nan), "y": np.zeros(3, int)}, "NaN"),
        ({"x": np.full((3, 2), 1e300), "y": np.zeros(3, int)}, "beyond float32"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "no samples"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3, int)}, "too few"),
        ({"x": np.array([[{}]]), "y": np.zeros(1, int)}, "cannot be read"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3, int), "x_test": np.zeros((3, 2))}, "both or neither"),
        (
            {
                "x": np.zeros((3, 2)),
                "y": np.zeros(3, int),
                "x_test": np.zeros((3, 3)),
                "y_test": np.zeros(3, int),
            },
            "make them the same",
        ),
    ],
)
def test_unusable_npz_arrays_are_refused_in_one_line(tmp_path: Path, arrays: dict[str, AnyArray], said: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type] # the stub reads allow_pickle into the arrays' names
    with pytest.raises(DataError, match=said) as caught:
        Npz(path=path).load(0, 2, Iid())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_npz_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not an \.npz file"):
        Npz(path=path).load(0, 2, Iid())


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Npz(path=tmp_path / "y.npz").load(0, 2, Iid())


def test_a_damaged_npz_is_refused(npz: Path) -> None:
    content = bytearray(npz.read_bytes())
    content[500] ^= 255
    npz.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read, Bad CRC-32"):
        Npz(path=npz).load(0, 2, Iid())


def test_synthetic_keeps_the_contract() -> None:
    data = Synthetic().load(0, 30, Natural())
    check_contract(data, 30)
    assert data.features == (60,)
    assert data.classes == 10
    assert data.sizes.min() >= 50
    assert data.sizes.max() <= 10_000


def test_synthetic_variances_fall_as_the_paper_says() -> None:
    data = Synthetic(beta=0).load(0, 1000, Natural())
    x, _ = data.shard(int(np.argmax(data.sizes)))
    assert np.allclose(x.var(axis=0), np.arange(1, 61) ** -1.2, rtol=0.1)


def test_synthetic_clients_differ_by_client_and_seed_and_not_by_population() -> None:
    small, large, other = (
        Synthetic().load(0, 5, Natural()),
        Synthetic().load(0, 500, Natural()),
        Synthetic().load(1, 5, Natural()),
    )
    assert np.array_equal(small.shard(3)[0], large.shard(3)[0])
    assert np.array_equal(small.shard(3)[1], large.shard(3)[1])
    assert not np.array_equal(small.shard(3)[0][:50], small.shard(4)[0][:50])
    assert not np.array_equal(small.shard(3)[0][:50], other.shard(3)[0][:50])


def test_a_population_of_a_million_is_a_vector_of_sizes() -> None:
    data = Synthetic().load(0, 1_000_000, Natural())
    assert data.sizes.nbytes == 8_000_000
    assert data.shard(999_999)[0].shape == (data.sizes[999_999], 60)
    assert len(data.test[1]) <= 100 * 200


@pytest.mark.parametrize(
    ("data", "partition"), [(Synthetic(), Iid()), (Digits(), Natural()), (Digits(), Sizes(sizes=(1,)))]
)
def test_partitions_that_do_not_fit_the_data_are_refused(data: AnyData, partition: Iid | Natural | Sizes) -> None:
    with pytest.raises(ConfigError):
        data.load(0, 4, partition)
