# SPDX-License-Identifier: Apache-2.0
"""RunDeck's realm.properties: users with their passwords as they stand there, and their roles.

Whether a password is right is for services to find out: `Credential.verify` here only compares, and never logs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from quarterdeck.core.errors import Invalid

_KINDS = {"MD5:": "md5", "OBF:": "obfuscated", "CRYPT:": "crypt"}


@dataclass(frozen=True, slots=True)
class Credential:
    """A password as the file has it. `kind` is plain, md5, obfuscated or crypt."""

    kind: str
    value: str = field(repr=False)

    @property
    def is_weak(self) -> bool:
        """Whether whoever reads the file knows the password."""
        return self.kind in ("plain", "obfuscated")

    def verify(self, password: str) -> bool:
        """Whether this is the password. Raises Invalid for the kinds that we do not read."""
        if self.kind == "plain":
            return hmac.compare_digest(self.value.encode(), password.encode())
        if self.kind == "md5":
            digest = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
            return hmac.compare_digest(self.value.lower().encode(), digest.encode())
        raise Invalid(f"Passwords of the kind {self.kind} are not read; set a new one.")


@dataclass(frozen=True, slots=True)
class RealmUser:
    """A line of the file."""

    name: str
    credential: Credential
    roles: frozenset[str]


def read(data: bytes) -> list[RealmUser]:
    """The users of a file; of two with one name the later counts. Raises Invalid, which says the line."""
    found: dict[str, RealmUser] = {}
    for number, line in _lines(data):
        name, *rest = re.split("[:=]", line, maxsplit=1)
        password, *roles = (rest or [""])[0].strip().split(",")
        if not name.strip() or not password.strip():
            raise Invalid(f"line {number}: A user is written as 'name: password,role,role'.")
        roles = [role.strip() for role in roles if role.strip()]
        found[name.strip()] = RealmUser(name.strip(), _credential(password.strip()), frozenset(roles))
    return list(found.values())


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if text and text[0] not in "#!":
            yield number, text


def _credential(text: str) -> Credential:
    for prefix, kind in _KINDS.items():
        if text.startswith(prefix):
            return Credential(kind, text.removeprefix(prefix))
    return Credential("plain", text)
