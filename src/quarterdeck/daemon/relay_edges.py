# SPDX-License-Identifier: Apache-2.0
"""The relay API's edge, and what goes on beside it, alike on the root and on relays; what it is made of, they know."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from quarterdeck.daemon.config import Config
from quarterdeck.dialects.relay import version
from quarterdeck.dialects.relay.dialect import RelayDialect, RelayEdge
from quarterdeck.dialects.relay.parts import Parts
from quarterdeck.relaying.folder_copies import SHARE
from quarterdeck.relaying.folder_trees import FolderTree
from quarterdeck.relaying.policy_archives import Archives
from quarterdeck.relaying.shared_files import SharedFiles
from quarterdeck.relaying.shared_folder import SharedFolder

log = logging.getLogger(__name__)

#: Hashes that are remembered of files of nodes: with fewer than there are files, each look would read all anew.
MOST_SHARED_FILES = 200_000


def bodies(config: Config) -> Path:
    """The directory for bodies that are too long for memory; it is there afterwards."""
    directory = config.data / "spool" / "bodies"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def archives(config: Config, policy_key: str) -> Archives:
    """Archives of policies, which are checked with this key (PEM)."""
    return Archives(directory=bodies(config), key=policy_key)


def share_tree(share: SharedFolder) -> FolderTree:
    """The files of nodes as relays below get them: each the directories of its own nodes, and the common one."""
    return FolderTree(share, apart=True, name=SHARE.name)


def edge(config: Config, parts: Parts, turns: Mapping[object, anyio.CapacityLimiter] | None = None) -> RelayEdge:
    """An ASGI application for the relay API. `turns`: lines of requests that wait for others."""
    return RelayEdge(
        grammar=RelayDialect(max_body=config.relay.shared_file_bytes),
        parts=parts,
        prefix=version.PREFIX,
        threads=anyio.CapacityLimiter(config.threads),
        turns=dict(turns or {}),
        body_directory=bodies(config),
    )


@asynccontextmanager
async def tidying(files: SharedFiles, seconds: float) -> AsyncIterator[None]:
    """Shared files whose time is over go meanwhile, now and every so many seconds."""

    async def tidy() -> None:
        while True:
            try:
                removed = await anyio.to_thread.run_sync(files.expire)
            except OSError:
                log.exception("Shared files could not be looked through")
            else:
                if removed:
                    log.info("%d shared files have expired", removed)
            await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        group.start_soon(tidy)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
