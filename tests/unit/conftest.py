"""Unit tests can neither start Ray nor sleep."""

import sys
import time

import pytest


@pytest.fixture(autouse=True)
def _no_ray_no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:  # noqa: ARG001 - takes whatever it is called with
        pytest.fail("a unit test may neither start Ray nor sleep")

    monkeypatch.setattr(time, "sleep", forbidden)
    if "ray" in sys.modules:
        monkeypatch.setattr("ray.init", forbidden)
    else:
        monkeypatch.setitem(sys.modules, "ray", None)
