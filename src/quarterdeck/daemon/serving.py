# SPDX-License-Identifier: Apache-2.0
"""What processes that serve HTTP have in common, with a database or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quarterdeck.daemon.config import Config

if TYPE_CHECKING:
    from quarterdeck.relaying.command_ways import CommandWay

API_DRAIN_SECONDS = 5
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def ways_to_nodes(config: Config) -> tuple[CommandWay, ...]:
    """How nodes are had to run whose agents do not wait here."""
    from quarterdeck.relaying import command_ways  # deferred: workers do without

    return command_ways.ways(
        config.relay.commands(), at_once=config.relay.remote_run_at_once, seconds=config.relay.remote_run_seconds
    )
