# SPDX-License-Identifier: Apache-2.0
"""The agent's generic methods: importing this package registers all of them in `outcome.METHODS`.

One module per subject. A module registers its methods at its end; `aliases` comes last because it
names the others.
"""

from quarterdeck_agent.methods import directories, file_checks, files, key_values, links, sections

__all__ = ["directories", "file_checks", "files", "key_values", "links", "sections"]
