# SPDX-License-Identifier: Apache-2.0
"""Where everything is kept: the only room that speaks SQL."""
