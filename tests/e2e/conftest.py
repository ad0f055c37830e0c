"""One tracking server for all tests of a process; starting one takes longer than most of them."""

from collections.abc import Iterator

import pytest

from tracking_server import PASSWORD, USER, Proxy, Server


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
        proxy.close()
