# SPDX-License-Identifier: Apache-2.0
"""Quarterdeck: one server that configures, audits and runs jobs on a fleet of Linux machines."""

__version__ = "0.1.0"
