# SPDX-License-Identifier: Apache-2.0
"""Where things lie in the data directory that more than one process uses. What each is: docs/data-directory.md."""

from __future__ import annotations

from pathlib import Path

from quarterdeck.daemon.config import Config


def reports_directory(config: Config) -> Path:
    """Where run logs of genuine agents are dropped, and set aside."""
    return config.data / "reports"


def counters_file(config: Config) -> Path:
    """Where those who take reports count, for those who are asked how many."""
    return config.data / "spool" / "counters"


def shared_folder(config: Config) -> Path:
    """The directory whose files every node may have."""
    return Path(config.relay.shared_folder) if config.relay.shared_folder else config.data / "shared-folder"


def share(config: Config) -> Path:
    """The directory with files of single nodes, and with `common` ones."""
    return config.data / "share"


def report_spool(config: Config) -> Path:
    """Where reports wait between their acknowledgement and the database."""
    return config.data / "spool" / "reports"
