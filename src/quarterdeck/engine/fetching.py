# SPDX-License-Identifier: Apache-2.0
"""Fetching documents and scripts from addresses that somebody named: bounded in size and time, confined on disk.

Which addresses may be asked for at all is the services' decision.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from quarterdeck.core import bounded_regexes, notifications
from quarterdeck.core.errors import Invalid

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 64 * 1024 * 1024
_SECONDS = 60.0
_MOST_REDIRECTS = 5
_OK = 200


class Fetcher:
    """Reads `http:`, `https:` and `file:` addresses; files only below `allowed_paths`.

    This machine, and addresses that nobody outside of it can mean, are asked only at addresses that fit a pattern of
    `allowed_urls`; so are those that a redirection leads to.
    """

    def __init__(
        self,
        allowed_paths: Sequence[PurePosixPath] = (),
        allowed_urls: Sequence[str] = (),
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._allowed = [Path(one).resolve() for one in allowed_paths]
        self._allowed_urls = tuple(allowed_urls)
        self._max_bytes = max_bytes

    def get(self, address: str) -> bytes:
        """What is at the address, complete and not empty. Raises Invalid with the cause."""
        scheme = address.partition(":")[0].lower()
        if scheme == "file":
            return self.file(unquote(urlsplit(address).path))
        if scheme in ("http", "https"):
            return self._over_http(address)
        raise Invalid(f"invalid URL: {address}")

    def file(self, name: str) -> bytes:
        """A file of this machine, below an allowed directory also when links are followed. Raises Invalid."""
        path = Path(name)
        try:
            real = path.resolve(strict=True)
            if not path.is_absolute() or not any(real.is_relative_to(one) for one in self._allowed):
                raise Invalid(f"The file {name} is in none of the directories of the setting allowed_paths.")
            if not real.is_file():
                raise Invalid(f"{name} is not a file")
            if real.stat().st_size > self._max_bytes:
                raise Invalid(f"The file {name} is longer than {self._max_bytes} bytes.")
            return real.read_bytes()
        except FileNotFoundError:
            raise Invalid(f"The file {name} does not exist.") from None
        except OSError as error:
            raise Invalid(f"The file {name} cannot be read: {error.strerror}.") from error

    def _over_http(self, address: str) -> bytes:
        import httpx  # deferred: most workers never fetch anything

        try:
            with httpx.Client(timeout=_SECONDS, headers={"Accept": "*/*"}) as client:
                for _ in range(_MOST_REDIRECTS):
                    self._check_host(address)
                    with client.stream("GET", address) as answer:
                        if answer.next_request is None:
                            return self._whole(answer, address)
                        address = str(answer.next_request.url)
                raise Invalid("Unable to retrieve content: too many redirections")
        except httpx.ConnectError as error:
            raise Invalid(f"Connection to {urlsplit(address).hostname} failed: {error}") from error
        except httpx.HTTPError as error:
            raise Invalid(f"Unable to retrieve content: {type(error).__name__}: {error}") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise Invalid(f"invalid URL: {address}", detail=str(error)) from error

    def _check_host(self, address: str) -> None:
        """Raises Invalid for a host that is not known, and for this machine and the like unless that is allowed."""
        parts = urlsplit(address)
        host = parts.hostname or ""
        try:
            found = socket.getaddrinfo(host, parts.port or parts.scheme.lower(), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # The words that clients look for.
            raise Invalid(f"java.net.UnknownHostException: {host}", detail=str(error)) from error
        if any(bounded_regexes.compiled(f"(?i){pattern}").fullmatch(address) for pattern in self._allowed_urls):
            return
        for one in found:
            if not notifications.is_public(str(one[4][0])):
                raise Invalid(
                    f"The host '{host}' has the address {one[4][0]}, which may be asked only when the setting "
                    "projects.allowed_urls says so."
                )

    def _whole(self, answer: httpx.Response, address: str) -> bytes:
        if answer.status_code != _OK:
            told = f"{answer.status_code} {answer.reason_phrase}"
            raise Invalid(f"Unable to retrieve content: result code: {told}")
        pieces, size = [], 0
        for piece in answer.iter_bytes():
            size += len(piece)
            if size > self._max_bytes:
                raise Invalid(f"What is at {address} is longer than {self._max_bytes} bytes.")
            pieces.append(piece)
        if not size:
            raise Invalid("Unable to retrieve content: the answer is empty")
        return b"".join(pieces)
