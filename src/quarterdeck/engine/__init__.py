# SPDX-License-Identifier: Apache-2.0
"""What runs without a request: queue tasks, policy generation."""
