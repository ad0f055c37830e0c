"""A run that is killed before one of its changes to the disk, for each of them in turn, and resumed; and elsewhere.

    python killed_at.py FOLDER

prints a line of JSON for each: what was about to change, the digest after the resumption, and what was noted. It is a
program of its own because it forks: everything is imported and compiled once, and each life of a run is a child.
"""

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scenarios import Quiet, digest_of, run_here, small
from tightwire import simulation
from tightwire.codecs.codec import Codec
from tightwire.federation import checkpoint
from tightwire.federation.aggregate import FixedPoint
from tightwire.learning.flat import FlatModel

CONFIG = {"rounds": 3, "participation": {"cohort": 2}, "checkpoints": {"every": 1}}
"""Two rounds are saved before; the third checkpoint and the results of the run are what is broken off."""


def in_a_child(work: Callable[[], object]) -> tuple[int, Any]:  # Any: whatever it gives, as JSON
    """Do `work` in a forked child; its exit status as `os.waitpid` gives it, and its result, or None if it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        content = file.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(content) if content else None


def deadly(owner: object, name: str) -> None:
    """SIGKILL when something is called, after it has done its work."""
    real = getattr(owner, name)

    def dying(*given: Any, **named: Any) -> None:  # Any: whatever it takes
        real(*given, **named)
        os.write(2, f"{name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def life(folder: Path, kill_at: int | None = None, dying: tuple[object, str] | None = None) -> dict[str, Any]:
    """The rest of the run; SIGKILL before change number `kill_at`, counted from 1, or as something is called."""
    if dying is not None:
        deadly(*dying)
    listener, changes = Quiet(), 0
    replace, unlink = Path.replace, Path.unlink

    def change(path: Path) -> None:
        nonlocal changes
        changes += 1
        if changes == kill_at:
            os.write(2, f"{path.name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def replacing(path: Path, target: Path) -> Path:
        change(target)
        return replace(path, target)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        change(path)
        unlink(path, missing_ok)

    Path.replace, Path.unlink = replacing, unlinking  # type: ignore[method-assign,assignment]
    digest = digest_of(run_here(small(**CONFIG), folder, listener=listener))
    left = sorted(path.name for path in folder.rglob("*"))
    return {"digest": digest, "notes": listener.notes, "left": left}


def main(folder: Path) -> None:
    """Kill in training, upload and aggregation, then at the first change, at the second, and so on to the end."""
    torch.set_num_threads(1)  # what forks should have no threads
    checkpoint.FAN = 2  # so that parts are merged within three rounds
    vars(simulation)["draw"] = lambda *_: None  # pictures take longest and are drawn before summary.json
    run_here(small(**CONFIG), folder / "0", stop_after=2)
    undisturbed = digest_of(run_here(small(**CONFIG), folder / "undisturbed"))
    sys.stdout.write(json.dumps({"digest": undisturbed}) + "\n")
    moments = (FlatModel, "since"), (Codec, "encode"), (FixedPoint, "mean")
    for dying in moments:
        kill(folder, folder / dying[1], dying=dying)
    for number in range(1, 1000):
        if not kill(folder, folder / str(number), kill_at=number):
            return


def kill(folder: Path, place: Path, **how: Any) -> bool:  # Any: as `life` takes it
    """One life that is killed and another one that ends; whether the first was killed at all."""
    shutil.copytree(folder / "0", place)
    status, _ = in_a_child(functools.partial(life, place, **how))
    if status == 0:
        return False
    assert os.WIFSIGNALED(status), "it failed instead of being killed"
    assert os.WTERMSIG(status) == signal.SIGKILL, "something else killed it"
    sys.stdout.write(json.dumps(in_a_child(functools.partial(life, place))[1]) + "\n")
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
