# SPDX-License-Identifier: Apache-2.0
"""The relay dialect: what agents and relays ask of a policy server. No database here, directly or indirectly."""
