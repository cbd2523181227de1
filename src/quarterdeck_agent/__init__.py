# SPDX-License-Identifier: Apache-2.0
"""The node agent. Ships alone as one zipapp file: standard library only, Python 3.9 and newer."""

__version__ = "0.1.0"
