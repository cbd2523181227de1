# SPDX-License-Identifier: Apache-2.0
"""Global parameters: rows <-> core objects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from quarterdeck.core.ids import ParameterName
from quarterdeck.core.parameters import Parameter
from quarterdeck.storage import tables
from quarterdeck.storage.versioned import VersionedTable


class ParameterTable(VersionedTable[Parameter]):
    table = tables.parameters
    kind = "parameter"
    key = "name"
    not_found = "Could not find Parameter {id}"

    def to_row(self, thing: Parameter) -> dict[str, Any]:
        return {
            "name": thing.name,
            "value": thing.value,
            "description": thing.description,
            "inherit_mode": thing.inherit_mode,
            "provider": thing.provider,
        }

    def from_row(self, row: Row[Any]) -> Parameter:
        return Parameter(
            name=ParameterName(row.name),
            value=row.value,
            description=row.description,
            inherit_mode=row.inherit_mode,
            provider=row.provider,
        )
