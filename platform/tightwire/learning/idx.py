"""IDX files, plain or gzipped: the form of MNIST, Fashion-MNIST, KMNIST and EMNIST (LeCun et al.)."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tightwire.arrays import AnyArray
from tightwire.errors import DataError

Part = Literal["train", "test"]
Kind = Literal["images", "labels"]

_ELEMENTS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_WANTED = "train-images-idx3-ubyte[.gz] and its three fellows"
_PIECE = 1 << 24
_BELOW = ("raw", "*", "*/raw")
_NAMES: dict[Part, tuple[str, ...]] = {"train": ("*train-{}*",), "test": ("*t10k-{}*", "*test-{}*")}


class IdxFiles(NamedTuple):
    """The four files of one dataset."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def find(folder: Path) -> IdxFiles:
    """The IDX dataset in a folder, or in the torchvision layout below it (``MNIST/raw``).

    Args:
        folder: Searched itself, then its ``raw``, its subfolders, their ``raw``; the first to hold any wins.

    Raises:
        DataError: When the folder is missing, holds no dataset or several, or lacks a file of the four.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds {_WANTED}")
    for below in ([folder], *(sorted(folder.glob(pattern)) for pattern in _BELOW)):
        places = [place for place in below if place.is_dir() and _matches(place, "train", "images")]
        if len(places) > 1:
            found = ", ".join(map(str, places))
            raise DataError(f"{folder}: several IDX datasets below, {found}; give one of these")
        if places:
            return IdxFiles(
                _the_file(places[0], "train", "images"),
                _the_file(places[0], "train", "labels"),
                _the_file(places[0], "test", "images"),
                _the_file(places[0], "test", "labels"),
            )
    raise DataError(f"{folder}: no IDX dataset here or just below; give the folder that holds {_WANTED}")


def read(path: Path) -> AnyArray:
    """The array in one IDX file, in native byte order.

    Raises:
        DataError: When the file cannot be read, is not IDX, or is shorter or longer than its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _ELEMENTS or head[3] == 0:
                raise DataError(
                    f"{path}: begins with {head.hex() or 'nothing'}; an IDX file begins with 0000, "
                    "a type from 08 to 0e and its number of dimensions"
                )
            dimensions, element = file.read(4 * head[3]), np.dtype(_ELEMENTS[head[2]])
            if len(dimensions) < 4 * head[3]:
                raise DataError(f"{path}: ends within its {head[3]} dimensions; fetch the file again")
            shape = tuple(int(n) for n in np.frombuffer(dimensions, ">u4"))
            length = math.prod(shape) * element.itemsize
            body = bytearray()
            while piece := file.read(_PIECE):  # the header's word is not taken for how much to allocate
                body += piece
                if len(body) > length:
                    break
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, {error}; fetch the file again") from error
    if len(body) != length:
        found = f"more than {length}" if len(body) > length else str(len(body))
        raise DataError(
            f"{path}: holds {found} bytes of data where its header, {shape} of {element.itemsize} bytes, "
            f"asks for {length}; fetch the file again"
        )
    return np.frombuffer(body, element).reshape(shape).astype(element.newbyteorder("="))


def _matches(place: Path, part: Part, kind: Kind) -> list[Path]:
    """Files of one kind, one for each dataset: where a file lies both plain and gzipped, the plain one."""
    found = {path for name in _NAMES[part] for path in place.glob(name.format(kind)) if path.is_file()}
    return sorted(path for path in found if not (path.suffix == ".gz" and path.with_suffix("") in found))


def _the_file(place: Path, part: Part, kind: Kind) -> Path:
    found = _matches(place, part, kind)
    if len(found) == 1:
        return found[0]
    if not found:
        name = f"{'train' if part == 'train' else 't10k'}-{kind}-idx{3 if kind == 'images' else 1}-ubyte[.gz]"
        raise DataError(f"{place}: no {part} {kind}; {name} belongs here")
    names = ", ".join(path.name for path in found)
    raise DataError(f"{place}: several files of {part} {kind}, {names}; keep one dataset a folder")
