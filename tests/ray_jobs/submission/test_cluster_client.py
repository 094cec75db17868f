"""Finding a cluster and its token, and saying in one line why it cannot be used."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeling.errors import ConfigError
from ray_jobs.submission.cluster_client import connect, find_address, find_token

TOKEN = "0123456789abcdef0123456789abcdef"


class Dashboard(http.server.BaseHTTPRequestHandler):
    """Answers as a dashboard with a token does; `answer` may be set to another version or another page."""

    answer = json.dumps({"ray_version": "1.13.0"})

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        status = 401 if given is None else 200 if given == f"Bearer {TOKEN}" else 403
        self.send_response(status)
        self.end_headers()
        self.wfile.write(self.answer.encode() if status == 200 else b"no")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def refusal(address: str) -> str:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        connect(address)
    assert time.monotonic() - started < 15
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_where_an_address_comes_from() -> None:
    named, from_ray = {"RAY_API_SERVER_ADDRESS": "https://a"}, {"RAY_ADDRESS": "http://b:8265"}
    assert find_address("head:8265/", named) == "http://head:8265"
    assert find_address(None, named | from_ray) == "https://a"
    assert find_address(None, from_ray) == "http://b:8265"
    assert find_address(None, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "http://127.0.0.1:8265"
    with pytest.raises(ConfigError, match="ray://head is not the address of a job API"):
        find_address("ray://head", {})


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("default\n")
    (tmp_path / "mine").write_text("mine\n")
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "mine")}
    assert find_token({"RAY_AUTH_TOKEN": "given"} | path) == "given"
    assert find_token(path) == "mine"
    assert find_token({"RAY_AUTH_MODE": "token"}) == "default"
    assert find_token({}) is None, "the default token is not sent to whom it was not meant for"
    assert find_token({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "given"}) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "nothing")})


def test_without_a_token(dashboard: str) -> None:
    assert "wants a token and none was given. Set RAY_AUTH_MODE=token" in refusal(dashboard)


def test_with_a_wrong_token(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert "refused the token" in refusal(dashboard)


def test_with_another_ray(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert "runs Ray 1.13.0, here is Ray" in refusal(dashboard)


def test_something_else_answers(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(Dashboard, "answer", "<html>")
    assert "is not Ray's dashboard (HTTP 200)" in refusal(dashboard)


def test_nothing_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert "(connection refused)" in refusal(f"127.0.0.1:{port}")


def test_a_port_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "no answer within 10 s" in refusal(f"127.0.0.1:{silent.getsockname()[1]}")
