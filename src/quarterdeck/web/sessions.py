# SPDX-License-Identifier: Apache-2.0
"""Cookies that carry a session or, before there is one, where the client wanted to go; and guessing made slow.

What is remembered before a login lies with the client, so that strangers fill nothing here. Sessions themselves:
`services/sessions.py`.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from quarterdeck.core.accounts import Account
from quarterdeck.services import sessions
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Request

COOKIE = "JSESSIONID"
_SECRET = re.compile(r"[A-Za-z0-9]{32}")
#: What the cookie holds before a login: `p0-` or, after a login that failed, `p1-`, and the path.
_BEFORE = re.compile(r"p([01])-([A-Za-z0-9_-]{0,2000})")
#: A path of our own: no host, no backslash that browsers take for a slash, nothing that ends a header.
_LOCAL = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


def cookies(request: Request) -> list[str]:
    """The values that the client sent under our name, in its order."""
    pairs = (pair.strip().partition("=") for pair in re.split("[;,]", request.headers.get("cookie", "")))
    return [value.strip('"') for name, _, value in pairs if name == COOKIE]


def secret(request: Request) -> str:
    """What looks like the secret of a session; "" for none."""
    return next((value for value in cookies(request) if _SECRET.fullmatch(value)), "")


def account(ctx: Context, request: Request) -> Account | None:
    """Who is logged in; None for nobody."""
    found = secret(request)
    return sessions.account_of(ctx, found) if found else None


def header(request: Request, value: str) -> tuple[str, str]:
    """The header that sets the cookie. It reaches no script and no request that another site makes by itself."""
    secure = "; Secure" if request.scheme == "https" else ""
    return ("Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{secure}")


@dataclass(frozen=True, slots=True)
class Before:
    """What is remembered before a login: the local path that was asked for, and whether a login just failed."""

    path: str = ""
    failed: bool = False

    @property
    def value(self) -> str:
        """The cookie's value."""
        kept = self.path if is_local(self.path) else ""
        encoded = base64.urlsafe_b64encode(kept.encode()).decode().rstrip("=")
        return f"p{int(self.failed)}-{encoded}" if len(encoded) <= 2000 else f"p{int(self.failed)}-"


def before(request: Request) -> Before:
    """What the client remembers; nothing that is not a path of our own."""
    for value in cookies(request):
        if match := _BEFORE.fullmatch(value):
            try:
                path = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4)).decode("ascii")
            except (binascii.Error, UnicodeDecodeError):
                path = ""
            return Before(path if is_local(path) else "", match[1] == "1")
    return Before()


def is_local(path: str) -> bool:
    """Whether a redirect to it stays here."""
    return _LOCAL.fullmatch(path) is not None


def is_foreign(request: Request) -> bool:
    """Whether a browser says that a page of another site made this request. Other clients say nothing."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()


# -- guessing ---------------------------------------------------------------------------------

_FREE = 5
_FIRST_WAIT = 5.0
_LONGEST_WAIT = 60.0
_FORGOTTEN_AFTER = 900.0
_MOST_KEPT = 10_000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0

    def wait(self, now: float) -> float:
        if self.count < _FREE:
            return 0.0
        pause = min(_FIRST_WAIT * 2.0 ** min(self.count - _FREE, 10), _LONGEST_WAIT)
        return max(0.0, self.last + pause - now)


class LoginThrottle:
    """Counts failed logins by user name and by client address, in memory; after five, each costs a longer wait.

    Who logged in before from the same address does not wait for what others do to their name.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, name: str, client: str) -> float:
        """Seconds until the next try; 0 for now."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            keys = [("address", _network(client))]
            if (name, _network(client)) not in self._known:
                keys.append(("name", name))
            return max(self._failures[key].wait(now) if key in self._failures else 0.0 for key in keys)

    def failed(self, name: str, client: str) -> None:
        """A try with a wrong name or password."""
        with self._lock:
            for key in (("name", name), ("address", _network(client))):
                failures = self._failures.setdefault(key, _Failures())
                failures.count += 1
                failures.last = self._clock()
                self._failures.move_to_end(key)

    def succeeded(self, name: str, client: str) -> None:
        """A login. The count of the address stays: one good account must not pay for guesses at others."""
        with self._lock:
            self._failures.pop(("name", name), None)
            self._known[name, _network(client)] = None
            self._known.move_to_end((name, _network(client)))
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)

    def _forget(self, now: float) -> None:
        while self._failures:
            key, oldest = next(iter(self._failures.items()))
            if oldest.last + _FORGOTTEN_AFTER > now and len(self._failures) <= _MOST_KEPT:
                return
            del self._failures[key]


def _network(client: str) -> str:
    """The address, or the part of an IPv6 one that a single customer has all of."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client
