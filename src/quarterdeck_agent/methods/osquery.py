# SPDX-License-Identifier: Apache-2.0
"""Methods that ask osquery, where a node has it. A query only looks; osqueryi keeps no database."""

from __future__ import annotations

import json
import re
from typing import Dict, List

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import processes, system
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.variables import define
from quarterdeck_agent.outcome import Finding, MethodCall


def _rows(query: str) -> List[Dict[str, str]]:
    done = processes.query(system.tool("osqueryi"), "--json", "--disable_database", query)
    if done.code != 0:
        raise UnableError(f"osqueryi returned {done.code}{done.told}")
    try:
        rows = json.loads(done.out)
    except ValueError as problem:
        raise UnableError(f"The answer of osqueryi is not JSON: {problem}.") from problem
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnableError("The answer of osqueryi is not a list of rows.")
    return rows


def _audit(call: MethodCall) -> Finding:
    comparator, wanted = call["comparator"].strip() or "=", call["value"]
    if comparator not in ("=", "!=", "~"):
        raise UnableError(f"The parameter comparator must be =, != or ~, not {comparator}.")
    rows = _rows(call["query"])
    if len(rows) != 1 or len(rows[0]) != 1:
        raise UnableError(f"The query gave {len(rows)} rows; exactly one row with one column is needed.")
    found = next(iter(rows[0].values()))
    fits = {"=": found == wanted, "!=": found != wanted, "~": comparator == "~" and bool(re.fullmatch(wanted, found))}
    text = f"The query gave {found}; expected: {comparator} {wanted}."
    return outcome.compliant(text) if fits[comparator] else outcome.drift(text)


def _dictionary(call: MethodCall) -> Finding:
    return define(call, _rows(call["query"]))


register("audit_from_osquery", "query comparator? value", _audit)
register("variable_dict_from_osquery", "prefix name query", _dictionary, value="name")
