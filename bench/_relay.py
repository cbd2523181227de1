# SPDX-License-Identifier: Apache-2.0
"""A real `quarterdeckd relay` for benchmarks, enrolled and promoted below a real server, over TLS on loopback."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from bench._server import SOURCES, Server, free_port
from tools.demo_world import tied


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that answers. `data` is its data directory, `node` the node that it is."""

    pid: int
    node: str
    data: Path
    url: str
    tls: ssl.SSLContext

    def mirrored(self) -> bool:
        """Whether it has got everything from the server once."""
        return (self.data / "mirror" / "nodes.json").exists()


@contextlib.contextmanager
def relaying(server: Server, scratch: Path, settings: str = "") -> Iterator[Relay]:
    """A relay on an empty data directory below `scratch`, for the length of the block."""
    data, port = scratch / "relay", free_port()
    data.mkdir(mode=0o711)
    token = server.native("POST", "/enrolment-tokens", {"name": "relay", "accept": True})["token"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}
    environment = kept | {"PYTHONPATH": os.pathsep.join([str(SOURCES), *filter(None, [kept.get("PYTHONPATH")])])}
    program, place = [sys.executable, "-m", "quarterdeck.daemon.main", "relay"], ["--data-dir", str(data)]
    above = ["--upstream", str(server.client.base_url).rstrip("/"), "--token", token, "--accept-wait", "20"]
    told = subprocess.run([*program, "enroll", *place, *above], env=environment, capture_output=True, check=False)
    if told.returncode:
        raise SystemExit(told.stderr.decode())
    node = (data / "agent" / "node.id").read_text().strip()
    server.client.post(f"/rudder/api/latest/scaleoutrelay/promote/{node}").raise_for_status()
    (data / "quarterdeck.toml").write_text(settings)
    url, log = f"https://127.0.0.1:{port}", scratch / "relay.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            tied([*program, *place, "--listen", f"127.0.0.1:{port}", "--public-url", url]),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
        )
    try:
        relay = Relay(process.pid, node, data, url, _await(url, process, data, log))
        while not relay.mirrored():
            time.sleep(0.1)
        yield relay
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], data: Path, log: Path) -> ssl.SSLContext:
    for _ in range(300):
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError, OSError):
            context = ssl.create_default_context(cafile=str(data / "keys" / "ca.pem"))
            httpx.get(url, trust_env=False, verify=context)
            return context
        time.sleep(0.2)
    raise SystemExit(f"The relay does not answer: {log.read_text()}")
