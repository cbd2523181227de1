# SPDX-License-Identifier: Apache-2.0
"""One package per API grammar. Dialects do not know each other."""
