# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd`: processes, configuration, wiring."""
