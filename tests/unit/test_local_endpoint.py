from __future__ import annotations

import importlib.util
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.models.local.endpoint import local_endpoint
from orchestrator.models.local.serve import MODEL_NAME, base_url


@contextmanager
def _server_of(model_name: str) -> Iterator[int]:
    """Serves a list of one model; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        """Answers every request with the list."""

        def do_GET(self) -> None:
            """Answers one request."""
            body = json.dumps({"data": [{"id": model_name}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _silent(_: str) -> None:
    return


def _no_weights() -> Path:
    message = "no weights here"
    raise SettingsError(message)


async def test_endpoint_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A served model is used as it is: no weights are looked for, and no proxy is asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with _server_of(MODEL_NAME) as port:
        async with local_endpoint(_no_weights, port=port, report=_silent) as url:
            assert url == base_url(port)


async def test_another_server_at_the_port_is_not_used() -> None:
    """A server of another model is named and left alone, not asked in the local model's place."""
    with (
        _server_of("another-model") as port,
        pytest.raises(SettingsError, match="found another-model"),
    ):
        async with local_endpoint(_no_weights, port=port, report=_silent):
            pass


async def test_missing_weights_are_said(free_port: int) -> None:
    """Where nothing answers, the weights are looked for, and what their absence says is heard."""
    with pytest.raises(SettingsError, match="no weights here"):
        async with local_endpoint(_no_weights, port=free_port, report=_silent):
            pass


async def test_engine_that_cannot_serve_says_what_to_do(free_port: int, tmp_path: Path) -> None:
    """A server that does not come up is an error with its own last words, not a wait for ever."""
    weights = tmp_path / "no-model.gguf"
    weights.write_bytes(b"GGUF, and then nothing")
    is_installed = importlib.util.find_spec("xllamacpp") is not None
    expected = "did not start" if is_installed else r"pip install 'rlm-sandbox\[local\]'"

    with pytest.raises(SettingsError, match=expected):
        async with local_endpoint(lambda: weights, port=free_port, report=_silent):
            pass
