# SPDX-License-Identifier: Apache-2.0
"""Walking a path and what is below it, links never followed: for permissions, ACLs and copies."""

from __future__ import annotations

import os
from typing import Iterator, Optional

from quarterdeck_agent.methods.system import UnableError


def depth(text: str) -> Optional[int]:
    """A recursion parameter: a number of levels, or `inf` (None). Raises UnableError."""
    word = text.strip().lower()
    if word == "inf":
        return None
    if not word.isdigit():
        raise UnableError(f"The parameter recursion must be a number or inf, not {text}.")
    return int(word)


def flag(name: str, text: str) -> bool:
    """A true/false parameter that may be empty, which is false. Raises UnableError."""
    word = text.strip().lower()
    if word not in ("", "true", "false"):
        raise UnableError(f"The parameter {name} must be true or false, not {text}.")
    return word == "true"


def walk(path: str, levels: Optional[int]) -> Iterator[str]:
    """`path`, then what is below it, to `levels` below (None: all), in order of name. Raises OSError."""
    os.lstat(path)
    yield path
    if levels == 0 or os.path.islink(path) or not os.path.isdir(path):
        return
    for name in sorted(os.listdir(path)):
        yield from walk(os.path.join(path, name), None if levels is None else levels - 1)
