# SPDX-License-Identifier: Apache-2.0
"""Methods that speak HTTP with servers that a policy names (not with our own; that is client.py)."""

from __future__ import annotations

import os
from typing import IO, Dict, Optional, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents
from quarterdeck_agent.methods.registration import register, register_blind
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall

#: Seconds without a byte before a server counts as away.
TIMEOUT_SECONDS = 30
#: HTTP methods that change nothing on the server, as HTTP itself defines them.
SAFE = ("GET", "HEAD", "OPTIONS")


def _headers(text: str) -> Dict[str, str]:
    headers = {}
    for line in text.splitlines():
        name, found, value = line.partition(":")
        if not found or not name.strip():
            raise UnableError(f"{line} is not a header like Accept: text/plain.")
        headers[name.strip()] = value.strip()
    return headers


def _exchange(
    method: str, url: str, headers: Dict[str, str], body: Optional[bytes] = None, save: Optional[IO[bytes]] = None
) -> Tuple[int, bytes]:
    """Status and the first bytes of the answer; the whole answer goes to `save` when that is given."""
    import urllib.error  # together they take as long to import as a whole run without HTTP
    import urllib.request

    if not url.lower().startswith(("http://", "https://")):
        raise UnableError(f"{url} is not an http or https URL.")
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            if save:
                contents.copy(answer, save)
            return answer.status, answer.read(1000)
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read(1000)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        raise UnableError(f"{method} {url} failed: {reason}.") from problem


def _check_status(call: MethodCall) -> Finding:
    method, url, wanted = call["method"].strip().upper(), call["url"], call["expected_status"].strip()
    if method not in SAFE:
        return outcome.not_applicable(
            f"A {method} request may change the server; a check sends {', '.join(SAFE)} only."
        )
    if not wanted.isdigit():
        raise UnableError(f"The parameter expected_status must be a number, not {wanted}.")
    status, _ = _exchange(method, url, _headers(call["headers"]))
    text = f"{method} {url} answered {status}; {wanted} is expected."
    return outcome.compliant(text) if status == int(wanted) else outcome.drift(text)


def _send(call: MethodCall) -> Finding:
    method, url = call["method"].strip().upper(), call["url"]
    status, answer = _exchange(method, url, _headers(call["headers"]), call["content"].encode())
    text = f"{method} {url} answered {status}: {answer.decode('utf-8', 'replace')}"
    return outcome.repaired(text) if 200 <= status < 300 else outcome.error(text)


def _downloaded(call: MethodCall) -> Finding:
    if os.path.exists(call["path"]):
        return outcome.compliant(f"{call['path']} exists.")
    return outcome.drift(f"{call['path']} does not exist; it comes from {call['source']}.")


def _download(call: MethodCall) -> Finding:
    source, path = call["source"], call["path"]

    def fill(stream: IO[bytes]) -> None:
        status, _ = _exchange("GET", source, {}, save=stream)
        if status != 200:
            raise UnableError(f"{source} answered {status}.")

    contents.replace(path, fill, call.backups)
    return outcome.compliant(f"{path} was downloaded from {source}.")


register("http_request_check_status_headers", "method url expected_status headers?", _check_status, value="url")
register_blind(
    "http_request_content_headers", "method url content headers?", _send, deed="send the request", value="url"
)
register("file_from_http_server", "source path", _downloaded, _download, value="path")
