# SPDX-License-Identifier: Apache-2.0
"""What every test may use."""

from __future__ import annotations

pytest_plugins = ["tests.postgres", "tests.served"]
