# SPDX-License-Identifier: Apache-2.0
"""What a relay does without a database. No SQL here, directly or indirectly."""
