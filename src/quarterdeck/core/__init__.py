# SPDX-License-Identifier: Apache-2.0
"""What is true: data, invariants and pure decisions. Standard library only; no clock, no input or output."""
