# SPDX-License-Identifier: Apache-2.0
"""A long file of the shared folder, served by a real server and, in the same run, by nginx; and whether it is the same.

    python -m bench.shared_folder [--megabytes 100] [--rounds 5] [--quick]

One client that reads into a buffer and keeps nothing asks both in turn, over plain HTTP and over TLS with the same key
and certificate. nginx is Debian's, with sendfile; without it, the server is measured alone. `HEAD` asks whether the
file has a certain hash: the first time it is computed. One MB is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from bench import _server
from bench._processes import cpu_seconds
from bench._server import Server, free_port
from bench.remote_run import enroll
from tests.agents import Agent

MEGABYTE = 10**6
_FILE = "image.bin"
_PATH = f"/rudder/relay-api/1/shared-folder/{_FILE}"
_GOAL = "(>= 0.5)"
#: The hash of a file that was changed a moment ago is not remembered.
_SETTLING_SECONDS = 3.0
_NGINX = """
daemon off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log; {user}
worker_processes auto;
events {{ worker_connections 100; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{secured} ssl;
    ssl_certificate {keys}/server.pem; ssl_certificate_key {keys}/server.key;
    location /rudder/relay-api/1/shared-folder/ {{ alias {folder}/; }}
  }}
}}
"""


class Took(NamedTuple):
    """Seconds of each round, and the server's own processor time for all."""

    seconds: list[float]
    cpu: float


class Source(NamedTuple):
    """Who serves the file. `pid` is the process that does, or the one above it."""

    url: str
    pid: int


def fetch(url: str, node: Agent, trusted: ssl.SSLContext | None, length: int) -> float:
    """Seconds from the request to the last byte, on a new connection that was made before."""
    place = urlsplit(url)
    assert place.hostname is not None
    buffer = memoryview(bytearray(1 << 20))
    plain = socket.create_connection((place.hostname, place.port or 0), timeout=120)
    with trusted.wrap_socket(plain, server_hostname=place.hostname) if trusted else plain as connection:
        signed = "".join(f"{name}: {value}\r\n" for name, value in node.headers("GET", _PATH).items())
        request = f"GET {_PATH} HTTP/1.1\r\nHost: {place.hostname}\r\n{signed}Connection: close\r\n\r\n"
        begun = time.perf_counter()
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        head, _, rest = head.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(head.decode())
        left = length - len(rest)
        while left > 0:
            got = connection.recv_into(buffer)
            if not got:
                raise SystemExit("The file ended early.")
            left -= got
        return time.perf_counter() - begun


@contextlib.contextmanager
def nginx(scratch: Path, server: Server) -> Iterator[tuple[int, int, int] | None]:
    """nginx on the same file: its pid, its plain port, its port for TLS; None where it is not installed."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        yield None
        return
    plain, secured = free_port(), free_port()
    places = {"scratch": scratch, "keys": server.data / "keys", "folder": server.data / "shared-folder"}
    user = "user root;" if os.getuid() == 0 else ""
    (scratch / "nginx.conf").write_text(_NGINX.format(user=user, plain=plain, secured=secured, **places))
    process = subprocess.Popen([program, "-c", str(scratch / "nginx.conf"), "-e", str(scratch / "nginx.log")])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", secured), timeout=1):
                break
            time.sleep(0.1)
        yield process.pid, plain, secured
    finally:
        process.terminate()
        process.wait(30)


def measure(sources: list[Source], node: Agent, trusted: ssl.SSLContext | None, length: int, rounds: int) -> list[Took]:
    """Every source in turn, the first round left out."""
    seconds: list[list[float]] = [[] for _ in sources]
    cpu = [0.0 for _ in sources]
    for number in range(rounds + 1):
        for position, source in enumerate(sources):
            used = cpu_seconds(source.pid)
            took = fetch(source.url, node, trusted, length)
            if number:
                seconds[position].append(took)
                cpu[position] += cpu_seconds(source.pid) - used
    return [Took(*found) for found in zip(seconds, cpu, strict=True)]


def print_rates(what: str, found: list[Took], length: int) -> None:
    rates = [length / MEGABYTE / statistics.median(one.seconds) for one in found]
    cpus = [1000 * one.cpu / (len(one.seconds) * length / (100 * MEGABYTE)) for one in found]
    line = f"{what:<18} {rates[0]:7.0f} MB/s, CPU {cpus[0]:4.0f} ms per 100 MB"
    if len(found) > 1:
        ratios = [other / mine for mine, other in zip(*(one.seconds for one in found), strict=True)]
        line += f"; nginx {rates[1]:5.0f} MB/s, CPU {cpus[1]:4.0f} ms; ratio {statistics.median(ratios):.2f} {_GOAL}"
    print(f"{line}; load {os.getloadavg()[0]:.1f}")


def print_hashes(server: Server, node: Agent, content: bytes, rounds: int) -> None:
    """HEAD with the right hash, again and again."""
    target = f"{_PATH}?hash={hashlib.sha256(content).hexdigest()}&hash_type=sha256"
    took = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        answer = server.client.head(target, headers=node.headers("HEAD", target))
        took.append(1000 * (time.perf_counter() - begun))
        if answer.status_code != httpx.codes.NOT_MODIFIED:
            raise SystemExit(f"HEAD: {answer.status_code}")
    later = statistics.median(took[1:])
    print(f"{'HEAD with a hash':<18} first {took[0]:.0f} ms, later {later:.1f} ms: 1/{took[0] / later:.0f} of it")


def serve_and_measure(scratch: Path, content: bytes, rounds: int, *, tls: bool) -> None:
    scratch.mkdir()
    with _server.serving(scratch, tls=tls) as server:
        file = server.data / "shared-folder" / _FILE
        file.write_bytes(content)
        time.sleep(_SETTLING_SECONDS)
        trusted = ssl.create_default_context(cafile=str(server.data / "keys" / "ca.pem")) if tls else None
        [node] = enroll(server, 1, trusted)
        own = Source(str(server.client.base_url), server.process("api"))
        if not tls:
            print_hashes(server, node, content, rounds)
        with nginx(scratch, server) as other:
            sources = [own]
            if other is not None:
                pid, plain, secured = other
                place = f"https://127.0.0.1:{secured}" if tls else f"http://127.0.0.1:{plain}"
                sources.append(Source(place, pid))
            took = measure(sources, node, trusted, len(content), rounds)
            print_rates("GET over TLS" if tls else "GET", took, len(content))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.shared_folder", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="10 MB, 3 rounds")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.rounds = 10, 3
    content = os.urandom(options.megabytes * MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as scratch:
        Path(scratch).chmod(0o711)
        print(f"A file of {options.megabytes} MB, {options.rounds} rounds")
        for tls in (False, True):
            serve_and_measure(Path(scratch) / ("secured" if tls else "plain"), content, options.rounds, tls=tls)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
