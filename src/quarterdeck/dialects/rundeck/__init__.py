# SPDX-License-Identifier: Apache-2.0
"""The RunDeck API, version 1: XML, cookies and tokens. One module per chapter of its reference."""
