# SPDX-License-Identifier: Apache-2.0
"""Fetching documents and scripts from addresses that somebody named: bounded in size and time, confined on disk.

Which addresses may be asked for at all is the services' decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx

from quarterdeck.core.errors import Invalid

MAX_BYTES = 64 * 1024 * 1024
_SECONDS = 60.0


class Fetcher:
    """Reads `http:`, `https:` and `file:` addresses; files only below `allowed_paths`."""

    def __init__(self, allowed_paths: Sequence[PurePosixPath] = (), *, max_bytes: int = MAX_BYTES) -> None:
        self._allowed = [Path(one).resolve() for one in allowed_paths]
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
        host = urlsplit(address).hostname or ""
        try:
            with (
                httpx.Client(follow_redirects=True, timeout=_SECONDS, headers={"Accept": "*/*"}) as client,
                client.stream("GET", address) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    told = f"{answer.status_code} {answer.reason_phrase}"
                    raise Invalid(f"Unable to retrieve content: result code: {told}")
                return self._whole(answer, address)
        except httpx.ConnectError as error:
            # The words that clients look for when a host is not known.
            if "Name or service not known" in str(error) or "Temporary failure in name resolution" in str(error):
                raise Invalid(f"java.net.UnknownHostException: {host}", detail=str(error)) from error
            raise Invalid(f"Connection to {host} failed: {error}") from error
        except httpx.HTTPError as error:
            raise Invalid(f"Unable to retrieve content: {type(error).__name__}: {error}") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise Invalid(f"invalid URL: {address}", detail=str(error)) from error

    def _whole(self, answer: httpx.Response, address: str) -> bytes:
        pieces, size = [], 0
        for piece in answer.iter_bytes():
            size += len(piece)
            if size > self._max_bytes:
                raise Invalid(f"What is at {address} is longer than {self._max_bytes} bytes.")
            pieces.append(piece)
        if not size:
            raise Invalid("Unable to retrieve content: the answer is empty")
        return b"".join(pieces)
