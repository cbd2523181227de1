# SPDX-License-Identifier: Apache-2.0
"""Cases of methods that need the node's server, in a run without one; with one: `test_server_files.py`."""

from __future__ import annotations

from tests.agent.methods.casebook import ERROR, Case

_NONE = "no server"

CASES = [
    Case("file_from_shared_folder", {"source": "a", "path": "{work}/a"}, found=ERROR, says=_NONE),
    Case("file_from_remote_source", {"source": "a", "path": "{work}/a"}, found=ERROR, says=_NONE),
    Case(
        "file_from_remote_source_recursion",
        {"source": "a", "path": "{work}/a", "recursion": "inf"},
        found=ERROR,
        says=_NONE,
    ),
    Case("file_copy_from_remote_source", {"source": "a", "destination": "{work}/a"}, found=ERROR, says=_NONE),
    Case(
        "file_copy_from_remote_source_recursion",
        {"source": "a", "destination": "{work}/a", "recursion": "0"},
        found=ERROR,
        says=_NONE,
    ),
    Case(
        "sharedfile_to_node",
        {"remote_node": "n", "file_id": "f", "file_path": "{work}/a", "ttl": "1d"},
        found=ERROR,
        says=_NONE,
    ),
    Case(
        "sharedfile_from_node",
        {"remote_node": "n", "file_id": "f", "file_path": "{work}/a"},
        found=ERROR,
        says=_NONE,
    ),
]
