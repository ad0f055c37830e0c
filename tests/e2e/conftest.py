"""One tracking server for all tests; starting one takes longer than most of them."""

from collections.abc import Iterator
from pathlib import PurePath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tracking_server import PASSWORD, USER, Proxy, Server

TOGETHER = {"test_mlflow": "tracking server", "test_mlflow_trouble": "tracking server", "test_report": "report"}
"""Modules whose tests share what is dear to make, and so run in one process; all others run wherever there is room."""


class Sharing(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """What belongs together goes to one process, beginning with the most; xdist's own groups need an older pytest."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(PurePath(nodeid.split("::")[0]).stem, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing | None:
    """Hand tests out as `Sharing` does, where they are asked to go by scope."""
    return Sharing(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that runs, and its credentials in the environment."""
    _server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a machine with much to do is no dead server
    return _server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """The way to the server that may be in trouble."""
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.go()
