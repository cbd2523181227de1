# SPDX-License-Identifier: Apache-2.0
"""Compliance chapter: the fleet as one number, then by rule, by directive and by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from quarterdeck.core import compliance
from quarterdeck.core.errors import Invalid
from quarterdeck.dialects.rudder.compliance_shapes import Shape, encode_csv, encode_global
from quarterdeck.services import compliance as decisions
from quarterdeck.services import compliance_totals, compliance_views
from quarterdeck.services.compliance_views import DirectiveCompliance
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Compliance", options={"style": "old"})

DEFAULT_LEVEL = 10
#: From this level on an answer shows more than the object itself.
_NESTED = 2
#: From these levels on, stored counters do not tell enough.
_DEEP = 3
_DEEP_FOR_NODES = 4
_FORMATS = ("csv", "json")

T = TypeVar("T")


@section.operation(
    "getGlobalCompliance",
    "GET",
    "/compliance",
    right="compliance.read",
    wrap="globalCompliance",
    hint="Could not get global compliance",
    since=10,
)
def get_global_compliance(ctx: Context, request: Request) -> Reply:
    """The compliance of all nodes with all user rules."""
    precision = _precision(request)
    return Reply(encode_global(decisions.global_(ctx), precision))


@section.operation(
    "getRulesCompliance",
    "GET",
    "/compliance/rules",
    right="compliance.read",
    wrap="rules",
    hint="Could not get compliance for all rules",
    since=7,
)
def get_rules_compliance(ctx: Context, request: Request) -> Reply:
    """The compliance of all user rules."""
    shape = _shape(ctx, request)
    if shape.level < _NESTED:
        views = compliance_totals.by_rules(ctx)
    else:
        views = compliance_totals.with_silent(ctx, compliance_views.by_rules(ctx, deep=shape.level >= _DEEP))
    return Reply(_each(shape.rule, views))


@section.operation(
    "getRulesComplianceId",
    "GET",
    "/compliance/rules/{id}",
    right="compliance.read",
    wrap="rules",
    hint="Could not get compliance for rule '{id}'",
    since=7,
)
def get_rule_compliance(ctx: Context, request: Request) -> Reply:
    """The compliance of one rule."""
    rule, shape = request.params["id"], _shape(ctx, request)
    if shape.level < _NESTED:
        return Reply([shape.rule(compliance_totals.of_rule(ctx, rule))])
    view = compliance_views.of_rule(ctx, rule, deep=shape.level >= _DEEP)
    return Reply(_each(shape.rule, compliance_totals.with_silent(ctx, [view])))


@section.operation(
    "getDirectivesCompliance",
    "GET",
    "/compliance/directives",
    right="compliance.read",
    wrap="directivesCompliance",
    hint="Could not get compliance for all directives",
    since=17,
)
def get_directives_compliance(ctx: Context, request: Request) -> Reply | Answer:
    """The compliance of all directives, as JSON or CSV."""
    wanted, shape = _format(request), _shape(ctx, request)
    if wanted == "csv":
        return _csv(shape, compliance_views.by_directives(ctx))
    if shape.level < _NESTED:
        return Reply(_each(shape.directive, compliance_totals.by_directives(ctx)))
    return Reply(_each(shape.directive, compliance_views.by_directives(ctx, deep=shape.level >= _DEEP)))


@section.operation(
    "getDirectiveComplianceId",
    "GET",
    "/compliance/directives/{id}",
    right="compliance.read",
    wrap="directiveCompliance",
    hint="Could not get compliance for directive '{id}'",
    since=17,
)
def get_directive_compliance(ctx: Context, request: Request) -> Reply | Answer:
    """The compliance of one directive, as JSON or CSV."""
    wanted, shape, directive = _format(request), _shape(ctx, request), request.params["id"]
    if wanted == "csv":
        return _csv(shape, [compliance_views.of_directive(ctx, directive)])
    if shape.level < _NESTED:
        return Reply(shape.directive(compliance_totals.of_directive(ctx, directive)))
    return Reply(shape.directive(compliance_views.of_directive(ctx, directive, deep=shape.level >= _DEEP)))


@section.operation(
    "getNodesCompliance",
    "GET",
    "/compliance/nodes",
    right="compliance.read",
    wrap="nodes",
    hint="Could not get compliance for all nodes",
    since=7,
)
def get_nodes_compliance(ctx: Context, request: Request) -> Reply:
    """The compliance of all nodes."""
    shape = _shape(ctx, request)
    return Reply(_each(shape.node, compliance_views.each_node(ctx, deep=shape.level >= _DEEP_FOR_NODES)))


@section.operation(
    "getNodeComplianceId",
    "GET",
    "/compliance/nodes/{id}",
    right="compliance.read",
    wrap="nodes",
    hint="Could not get compliance for node '{id}'",
    since=7,
)
def get_node_compliance(ctx: Context, request: Request) -> Reply:
    """The compliance of one node."""
    shape = _shape(ctx, request)
    view = compliance_views.of_node(ctx, request.params["id"], deep=shape.level >= _DEEP_FOR_NODES)
    return Reply([shape.node(view)])


# -- parameters ----------------------------------------------------------------------------


def _shape(ctx: Context, request: Request) -> Shape:
    level = compliance.parse_level(request.first("level", str(DEFAULT_LEVEL)))
    precision = _precision(request)
    return Shape(
        rules={rule.id: rule for rule in ctx.store.rules.all()},
        directives={directive.id: directive for directive in ctx.store.directives.all()},
        settings=ctx.store.settings.get(),
        level=level,
        precision=precision,
    )


def _precision(request: Request) -> int:
    return compliance.parse_precision(request.first("precision", str(compliance.DEFAULT_PRECISION)))


def _format(request: Request) -> str:
    wanted = request.first("format", "json")
    if wanted not in _FORMATS:
        raise Invalid(f"Wrong type of value for compliance format '{wanted}', expected : [{', '.join(_FORMATS)}]")
    return wanted


# -- answers -------------------------------------------------------------------------------


def _each(encode: Callable[[T], dict[str, Any]], views: Iterable[T]) -> list[msgspec.Raw]:
    """Views as JSON text one by one: text is a small part of what the objects of a whole fleet would take."""
    return [msgspec.Raw(msgspec.json.encode(encode(view))) for view in views]


def _csv(shape: Shape, views: Iterable[DirectiveCompliance]) -> Answer:
    text = encode_csv(views, shape.rules)
    return Answer(headers=(("Content-Type", "text/plain; charset=utf-8"),), body=text.encode())
