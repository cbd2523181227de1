# SPDX-License-Identifier: Apache-2.0
"""What methods remember from one run to the next: small files in the agent's state directory."""

from __future__ import annotations

import hashlib
import os
from typing import Iterator, Optional, Tuple

from quarterdeck_agent.methods import contents
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import MethodCall


def place(call: MethodCall, kind: str, name: str) -> str:
    """Path of the marker `name` of a `kind` (a word). Raises UnableError when the agent keeps no state."""
    if call.state is None:
        raise UnableError("This agent keeps no state from one run to the next.")
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return os.path.join(call.state, kind, digest)


def get(call: MethodCall, kind: str, name: str) -> Optional[str]:
    """The text of a marker; None when it was never set."""
    data = contents.read(place(call, kind, name))
    return None if data is None else _text(data)[1]


def put(call: MethodCall, kind: str, name: str, text: str) -> None:
    """Set a marker durably."""
    path = place(call, kind, name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    contents.write(path, f"{name}\0{text}".encode("utf-8", "surrogateescape"), None)


def all_of(state: str, kind: str) -> Iterator[Tuple[str, str]]:
    """Name and text of every marker of a kind."""
    directory = os.path.join(state, kind)
    for entry in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        data = None if entry.startswith(".") else contents.read(os.path.join(directory, entry))
        if data is not None:
            yield _text(data)


def _text(data: bytes) -> Tuple[str, str]:
    name, _, text = data.decode("utf-8", "surrogateescape").rpartition("\0")
    return name, text
