# SPDX-License-Identifier: Apache-2.0
"""A real `quarterdeckd relay` for benchmarks, enrolled and promoted below a real server, over TLS on loopback."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench._server import Server, answering, daemon, environment, free_port, running


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
    place = ["--data-dir", str(data)]
    above = ["--upstream", str(server.client.base_url).rstrip("/"), "--token", token, "--accept-wait", "20"]
    told = subprocess.run(
        daemon("relay", "enroll", *place, *above), env=environment(), capture_output=True, check=False
    )
    if told.returncode:
        raise SystemExit(told.stderr.decode())
    node = (data / "agent" / "node.id").read_text().strip()
    server.client.post(f"/rudder/api/latest/scaleoutrelay/promote/{node}").raise_for_status()
    (data / "quarterdeck.toml").write_text(settings)
    url, log = f"https://127.0.0.1:{port}", scratch / "relay.log"
    command = daemon("relay", *place, "--listen", f"127.0.0.1:{port}", "--public-url", url)
    with running(command, log) as process:
        relay = Relay(process.pid, node, data, url, answering(url, process, log, data))
        while not relay.mirrored():
            time.sleep(0.1)
        yield relay
