# SPDX-License-Identifier: Apache-2.0
"""Quarterdeck's own API and the agent protocol, JSON."""
