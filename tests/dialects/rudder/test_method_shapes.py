# SPDX-License-Identifier: Apache-2.0
"""Generic methods on the wire: which keys, in which order, and what is left out."""

from __future__ import annotations

from quarterdeck.core.methods import Constraints, Deprecation, Method, MethodParameter
from quarterdeck.dialects.rudder.technique_shapes import encode_method

ALWAYS = ["id", "name", "description", "condition", "agents", "parameters"]


def method(documentation: str = "", deprecated: Deprecation | None = None) -> Method:
    """A method with one parameter."""
    parameter = MethodParameter(name="path", constraints=Constraints(select=("a", "b"), min_length=1))
    return Method(
        id="m",
        name="M",
        description="",
        parameters=(parameter,),
        prefix="m",
        class_parameter="path",
        documentation=documentation,
        deprecated=deprecated,
    )


def test_what_a_method_does_not_say_is_left_out() -> None:
    shown = encode_method(method())
    assert list(shown) == ALWAYS
    assert shown["description"] == ""
    assert shown["condition"] == {"prefix": "m", "parameter": "path"}


def test_what_a_method_says_stands_at_the_end() -> None:
    shown = encode_method(method("# How", Deprecation(info="Use n.", replaced_by="n")))
    assert list(shown) == [*ALWAYS, "documentation", "deprecated"]
    assert shown["deprecated"] == {"info": "Use n.", "replacedBy": "n"}


def test_constraints_that_are_not_set_are_left_out() -> None:
    (parameter,) = encode_method(method())["parameters"]
    assert list(parameter) == ["name", "description", "constraints", "type"]
    kept = ["allow_empty_string", "allow_whitespace_string", "max_length", "min_length", "select"]
    assert list(parameter["constraints"]) == kept
