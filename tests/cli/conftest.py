# SPDX-License-Identifier: Apache-2.0
"""The whole application over TLS on a real socket, and the command line as people call it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tests.daemon.servers import eventually, free_port
from tests.postgres import database_from
from tests.served import Filled

from quarterdeck.cli import main as program
from quarterdeck.daemon import config, tls, wiring
from quarterdeck.daemon.config import Config


@dataclass(frozen=True)
class Running:
    """A server: where it is, which authority signed its certificate, its tokens by degree of access."""

    url: str
    ca_file: Path
    tokens: dict[str, str]
    config: Config

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The data of an answer of the Rudder API, to an administrator."""
        trusting = ssl.create_default_context(cafile=str(self.ca_file))
        headers = {"X-API-Token": self.tokens["admin"]}
        with httpx.Client(verify=trusting, headers=headers, trust_env=False) as client:
            answer = client.request(method, f"{self.url}/rudder/api/latest{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()["data"]


@pytest.fixture(scope="module")
def running(filled_database: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("server")
    url = f"https://127.0.0.1:{(port := free_port())}"
    kept = tls.initialise(data, url, datetime.now(UTC))
    with database_from(filled_database.server, filled_database.name, "cli") as database_url:
        told = {"data_dir": str(data), "public_url": url, "database_url": database_url, "listen": f"127.0.0.1:{port}"}
        settings = config.load(told, {})
        server = uvicorn.Server(
            uvicorn.Config(
                wiring.application(settings),
                port=port,
                log_level="warning",
                http="h11",
                ssl_certfile=str(kept.server_certificate),
                ssl_keyfile=str(kept.server_key),
            )
        )
        thread = threading.Thread(target=server.run, name="server")
        thread.start()
        assert eventually(lambda: server.started or not thread.is_alive())
        yield Running(url, kept.ca_certificate, filled_database.tokens, settings)
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Call:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """`quarterdeck` in a home of its own."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Call:
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            program.main(arguments)
        captured = self.capture.readouterr()
        code = ended.value.code
        return Call(code if isinstance(code, int) else 1, captured.out, captured.err)

    def file(self, name: str, text: str) -> str:
        path = self.home / name
        path.write_text(text)
        return str(path)


@pytest.fixture
def quarterdeck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Nobody is logged in."""
    for name in ("URL", "TOKEN", "CA_FILE"):
        monkeypatch.delenv(f"QUARTERDECK_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return CommandLine(tmp_path, capsys)


@pytest.fixture
def operator(quarterdeck: CommandLine, running: Running) -> CommandLine:
    """An administrator is logged in."""
    token = quarterdeck.file("token", f"{running.tokens['admin']}\n")
    done = quarterdeck("login", running.url, "--token-file", token, "--ca-file", str(running.ca_file))
    assert done.code == 0, done.err
    return quarterdeck
