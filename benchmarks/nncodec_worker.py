"""Code a vector with NNCodec 2, in its own Python: `benchmarks/nncodec.py` runs this and reads the JSON it leaves.

    python benchmarks/nncodec_worker.py TENSORS.npz RESULT.json REPEATS QP...

The tensors have two axes or more: NNCodec takes others for biases, with a quantisation of their own. It imports a lot
that coding tensors has no need of, such as torchvision; what is not installed gets an empty stand-in.
"""

import importlib.abc
import importlib.machinery
import json
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

UNNEEDED = {"click", "cv2", "flwr", "h5py", "pandas", "ptflops", "sklearn", "torchmetrics", "torchvision", "tqdm"}


class _AnyName(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn


class StandIn(metaclass=_AnyName):
    """A class that can be called and asked for anything, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that are `UNNEEDED`, and all that is in them."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002 - the interface's arguments
        """A spec for what is not needed."""
        if fullname.split(".")[0] in UNNEEDED:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        """An empty module."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def main() -> None:
    """Measure every quantisation parameter; median seconds."""
    source, result, repeats, *parameters = sys.argv[1:]
    sys.meta_path.append(Finder())
    del sys.path[0]  # this folder, which has a nncodec.py of its own
    import torch
    from nncodec.tensor import decode, encode  # type: ignore[import-not-found]  # of another Python

    torch.set_num_threads(1)
    with np.load(source) as archive:
        tensors = list(archive.values())
    size, rows = sum(tensor.size for tensor in tensors), []
    energy = sum(float(np.square(tensor, dtype=np.float64).sum()) for tensor in tensors)
    with tempfile.TemporaryDirectory() as folder:
        for parameter in map(int, parameters):
            settings = {"approx_method": "uniform", "qp": parameter, "use_dq": True, "results": folder}
            seconds = []
            for _ in range(int(repeats)):
                start = time.perf_counter()
                coded = [encode(tensor, settings) for tensor in tensors]
                middle = time.perf_counter()
                decoded = [decode(one, "0") for one in coded]
                seconds.append((middle - start, time.perf_counter() - middle))
            errors = [
                float(np.square(np.asarray(one, np.float64).reshape(tensor.shape) - tensor).sum())
                for one, tensor in zip(decoded, tensors, strict=True)
            ]
            encoding, decoding = np.median(seconds, axis=0)
            rows.append(
                {
                    "setting": f"NNCodec, qp {parameter}",
                    "bits": 8 * sum(map(len, coded)) / size,
                    "nmse": sum(errors) / energy,
                    "encode_s": float(encoding),
                    "decode_s": float(decoding),
                }
            )
    Path(result).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
