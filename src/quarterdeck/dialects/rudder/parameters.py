# SPDX-License-Identifier: Apache-2.0
"""Parameters chapter: the global properties."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from quarterdeck.core import parameters as core_parameters
from quarterdeck.core import properties
from quarterdeck.core.parameters import Parameter
from quarterdeck.dialects.rudder import body
from quarterdeck.dialects.rudder.shapes import Fields, Text
from quarterdeck.services import parameters
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Parameters", {"wrap": "parameters"})


class ParameterFields(Fields):
    id: Text = UNSET
    value: Any = UNSET
    description: Text = UNSET
    inherit_mode: Text = UNSET

    def changes(self) -> dict[str, Any]:
        """The fields that were sent, as core calls them. Raises Invalid."""
        given = self.given(value="value", description="description", inherit_mode="inherit_mode")
        if given.get("value", "") is None:
            given["value"] = ""  # so the peer keeps a null
        if "inherit_mode" in given:
            properties.parse_inherit_mode(given["inherit_mode"])
        return given


@section.operation("listParameters", "GET", "/parameters", right="parameter.read")
def list_parameters(ctx: Context, request: Request) -> Reply:
    """List all global parameters."""
    return Reply([encode(one) for one in parameters.all_parameters(ctx)])


@section.operation("createParameter", "PUT", "/parameters", right="parameter.write", body=ParameterFields)
def create_parameter(ctx: Context, request: Request) -> Reply:
    """Create a global parameter."""
    fields = body.decode(request, ParameterFields)
    name = core_parameters.parse_name("" if fields.id is UNSET else fields.id)
    created = parameters.create(ctx, Parameter(**{"value": "", **fields.changes(), "name": name}))
    return _reply(created)


@section.operation("parameterDetails", "GET", "/parameters/{id}", right="parameter.read")
def parameter_details(ctx: Context, request: Request) -> Reply:
    """Get one global parameter."""
    return _reply(parameters.get(ctx, request.params["id"]))


@section.operation("updateParameter", "POST", "/parameters/{id}", right="parameter.write", body=ParameterFields)
def update_parameter(ctx: Context, request: Request) -> Reply:
    """Change the fields of a global parameter that are sent."""
    changes = body.decode(request, ParameterFields).changes()
    return _reply(parameters.update(ctx, request.params["id"], changes))


@section.operation("deleteParameter", "DELETE", "/parameters/{id}", right="parameter.write")
def delete_parameter(ctx: Context, request: Request) -> Reply:
    """Delete a global parameter; deleting an unknown one succeeds."""
    name = request.params["id"]
    deleted = parameters.delete(ctx, name)
    shown = encode(deleted) if deleted is not None else {"id": name, "value": "", "description": ""}
    return Reply([shown], id=name)


def _reply(parameter: Parameter) -> Reply:
    return Reply([encode(parameter)], id=parameter.name)


def encode(parameter: Parameter) -> dict[str, Any]:
    """A parameter; what is default is left out."""
    shown = {"id": parameter.name, "value": parameter.value, "description": parameter.description}
    if parameter.inherit_mode and parameter.inherit_mode != properties.DEFAULT_INHERIT_MODE:
        shown["inheritMode"] = parameter.inherit_mode
    if parameter.provider and parameter.provider != properties.DEFAULT_PROVIDER:
        shown["provider"] = parameter.provider
    return shown
