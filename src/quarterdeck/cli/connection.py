# SPDX-License-Identifier: Apache-2.0
"""The server that the commands talk to: where it is, which token, which certificate; and its calls.

Kept by `quarterdeck login` in the user's configuration directory, mode 600. The environment wins:
QUARTERDECK_URL, QUARTERDECK_TOKEN, QUARTERDECK_CA_FILE.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_SECONDS = 60


class CommandError(Exception):
    """One sentence for the user, and the exit code that goes with it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


#: What exit codes mean.
REFUSED, UNREACHABLE, NOT_LOGGED_IN = 1, 3, 4


@dataclass(frozen=True, kw_only=True)
class Server:
    url: str
    token: str
    #: PEM file of the authority to trust; empty trusts the system's
    ca_file: str = ""


def file() -> Path:
    """Where the login is kept."""
    root = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(root) / "quarterdeck" / "login.json"


def save(server: Server) -> Path:
    """Keep a login for the commands to come."""
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        json.dump({"url": server.url, "token": server.token, "ca_file": server.ca_file}, handle)
    unfinished.replace(path)
    return path


def current() -> Server:
    """The server to talk to. Raises CommandError when nobody said which."""
    kept: dict[str, str] = {}
    try:
        kept = json.loads(file().read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CommandError(f"The login in {file()} cannot be read ({error}): log in again.", NOT_LOGGED_IN) from error
    url = os.environ.get("QUARTERDECK_URL", kept.get("url", ""))
    token = os.environ.get("QUARTERDECK_TOKEN", kept.get("token", ""))
    if not url or not token:
        raise CommandError("Log in first: quarterdeck login URL --token-file FILE", NOT_LOGGED_IN)
    return Server(url=url, token=token, ca_file=os.environ.get("QUARTERDECK_CA_FILE", kept.get("ca_file", "")))


def rudder(server: Server, method: str, path: str, **arguments: Any) -> Any:
    """The `data` of a call to the Rudder API. Raises CommandError with the server's own words."""
    return call(server, method, f"/rudder/api/latest{path}", **arguments).get("data")


def native(server: Server, method: str, path: str, **arguments: Any) -> Any:
    """The answer of a call to the native API. Raises CommandError with the server's own words."""
    return call(server, method, f"/quarterdeck/api/1{path}", **arguments)


def native_text(server: Server, method: str, path: str, **arguments: Any) -> str:
    """The same for an answer that is a document and no JSON."""
    return _native(server, method, path, **arguments).text


def native_bytes(server: Server, method: str, path: str, **arguments: Any) -> bytes:
    """The same for an answer that is a file."""
    return _native(server, method, path, **arguments).content


def _native(server: Server, method: str, path: str, **arguments: Any) -> httpx.Response:
    with _exchanging(server) as client:
        answer = client.request(method, f"/quarterdeck/api/1{path}", **arguments)
    _check(server, answer)
    return answer


def native_lines(server: Server, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The JSON objects of an answer of the native API that comes line by line, as they come. Raises CommandError."""
    with _exchanging(server) as client, client.stream("GET", f"/quarterdeck/api/1{path}", params=params) as answer:
        if not answer.is_success:
            answer.read()
            _check(server, answer)
        for line in answer.iter_lines():
            yield json.loads(line)


def call(server: Server, method: str, path: str, **arguments: Any) -> Any:
    """One request, answered in JSON. Raises CommandError."""
    with _exchanging(server) as client:
        answer = client.request(method, path, **arguments)
    return _check(server, answer, json_expected=True)


@contextmanager
def _exchanging(server: Server) -> Iterator[httpx.Client]:
    """A client for the block, whose faults become CommandErrors."""
    headers = {"X-API-Token": server.token}
    try:
        with httpx.Client(
            base_url=server.url, verify=_trust(server), timeout=TIMEOUT_SECONDS, headers=headers
        ) as client:
            yield client
    except httpx.HTTPError as error:
        raise CommandError(_unreachable(server, error), UNREACHABLE) from error
    except httpx.InvalidURL as error:
        raise CommandError(f"{server.url} is no address of a server ({error}); write https://HOST:PORT", 2) from error


def _check(server: Server, answer: httpx.Response, *, json_expected: bool = False) -> Any:
    """The document of a success. Raises CommandError with the server's own words."""
    if answer.is_success and not json_expected:
        return None
    try:
        document = answer.json()
    except ValueError:
        raise CommandError(f"{server.url} answered {answer.status_code} and no JSON.", REFUSED) from None
    if answer.is_success:
        return document
    raise CommandError(
        _sentence(document), NOT_LOGGED_IN if answer.status_code == httpx.codes.UNAUTHORIZED else REFUSED
    )


def _unreachable(server: Server, error: httpx.HTTPError) -> str:
    """What went wrong on the way, and what to do about it."""
    reason = str(error)
    if "mismatch" in reason or "doesn't match" in reason:
        return (
            f"The certificate of {server.url} is for another name ({reason}): log in with the server's public URL, "
            "which `quarterdeckd serve` prints."
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"The certificate of {server.url} is not trusted. A Quarterdeck server has an authority of its own: copy "
            "keys/ca.pem from the server's data directory and log in with --ca-file ca.pem"
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return f"{server.url} is no address of a server; write https://HOST:PORT"
    return f"{server.url} does not answer: {reason or type(error).__name__}"


def _trust(server: Server) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=server.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise CommandError(f"The certificate file {server.ca_file} cannot be used: {error}", UNREACHABLE) from error


def _sentence(document: Any) -> str:
    if isinstance(document, dict):
        error = document.get("error")
        details = document.get("errorDetails") or (error.get("message") if isinstance(error, dict) else error)
        if isinstance(details, str):
            return details
    return json.dumps(document)
