# SPDX-License-Identifier: Apache-2.0
"""Node queries answered by PostgreSQL: a query becomes one SELECT of node ids, every value a bound parameter.

What the node says of itself in memory (`_EXACT`) is compared exactly and negated plainly; all else as a directory
does: without regard to case, and `notRegex` wants a value. Negations on sub-objects ask for some sub-object of
which it is not true. What PostgreSQL cannot say (some regular expressions, JSONPath) is tried in Python on the
distinct values that occur.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import jsonpath
import psycopg
import sqlalchemy
from jsonpath.exceptions import JSONPathError
from sqlalchemy import ColumnElement, Connection, FromClause, Numeric, Select, Text, and_, cast, func, not_, or_
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from quarterdeck.core import java_regexes, node_queries, properties
from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.node_attributes import Kind
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.storage import node_fields, tables
from quarterdeck.storage.node_fields import NODES, SOFTWARE, Field, Several, Test

_node_software = tables.node_software
_members = tables.group_members

#: Attributes of nodes that are compared with regard to case, and negated plainly.
_EXACT = frozenset({"nodeId", "nodeHostname", "ipHostNumber", "localAdministratorAccountName", "policyServerId"})
_NEGATIVE = {"notExists": "exists", "notEq": "eq", "notRegex": "regex"}
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}
#: What the values of these enumerations stand for in the tables, lower case.
_AGENTS = {
    "cfengine": ("cfengine-community", "cfengine-nova", "quarterdeck"),
    "community": ("cfengine-community",),
    "nova": ("cfengine-nova",),
}
_PROVIDERS = {"virtualBox": ("vbox",)}
#: The name of a property, in a regular expression that begins with one.
_KEY = re.compile(r"([A-Za-z0-9_-]+)=(?![*+?{])")
_NO_MACHINE = ("", "No machine Inventory")


def match(
    connection: Connection,
    query: NodeQuery,
    only: Iterable[str] | None = None,
    status: NodeStatus = NodeStatus.ACCEPTED,
) -> set[NodeId]:
    """The nodes of this status that the query selects, or those of them that are among `only`.

    Raises Invalid for a regular expression or JSONPath that cannot be evaluated; Unavailable.
    """
    if not query.criteria:
        return set()
    try:
        found = compile_query(connection, query, only, status).subquery()
        # One array comes back several times faster than as many rows.
        ids = connection.execute(sqlalchemy.select(func.array_agg(found.c.id))).scalar_one()
        return {NodeId(one) for one in ids or ()}
    except sqlalchemy.exc.DataError as error:
        if isinstance(error.orig, psycopg.errors.InvalidRegularExpression):
            raise Invalid(f"The regular expression cannot be evaluated: {error.orig.diag.message_primary}") from error
        raise Invalid("The query cannot be evaluated.", detail=str(error)) from error
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
        raise Unavailable("The database does not answer.", detail=str(error)) from error


def compile_query(
    connection: Connection,
    query: NodeQuery,
    only: Iterable[str] | None = None,
    status: NodeStatus = NodeStatus.ACCEPTED,
) -> Select[Any]:
    """The SELECT of node ids for a query with criteria. The connection looks up values, see the module."""
    conditions = [_Criterion(connection, one).condition() for one in query.criteria]
    matched = and_(*conditions) if query.composition == "and" else or_(*conditions)
    selected = sqlalchemy.select(NODES.c.id).where(NODES.c.status == status.value)
    if not query.with_policy_servers:
        selected = selected.where(NODES.c.id != ROOT)
    if only is not None:
        selected = selected.where(NODES.c.id == sqlalchemy.any_(cast(list(only), ARRAY(Text))))
    return selected.where(_negated(matched) if query.inverted else matched)


def _negated(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return not_(func.coalesce(condition, sqlalchemy.false()))


class _Criterion:
    """One criterion on its way to a condition on the row of a node."""

    def __init__(self, connection: Connection, criterion: Criterion) -> None:
        self._connection = connection
        self._criterion = criterion
        self._attribute = node_queries.attribute_of(criterion)
        self._negative = criterion.comparator in _NEGATIVE
        self._comparator = _NEGATIVE.get(criterion.comparator, criterion.comparator)
        self._value = criterion.value
        self._exact = criterion.object_type == "node" and criterion.attribute in _EXACT

    def condition(self) -> ColumnElement[bool]:
        ways: dict[str, Callable[[], ColumnElement[bool]]] = {
            "node": self._node,
            "machine": self._machine,
            "group": self._group,
            "software": self._software,
            "environmentVariable": self._environment,
            "serializedNodeProperty": self._property,
        }
        return ways.get(self._criterion.object_type, self._element)()

    # -- where the attribute is -----------------------------------------------------

    def _node(self) -> ColumnElement[bool]:
        return self._compared(node_fields.NODE[self._attribute.name])

    def _machine(self) -> ColumnElement[bool]:
        there = NODES.c.machine_type.not_in(_NO_MACHINE)
        if self._attribute.name == "provider" and self._value == "virtualMachine":
            virtual = NODES.c.machine_type == "Virtual"
            return and_(there, not_(virtual) if self._negative else virtual)
        return and_(there, self._compared(node_fields.MACHINE[self._attribute.name]))

    def _group(self) -> ColumnElement[bool]:
        members = sqlalchemy.select(_members.c.node_id).where(_members.c.group_id == self._value)
        return NODES.c.id.in_(members)

    def _software(self) -> ColumnElement[bool]:
        holds = self._compared(node_fields.of_software(node_fields.SOFTWARE_KEYS[self._attribute.name]))
        if not self._negative:
            installed = sqlalchemy.select(SOFTWARE.c.id).where(holds)
            having = sqlalchemy.select(_node_software.c.node_id).where(_node_software.c.software_id.in_(installed))
            return NODES.c.id.in_(having)
        # True of nearly all software: the first one found will do, so look node by node.
        joined = _node_software.join(SOFTWARE, SOFTWARE.c.id == _node_software.c.software_id)
        first = sqlalchemy.select(sqlalchemy.true()).select_from(joined).correlate(NODES).limit(1)
        return first.where(_node_software.c.node_id == NODES.c.id, holds).scalar_subquery()

    def _element(self) -> ColumnElement[bool]:
        name, keys = node_fields.LISTS[self._criterion.object_type]
        function, field = node_fields.of_element(name, keys[self._attribute.name])
        return _exists(function, self._compared(field))

    def _environment(self) -> ColumnElement[bool]:
        function, key, value = node_fields.environment()
        if self._comparator == "hasKey":
            return _exists(function, func.lower(key) == func.lower(self._value))
        return self._compared(Several(function, func.concat(key, "=", value), NODES))

    def _property(self) -> ColumnElement[bool]:
        match self._comparator:
            case "exists":
                holds = func.jsonb_array_length(NODES.c.properties) > 0
            case "hasKey":
                holds = _has_property({"name": self._value})
            case "eq":
                holds = self._property_equals()
            case "regex":
                holds = self._property_regex()
            case _:
                return self._property_path()
        return not_(holds) if self._negative else holds

    # -- how it is compared ------------------------------------------------------------

    def _compared(self, field: Field) -> ColumnElement[bool]:
        if self._comparator == "exists":
            return not_(field.present) if self._negative else field.present
        holds = field.some(self._test(field))
        if not self._negative:
            return holds
        if self._comparator == "regex" and not self._exact:
            return and_(field.present, _negated(holds))
        return _negated(holds)

    def _test(self, field: Field) -> Test:
        if self._comparator == "regex":
            return self._regex(field.distinct())
        if self._attribute.kind is Kind.ENUMERATION:
            return lambda text: func.lower(text).in_(self._meant())
        compare = _ORDER[self._comparator]
        convert, wanted = self._converted()
        return lambda text: compare(convert(text), wanted)

    def _converted(self) -> tuple[Callable[[ColumnElement[Any]], ColumnElement[Any]], ColumnElement[Any]]:
        """What is done to a value in the tables, and what it is then compared with."""
        match self._attribute.kind:
            case Kind.LONG:
                return _number, cast(int(self._value), Numeric)
            case Kind.MEMORY:
                return _number, cast(node_queries.parse_memory(self._value), Numeric)
            case Kind.DATE:
                return _day, _text(node_queries.parse_date(self._value).isoformat())
        if self._exact:
            return lambda text: text, _text(self._value)
        return _folded, _folded(_text(self._value))

    def _meant(self) -> tuple[str, ...]:
        if self._attribute.name == "agentName":
            return _AGENTS.get(self._value, (self._value.lower(),))
        if self._attribute.name == "provider":
            return _PROVIDERS.get(self._value, (self._value.lower(),))
        return (self._value.lower(),)

    def _regex(self, values: Select[Any]) -> Test:
        regex = java_regexes.parse(self._value)
        pattern = regex.postgres
        if pattern is not None:
            return lambda text: text.regexp_match(pattern, flags="i" if regex.ignore_case else None)
        found = [text for (text,) in self._connection.execute(values) if text and regex.python.fullmatch(text)]
        return lambda text: text == sqlalchemy.any_(cast(found, ARRAY(Text)))

    # -- properties ----------------------------------------------------------------------

    def _property_equals(self) -> ColumnElement[bool]:
        """The value as text; one that is JSON is compared as JSON, whatever the order of its keys."""
        name, text = node_queries.split_pair(self._value)
        wanted: list[Any] = [text]
        try:
            parsed = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            parsed = text
        if isinstance(parsed, dict | list):
            function, one = node_fields.properties()
            same = and_(one["name"].astext == name, one["value"] == cast(parsed, JSONB))
            return or_(_has_property({"name": name, "value": text}), _exists(function, same))
        if not isinstance(parsed, str):
            wanted.append(parsed)
        return or_(*(_has_property({"name": name, "value": value}) for value in wanted))

    def _property_regex(self) -> ColumnElement[bool]:
        """On the text `key=value`, where an object or list is written compactly with its keys in order."""
        function, one = node_fields.properties()
        name, value = one["name"].astext, one["value"]
        text = func.concat(name, "=", one["value"].astext)
        nested = func.jsonb_typeof(value).in_(("object", "array"))
        known = None if "|" in self._value else _KEY.match(self._value)
        likely = sqlalchemy.true() if known is None else _has_property({"name": known[1]})
        joined = NODES.join(function, sqlalchemy.true())
        plain = sqlalchemy.select(text).select_from(joined).where(likely, not_(nested)).distinct()
        regex = java_regexes.parse(self._value)
        compound = sqlalchemy.select(text, name, value).select_from(joined).where(likely, nested).distinct()
        found = [
            stored
            for stored, key, document in self._connection.execute(compound)
            if regex.python.fullmatch(f"{key}={_compact(document)}")
        ]
        among = text == sqlalchemy.any_(cast(found, ARRAY(Text)))
        tested = or_(and_(not_(nested), self._regex(plain)(text)), and_(nested, among))
        return and_(likely, _exists(function, tested))

    def _property_path(self) -> ColumnElement[bool]:
        name, path = node_queries.split_pair(self._value, ":")
        try:
            compiled = jsonpath.compile(path)
        except JSONPathError as error:
            raise Invalid(f"The JSONPath '{path}' is not valid: {str(error).splitlines()[0]}") from error
        function, one = node_fields.properties()
        named = one["name"].astext == name
        joined = NODES.join(function, sqlalchemy.true())
        text = one["value"].cast(Text)
        values = sqlalchemy.select(text, one["value"]).select_from(joined).where(named, _has_property({"name": name}))
        found = [stored for stored, value in self._connection.execute(values.distinct()) if _selects(compiled, value)]
        return _exists(function, and_(named, text == sqlalchemy.any_(cast(found, ARRAY(Text)))))


def _exists(function: FromClause, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    chosen = sqlalchemy.select(sqlalchemy.literal(1)).select_from(function).where(condition)
    return chosen.correlate_except(function).exists()


def _has_property(like: dict[str, Any]) -> ColumnElement[bool]:
    return NODES.c.properties.contains([like])


def _number(text: ColumnElement[Any]) -> ColumnElement[Any]:
    """The whole number a text begins with: inventories write `2400 MT/s`, too."""
    return cast(func.substring(text, "^-?[0-9]{1,30}"), Numeric)


def _day(text: ColumnElement[Any]) -> ColumnElement[Any]:
    """The day of a date in ISO form, itself in ISO form; null for any other text."""
    return func.substring(text, "^[0-9]{4}-[0-9]{2}-[0-9]{2}").collate("C")


def _text(value: str) -> ColumnElement[Any]:
    return sqlalchemy.literal(value, Text)


def _folded(text: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.lower(text).collate("C")


def _compact(document: Any) -> str:
    return json.dumps(properties.sort_keys(document), separators=(",", ":"), ensure_ascii=False)


def _selects(path: jsonpath.JSONPath | jsonpath.CompoundJSONPath, value: Any) -> bool:
    if not isinstance(value, dict | list):
        # The library would read a text as JSON; a plain value has nothing below itself.
        return str(path) == "$"
    return path.match(value) is not None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
