# SPDX-License-Identifier: Apache-2.0
"""Real web servers in front of a `quarterdeckd serve`, for tests: configured by the page that tells how to do it.

`make test` installs them where that is possible.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from tests.agents import Agent
from tests.daemon.servers import PROGRAM, environment, eventually, free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "genuine-agents-behind-a-web-server.md"
#: Addresses of this machine play networks: the one where nodes are, and another.
NETWORK, INSIDE, OUTSIDE = "127.0.1.0/24", "127.0.1.7", "127.0.3.7"
#: Where the page lets the web server call from.
PROXY = "127.0.0.2"
KINDS = {"nginx": "nginx", "apache": "apache2"}

_NGINX = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{block}}}
"""
_APACHE = """\
ServerRoot {directory}
ServerName localhost
PidFile {directory}/pid
DefaultRuntimeDir {directory}
Mutex file:{directory} default
ErrorLog {directory}/log
{modules}
{user}
Listen 127.0.0.1:{port}
{block}
"""
#: What the page says besides for what speaks TLS itself.
_TLS_BEHIND = ("SSLProxyEngine on", "SSLProxyCheckPeerName off")
_MODULES = ("mpm_event", "authz_core", "ssl", "proxy", "proxy_http", "headers")


def blocks() -> dict[str, str]:
    """The configurations on the page, by language."""
    return dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))


def elsewhere(text: str, changes: Mapping[str, str]) -> str:
    """A configuration for other places; each of the changes must be one."""
    for old, new in changes.items():
        assert old in text, f"{old} does not stand on the page any more"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def quarterdeck(data: Path, database_url: str, *, tls: bool = False) -> Iterator[int]:
    """A server as the page configures it, or one that speaks TLS as relays do; its port."""
    port = free_port()
    data.mkdir()
    (data / "report-password").write_text("secret\n")
    places = {"127.0.0.1:8080": f"127.0.0.1:{port}", "192.0.2.0/24": NETWORK, "/var/lib/quarterdeck": str(data)}
    places |= {"tls = false": "tls = true"} if tls else {}
    (data / "quarterdeck.toml").write_text(elsewhere(blocks()["toml"], places))
    log = data / "log"
    with log.open("a") as file:
        argv = [*PROGRAM, "serve", "--data-dir", str(data), "--database-url", database_url, "--no-worker"]
        process = subprocess.Popen(argv, stdout=file, stderr=file, env=environment())
    try:
        assert eventually(lambda: process.poll() is not None or _answers(port, tls=tls)), log.read_text()
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int, *, tls: bool) -> bool:
    with contextlib.suppress(httpx.TransportError):
        scheme = "https" if tls else "http"
        return httpx.get(f"{scheme}://127.0.0.1:{port}/nothing", verify=False, trust_env=False).status_code > 0
    return False


@dataclass
class Front:
    """A web server that listens on the loopback, and clients of it. `kind` is nginx or apache."""

    kind: str
    directory: Path
    data: Path
    #: whether what is behind it speaks TLS, too
    tls: bool = False
    port: int = field(default_factory=free_port)
    clients: dict[tuple[str, str], httpx.Client] = field(default_factory=dict)

    @contextlib.contextmanager
    def running(self, behind: int) -> Iterator[Front]:
        """Let it run in front of what listens at the port `behind`."""
        self.directory.mkdir()
        process = subprocess.Popen(self._command(behind), stdin=subprocess.DEVNULL, stderr=self._log())
        try:
            assert eventually(lambda: process.poll() is not None or self._listens(), 20), self.log()
            assert process.poll() is None, self.log()
            yield self
        finally:
            for client in self.clients.values():
                client.close()
            process.terminate()
            process.wait(20)

    def _command(self, behind: int) -> list[str]:
        program, config = _program(self.kind), self.directory / "config"
        scheme = "https" if self.tls else "http"
        places = {"/var/lib/quarterdeck": str(self.data), "http://127.0.0.1:8080": f"{scheme}://127.0.0.1:{behind}"}
        root = os.geteuid() == 0
        if self.kind == "nginx":
            block = elsewhere(blocks()["nginx"], {**places, "listen 443": f"listen 127.0.0.1:{self.port}"})
            user = "user root;" if root else ""
            config.write_text(_NGINX.format(directory=self.directory, block=block, user=user))
            return [program, "-c", str(config), "-e", str(self.directory / "log")]
        engine: dict[str, str] = {}
        if self.tls:
            assert all(f"`{one}`" in PAGE.read_text() for one in _TLS_BEHIND)
            engine = {"SSLEngine             on": "\n".join(("SSLEngine on", *_TLS_BEHIND))}
        block = elsewhere(blocks()["apache"], {**places, **engine, "*:443": f"127.0.0.1:{self.port}"})
        modules = "\n".join(f"LoadModule {one}_module /usr/lib/apache2/modules/mod_{one}.so" for one in _MODULES)
        user = "User nobody\nGroup nogroup" if root else ""
        config.write_text(
            _APACHE.format(directory=self.directory, block=block, modules=modules, port=self.port, user=user)
        )
        return [program, "-D", "FOREGROUND", "-f", str(config)]

    def _log(self) -> int:
        return os.open(self.directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self) -> str:
        """What it has told so far."""
        return (self.directory / "log").read_text(errors="replace")

    def client(self, one: Agent | None = None, at: str = INSIDE) -> httpx.Client:
        """A TLS client at an address of this machine, with the certificate of a node or without any."""
        key = (one.certificate if one is not None else "", at)
        if key not in self.clients:
            trusting = ssl.create_default_context(cafile=str(self.data / "keys" / "ca.pem"))
            if one is not None:
                trusting.load_cert_chain(self._pair(one))
            transport = httpx.HTTPTransport(verify=trusting, local_address=at)
            url = f"https://127.0.0.1:{self.port}"
            self.clients[key] = httpx.Client(transport=transport, base_url=url, timeout=30, trust_env=False)
        return self.clients[key]

    def _pair(self, one: Agent) -> Path:
        """Certificate and key of a node in one file."""
        path = self.directory / f"pair-{len(self.clients)}.pem"
        key = one.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_text(one.certificate + key.decode())
        return path


def _program(kind: str) -> str:
    """Where it is installed; skips the test where it is not, unless somebody watches for that."""
    name = KINDS[kind]
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        reason = f"{name} is missing: run tools/system-packages nginx-light apache2-bin"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    return program
