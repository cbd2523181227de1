# SPDX-License-Identifier: Apache-2.0
"""The HTTP toolkit that dialects share; it knows no dialect."""
