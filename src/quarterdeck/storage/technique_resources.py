# SPDX-License-Identifier: Apache-2.0
"""Files that come with techniques, and their contents, each kept once under its SHA-256.

A content stays as long as a file has it or a policy names it. Which files a technique has is read with it, in
`techniques.py`, and so is the history.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.core.techniques import TechniqueKey, TechniqueResource
from quarterdeck.storage import tables

if TYPE_CHECKING:
    from quarterdeck.storage.database import Store

_table = tables.technique_resources
_contents = tables.resource_contents
_fragments = tables.policy_fragments
#: Any constant: who adds contents shares this advisory lock, who removes them has it alone.
_LOCK = 0x5175_7265


class TechniqueResourceTable:
    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, key: TechniqueKey, path: str, body: bytes) -> TechniqueResource:
        """Keep a file of a technique, in place of the one with this path. Raises Conflict without the technique."""
        resource = TechniqueResource(path=path, sha256=hashlib.sha256(body).hexdigest(), size=len(body))
        self._store.run(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock_shared(_LOCK)))
        self._store.run(insert(_contents).values(digest=resource.sha256, body=body).on_conflict_do_nothing())
        row = {
            "technique": key.id,
            "version": key.version,
            "path": path,
            "digest": resource.sha256,
            "size": resource.size,
        }
        statement = insert(_table).values(row)
        self._store.run(statement.on_conflict_do_update(index_elements=["technique", "version", "path"], set_=row))
        return resource

    def remove(self, key: TechniqueKey, path: str) -> None:
        """Forget a file; its content stays while it is needed."""
        here = (_table.c.technique == key.id) & (_table.c.version == key.version) & (_table.c.path == path)
        self._store.run(sqlalchemy.delete(_table).where(here))

    def content(self, digest: str) -> bytes | None:
        """What a file with this SHA-256 (hex) has in it, if that is kept."""
        body = self._store.run(sqlalchemy.select(_contents.c.body).where(_contents.c.digest == digest)).scalar()
        return bytes(body) if body is not None else None

    def sweep(self) -> int:
        """Forget contents that neither a file has nor a policy names; how many.

        Only for who holds the lock of generations: a policy that is being made may name what no file has any more.
        """
        alone = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(_LOCK))
        if not self._store.run(alone).scalar():
            return 0  # somebody is adding one; there will be another generation
        kept = sqlalchemy.select(_table.c.digest)
        named = sqlalchemy.select(sqlalchemy.func.unnest(_fragments.c.resources))
        unused = _contents.c.digest.not_in(kept) & _contents.c.digest.not_in(named)
        return self._store.run(sqlalchemy.delete(_contents).where(unused)).rowcount
