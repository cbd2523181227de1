# SPDX-License-Identifier: Apache-2.0
"""How long one waits before the next try of something that failed: longer each time, and never all at once."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0


def after(failures: int) -> float:
    """Seconds until the next try, when so many failed before this one did: twice as long each time, spread."""
    longest = min(FIRST_SECONDS * 2.0 ** min(failures, 20), LONGEST_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # nothing secret
