# SPDX-License-Identifier: Apache-2.0
"""Documents that people keep or agents write, as text <-> core objects. Pure."""
