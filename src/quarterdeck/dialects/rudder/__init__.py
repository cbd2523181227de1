# SPDX-License-Identifier: Apache-2.0
"""The Rudder REST API, versions 2 to 18, JSON."""
