# SPDX-License-Identifier: Apache-2.0
"""What every test may use."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.postgres", "tests.served", "tests.served_rundeck", "tests.sshd"]

# The same examples in each run, and no limit of time: a busy machine is not a defect.
settings.register_profile(
    "quarterdeck", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("quarterdeck")
