# SPDX-License-Identifier: Apache-2.0
"""What the log was told of things that go wrong round after round: each once, until it is another or over."""

from __future__ import annotations

from collections.abc import Container


class Complaints:
    """By what they are about. For one thread."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def are_news(self, about: str, reason: str) -> bool:
        """Note that something goes wrong for a reason; whether that has not been told yet."""
        before, self._told[about] = self._told.get(about), reason
        return before != reason

    def are_over(self, about: str) -> bool:
        """Note that something went well; whether the last that was told of it was a complaint."""
        return self._told.pop(about, None) is not None

    def keep_only(self, needed: Container[str]) -> None:
        """Forget what nobody needs any more."""
        self._told = {about: reason for about, reason in self._told.items() if about in needed}
